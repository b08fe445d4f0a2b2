"""What a plan could not keep: which constraint, by how much, and what it does instead.

The order of relief: upper quantile's room, then tokens that tiers may lose, then the carbon cap,
then floors and deadlines from the last tier to the first, then the ramp. Grid connection, maximum
and events are never exceeded by the limits; below the fleet's floor they cannot be served.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.budget import Constraint, Finding
from pals_grid.core.intervals import Interval
from pals_grid.planner.explain import NOTABLE_RATIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pals_grid.planner.outcome import Outcome
    from pals_grid.planner.problem import Problem

    Bools = npt.NDArray[np.bool_]


def findings_of(problem: Problem, outcome: Outcome) -> tuple[Finding, ...]:
    """Everything that the plan relaxes, by kind and time."""
    return tuple(
        itertools.chain(
            _solver(problem, outcome),
            _dark(problem),
            _minimum(problem),
            _fleet(problem),
            _thermal(problem),
            _floors(problem, outcome),
            _deadlines(problem, outcome),
            _carbon(problem, outcome),
            _ramp(problem, outcome),
            _reserve(problem, outcome),
        )
    )


def _solver(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    if outcome.fallback:
        yield Finding(
            Constraint.SOLVER,
            "HiGHS",
            _span(problem, 0, len(problem.slots) - 1),
            0.0,
            "",
            f"There is no optimum ({outcome.fallback}). Work is planned as it comes, inside every"
            " limit; ramps, charges on peaks and the carbon cap are not looked at.",
        )


def _dark(problem: Problem) -> Iterator[Finding]:
    """Caps below what the fleet can be held to."""
    for first, last in _runs(problem.dark):
        short_w = problem.floor_w - problem.spare_w
        worst = first + int(np.argmax(short_w[first : last + 1]))
        cap = problem.caps[worst]
        yield Finding(
            cap.constraint,
            cap.event.order.name if cap.event else "",
            _span(problem, first, last),
            float(short_w[worst]),
            "W",
            f"{cap.words} leaves {problem.spare_w[worst] / 1000:.2f} kW to a fleet that cannot be"
            f" held below {problem.floor_w[worst] / 1000:.2f} kW while it serves."
            " The limit stands; no tokens are planned.",
        )


def _minimum(problem: Problem) -> Iterator[Finding]:
    policy = problem.request.policy
    limits_w = np.array([cap.limit_w for cap in problem.caps])
    for first, last in _runs(limits_w < policy.minimum_w):
        least_w = float(limits_w[first : last + 1].min())
        yield Finding(
            Constraint.MINIMUM,
            "",
            _span(problem, first, last),
            policy.minimum_w - least_w,
            "W",
            f"{problem.caps[first].words} is below the site's minimum of"
            f" {policy.minimum_w / 1000:.2f} kW. The lower one stands.",
        )


def _fleet(problem: Problem) -> Iterator[Finding]:
    """Fleets whose limit is below their floor: they serve nothing."""
    intervals = [slot.interval for slot in problem.slots]
    for fleet in problem.request.fleets:
        floor_w = max(fleet.curve.floor_w, fleet.minimum_w)
        if not fleet.thermal_limits and fleet.maximum_w >= floor_w:
            continue
        most_w = np.array([fleet.most_w(interval) for interval in intervals])
        for first, last in _runs(most_w < floor_w):
            least_w = float(most_w[first : last + 1].min())
            yield Finding(
                Constraint.FLEET,
                fleet.name,
                _span(problem, first, last),
                floor_w - least_w,
                "W",
                f"Fleet '{fleet.name}' may draw {least_w / 1000:.2f} kW and cannot be held below"
                f" {floor_w / 1000:.2f} kW while it serves. It serves nothing.",
            )


def _thermal(problem: Problem) -> Iterator[Finding]:
    """Fleets that heat holds below what they could draw; ``amount`` is what it takes."""
    horizon = _span(problem, 0, len(problem.slots) - 1)
    for fleet in problem.request.fleets:
        most_w = min(fleet.maximum_w, max(fleet.curve.max_power_w, fleet.minimum_w))
        for during, limit_w in fleet.thermal_limits:
            if limit_w < most_w and during.overlap_s(horizon) > 0:
                yield Finding(
                    Constraint.THERMAL,
                    fleet.name,
                    during,
                    most_w - limit_w,
                    "W",
                    f"Heat holds '{fleet.name}' to {limit_w / 1000:.2f} kW of"
                    f" {most_w / 1000:.2f} kW until {during.end_at:%Y-%m-%d %H:%M} UTC.",
                )


def _floors(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    for k, tier in enumerate(problem.work.tiers):
        broken = outcome.lost_floor[:, k]
        for first, last in _runs(broken > NOTABLE_RATIO * np.maximum(tier.demand, 1e-9)):
            part = slice(first, last + 1)
            demand = float(tier.demand[part] @ problem.duration_s[part])
            lost = float(outcome.lost[part, k] @ problem.duration_s[part])
            over = float(broken[part] @ problem.duration_s[part])
            worst = first + int(np.argmax(broken[part]))
            yield Finding(
                Constraint.TIER_FLOOR,
                tier.name,
                _span(problem, first, last),
                over,
                "tokens",
                f"Tier '{tier.name}' may lose {100 * tier.loss_ratio:.3g} % and loses"
                f" {100 * lost / demand:.3g} % ({lost:.4g} tokens):"
                f" {_why(problem, outcome, worst)}. Tiers after it lost theirs first.",
            )


def _why(problem: Problem, outcome: Outcome, t: int) -> str:
    cap = problem.caps[t]
    if outcome.at_ramp[t] and outcome.planned[t] < 0.999 * problem.room[t]:
        return "the ramp lets the power rise no faster"
    if problem.room[t] >= problem.supplies[t].curve.max_tokens_per_s * (1 - 1e-9):
        return f"the fleet's most is {problem.room[t]:.0f} tokens/s"
    return f"{cap.words[0].lower()}{cap.words[1:]} limits the site to {cap.limit_w / 1000:.2f} kW"


def _deadlines(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    for c, queue in enumerate(problem.work.queues):
        total = queue.waiting + float(queue.arrivals.sum())
        tokens = float(outcome.late_floor[c])
        if tokens <= NOTABLE_RATIO * total:
            continue
        slots = np.flatnonzero(outcome.late[:, c] > 0)
        yield Finding(
            Constraint.DEADLINE,
            queue.name,
            _span(problem, int(slots[0]), int(slots[-1])),
            tokens,
            "tokens",
            f"{tokens:.4g} of {total:.4g} tokens of '{queue.name}' cannot be served in time, by"
            f" {100 * tokens / total:.3g} %. The rest is served inside its windows.",
        )


def _carbon(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    for day, over_g in zip(problem.days, outcome.carbon_over_g, strict=True):
        if over_g > 1.0:
            yield Finding(
                Constraint.CARBON_CAP,
                day.interval.start_at.isoformat(),
                day.interval,
                float(over_g) / 1000,
                "kg",
                f"The day's carbon cap is exceeded by {over_g / 1000:.4g} kg. Tiers lose what they"
                " may, work that waits goes to the cleanest hours; floors are kept.",
            )


def _ramp(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    for first, last in _runs(outcome.ramp_over_w > 1.0):
        over_w = float(outcome.ramp_over_w[first : last + 1].max())
        yield Finding(
            Constraint.RAMP,
            "",
            _span(problem, first, last),
            over_w,
            "W",
            f"A step here is {over_w / 1000:.2f} kW more than the ramp allows: demand, an event or"
            " reserved power force it, and nothing that may be moved is left to smooth it.",
        )


def _reserve(problem: Problem, outcome: Outcome) -> Iterator[Finding]:
    for first, last in _runs(
        outcome.reserve_used > NOTABLE_RATIO * np.maximum(problem.extra, 1e-9)
    ):
        part = slice(first, last + 1)
        tokens = float(outcome.reserve_used[part] @ problem.duration_s[part])
        yield Finding(
            Constraint.RESERVE,
            "",
            _span(problem, first, last),
            tokens,
            "tokens",
            f"{tokens:.4g} tokens of work that waited take the room of the upper forecast: they"
            " would be late otherwise.",
        )


def _runs(flags: Bools) -> Iterator[tuple[int, int]]:
    """First and last index of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    for first, end in edges.reshape(-1, 2):
        yield int(first), int(end) - 1


def _span(problem: Problem, first: int, last: int) -> Interval:
    return Interval(problem.slots[first].interval.start_at, problem.slots[last].interval.end_at)
