"""The first planner: serve the expected tokens at the least cost of energy and carbon.

It looks at one fleet, one class of deferrable work and one value per slot. What it leaves out:
demand charges, uncertainty beyond a fixed reserve, and start-up costs.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.budget import PowerBudget
from pals_grid.core.units import G_PER_TONNE, J_PER_KWH, J_PER_MWH
from pals_grid.planner.caps import caps_for
from pals_grid.planner.explain import budget_interval
from pals_grid.planner.grid import cut_slots
from pals_grid.planner.shift import Piece, fill_cheapest, unserved_work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pals_grid.core.budget import PlanRequest, PlanSlot
    from pals_grid.core.fleet import PowerCurve
    from pals_grid.core.site import SitePolicy
    from pals_grid.planner.caps import Cap

NAME = "first"
SEGMENTS = 16
"""Marginal costs are told apart on this many pieces of the fleet's curve."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One slot's tokens: ``fixed`` are served in it, ``movable`` may wait, ``room`` is for both.

    ``cost_per_j`` is None where price or carbon is unknown.
    """

    slot: PlanSlot
    cap: Cap
    cost_per_j: float | None
    fixed: float
    movable: float
    room: float
    missed: float

    @property
    def duration_s(self) -> float:
        return self.slot.interval.duration_s


def plan_power_budget(request: PlanRequest) -> PowerBudget:
    """Plan a limit in watts for every interval of the request's slots.

    Of each slot's demand, ``deferrable_ratio`` may be served up to ``deferral_s`` later; the
    rest is served at once. Work is never moved into or out of a slot without a signal, except
    where a cap leaves no other way to serve it.
    """
    works = _works(request)
    movable = [work.movable for work in works]
    last = _last_slots(works, request.policy.deferral_s)
    served = _shift(request.curve, works, movable, last)
    unserved = unserved_work(movable, last, served)
    return PowerBudget(
        planner=NAME,
        intervals=tuple(
            budget_interval(
                request,
                work.slot,
                work.cap,
                known=work.cost_per_j is not None,
                planned_tokens_per_s=(work.fixed + moved) / work.duration_s,
                shortfall_tokens_per_s=(work.missed + lost) / work.duration_s,
            )
            for work, moved, lost in zip(works, served, unserved, strict=True)
        ),
    )


def cost_per_j(policy: SitePolicy, slot: PlanSlot) -> float | None:
    """Price plus priced emissions of a joule, in the site's currency; None when unknown."""
    if slot.price_per_mwh is None:
        return None
    if policy.carbon_price_per_tonne == 0:
        return slot.price_per_mwh / J_PER_MWH
    if slot.carbon_g_per_kwh is None:
        return None
    carbon = policy.carbon_price_per_tonne / G_PER_TONNE * slot.carbon_g_per_kwh / J_PER_KWH
    return slot.price_per_mwh / J_PER_MWH + carbon


def _works(request: PlanRequest) -> list[_Work]:
    plan_slots = cut_slots(request.slots, request.events)
    intervals = [slot.interval for slot in plan_slots]
    caps = caps_for(intervals, request.policy.grid_connection_w, request.events)
    backlog = itertools.chain([request.backlog_tokens], itertools.repeat(0.0))
    return [
        _work(request, slot, cap, waiting)
        for slot, cap, waiting in zip(plan_slots, caps, backlog, strict=False)
    ]


def _work(request: PlanRequest, slot: PlanSlot, cap: Cap, backlog_tokens: float) -> _Work:
    tokens = slot.demand_tokens_per_s * slot.interval.duration_s
    movable = tokens * request.policy.deferrable_ratio
    room = request.curve.tokens_per_s_at(cap.limit_w) * slot.interval.duration_s
    fixed = min(tokens - movable, room)
    return _Work(
        slot=slot,
        cap=cap,
        cost_per_j=cost_per_j(request.policy, slot),
        fixed=fixed,
        movable=movable + backlog_tokens,
        room=room,
        missed=tokens - movable - fixed,
    )


def _last_slots(works: Sequence[_Work], deferral_s: float) -> list[int]:
    """Index of the last slot that ends within ``deferral_s`` of each slot's start, or itself."""
    ends = [work.slot.interval.end_at for work in works]
    deferral = timedelta(seconds=deferral_s)
    return [
        max(i, bisect_right(ends, work.slot.interval.start_at + deferral) - 1)
        for i, work in enumerate(works)
    ]


def _shift(
    curve: PowerCurve, works: Sequence[_Work], movable: Sequence[float], last: Sequence[int]
) -> list[float]:
    """Movable tokens served in each slot; as they arrive, unless shifting is cheaper."""
    pieces = [piece for i, work in enumerate(works) for piece in _pieces(curve, i, work)]
    shifted = fill_cheapest(movable, last, pieces)
    if any(work.movable > work.room - work.fixed for work in works):
        return shifted
    if _cost(curve, works, shifted) < _cost(curve, works, movable):
        return shifted
    return list(movable)


def _cost(curve: PowerCurve, works: Sequence[_Work], served: Sequence[float]) -> float:
    """Cost of the slots with a signal; the others are never shifted when all work fits."""
    return sum(
        work.cost_per_j
        * work.duration_s
        * curve.power_w_at((work.fixed + tokens) / work.duration_s)
        for work, tokens in zip(works, served, strict=True)
        if work.cost_per_j is not None
    )


def _pieces(curve: PowerCurve, index: int, work: _Work) -> Iterator[Piece]:
    """Room for movable work in one slot, by cost per token.

    Without a signal the slot's own work stays (cost below all) and other work comes only when
    it fits nowhere else (cost above all). With a negative cost, marginal power would put the
    dearest segment first, so the slot counts as one piece at its mean.
    """
    spare = work.room - work.fixed
    if spare <= 0:
        return
    if work.cost_per_j is None:
        own = min(spare, work.movable)
        yield Piece(float("-inf"), index, own)
        yield Piece(float("inf"), index, spare - own)
        return
    edges = [work.fixed / work.duration_s, work.room / work.duration_s]
    if work.cost_per_j >= 0:
        edges[1:1] = _breakpoints(curve, *edges)
    for low, high in itertools.pairwise(edges):
        joules_per_token = (curve.power_w_at(high) - curve.power_w_at(low)) / (high - low)
        tokens = (high - low) * work.duration_s
        yield Piece(work.cost_per_j * joules_per_token, index, tokens)


def _breakpoints(curve: PowerCurve, low: float, high: float) -> list[float]:
    """Breakpoints of the curve inside ``(low, high)``, thinned to SEGMENTS pieces."""
    inside = [rate for rate in curve.tokens_per_s if low < rate < high]
    stride = -(-len(inside) // SEGMENTS) or 1
    return inside[stride - 1 :: stride]
