"""What a plan does with the work of each slot, whoever decided it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pals_grid.planner.problem import Problem
    from pals_grid.planner.work import Queue, TierWork

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rates in tokens/s; the first axis is the slot, the second the tier or the queue.

    ``lost_floor`` is the part of ``lost`` that a tier's floor forbids, ``late`` what queues
    leave undone, ``late_floor`` (tokens) what of it they must not. ``reserve_used`` is deferrable
    work in the room of the upper quantile. ``ramp_over_w`` is the step from the slot before
    beyond the ramp. ``at_ramp``, ``at_peak`` and ``at_carbon_cap`` tell slots that these hold.
    ``fallback`` says why there is no optimum; empty where there is.
    """

    planned: Floats
    lost: Floats
    lost_floor: Floats
    waiting_served: Floats
    late: Floats
    late_floor: Floats
    reserve_used: Floats
    ramp_over_w: Floats
    carbon_over_g: Floats
    at_ramp: Bools
    at_peak: Bools
    at_carbon_cap: Bools
    shadow_per_j: Floats
    fallback: str = ""


def serve_as_it_comes(problem: Problem, why: str) -> Outcome:
    """Serve what arrives when it arrives, the most important first; what does not fit waits.

    It keeps every cap and the tiers' order, moves nothing for money, and ignores ramps, charges
    and carbon.
    """
    tiers, queues = problem.work.tiers, problem.work.queues
    count = len(problem.slots)
    room = np.where(problem.dark, 0.0, problem.room)
    served, left = _serve_tiers(tiers, room)
    waiting_served, late = np.zeros((count, len(queues))), np.zeros((count, len(queues)))
    for c, queue in enumerate(queues):
        waiting_served[:, c], late[:, c] = _serve_queue(queue, left, problem.duration_s)
        left = np.maximum(0.0, left - waiting_served[:, c])
    lost = np.maximum(0.0, np.array([tier.demand for tier in tiers]).T - served)
    may_lose = np.array([tier.demand * tier.loss_ratio for tier in tiers]).T
    late_tokens = (late * problem.duration_s[:, None]).sum(axis=0)
    nowhere = np.zeros(count, bool)
    return Outcome(
        planned=served.sum(axis=1) + waiting_served.sum(axis=1),
        lost=lost,
        lost_floor=np.maximum(0.0, lost - may_lose),
        waiting_served=waiting_served,
        late=late,
        late_floor=np.maximum(0.0, late_tokens - np.array([item.may_lose for item in queues])),
        reserve_used=np.zeros(count),
        ramp_over_w=np.zeros(count),
        carbon_over_g=np.zeros(len(problem.days)),
        at_ramp=nowhere,
        at_peak=nowhere,
        at_carbon_cap=nowhere,
        shadow_per_j=np.zeros(count),
        fallback=why,
    )


def _serve_tiers(tiers: Sequence[TierWork], room: Floats) -> tuple[Floats, Floats]:
    """Fill every tier's floor, then what tiers may lose; returns rates served, and room left."""
    served, left = np.zeros((len(room), len(tiers))), room.copy()
    for is_floor in (True, False):
        for k, tier in enumerate(tiers):
            share = 1 - tier.loss_ratio if is_floor else tier.loss_ratio
            taken = np.minimum(left, tier.demand * share)
            served[:, k] += taken
            left -= taken
    return served, left


def _serve_queue(queue: Queue, room: Floats, duration_s: Floats) -> tuple[Floats, Floats]:
    """Serve a queue as early as it fits; returns rates served, and rates given up when due."""
    served, late = np.zeros(len(room)), np.zeros(len(room))
    pending, gone = queue.waiting, 0.0
    for t, due in enumerate(queue.due):
        pending += queue.arrivals[t]
        taken = max(0.0, min(room[t] * duration_s[t], pending))
        overdue = min(max(0.0, due - gone - taken), pending - taken)
        pending -= taken + overdue
        gone += taken + overdue
        served[t], late[t] = taken / duration_s[t], overdue / duration_s[t]
    return served, late
