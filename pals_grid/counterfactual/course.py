"""What a site would do over its slots by a plan or a rival, and what comes of it. Modelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.core.budget import Constraint
from pals_grid.core.intervals import Interval
from pals_grid.core.units import J_PER_KWH, W_PER_KW
from pals_grid.counterfactual.serving import Amount, energy_kwh
from pals_grid.planner.costs import cost_per_j
from pals_grid.planner.grid import cut_slots
from pals_grid.planner.problem import peaks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from pals_grid.core.budget import Finding, PeakCharge, PlanRequest, PlanSlot, PowerBudget
    from pals_grid.counterfactual.serving import Floats

MISSES = frozenset({Constraint.TIER_FLOOR, Constraint.DEADLINE})
PER_MTOKEN = 1e6


@dataclass(frozen=True, slots=True)
class Outcome:
    """Sums over a stretch of time; power and energy at node boundary, money in the site's currency.

    A sum whose signal is known in no slot is None; ``*_covered_ratio`` is the share of the energy
    that it covers. ``cost`` is energy alone; ``worth`` adds priced carbon and the risk of the
    grid's peak: what the planner weighs. ``demand_charge`` is what the stretch's own peaks add to
    the month's bill. Of the tokens that arrive, ``late`` are served after their slot or deadline
    and ``lost`` never; ``carried`` wait at the end less those that waited at the beginning.
    ``floor_misses_tokens`` are those that tiers' floors and deadlines forbid to lose, by a plan's
    findings, of one that lies partly in the stretch that part; None for a rival, which knows no
    tiers.
    """

    energy_kwh: float
    cost: float | None
    cost_covered_ratio: float
    worth: float | None
    carbon_kg: float | None
    carbon_covered_ratio: float
    marginal_carbon_kg: float | None
    demand_charge: float
    peak_w: float
    tokens_arrived: float
    tokens_served: float
    tokens_late: float
    tokens_lost: float
    tokens_carried: float
    floor_misses_tokens: float | None

    @property
    def cost_per_mtoken(self) -> float | None:
        """Energy cost of a million tokens served."""
        if self.cost is None or self.tokens_served <= 0:
            return None
        return self.cost / self.tokens_served * PER_MTOKEN


@dataclass(frozen=True, slots=True)
class Course:
    """A site's slots one by one. ``limit_w`` is a plan's; None where nothing limits the site.

    ``power_w`` includes what nodes that cannot be reached may draw. Amounts are tokens.
    """

    name: str
    settings: str
    slots: tuple[PlanSlot, ...]
    limit_w: tuple[float, ...] | None
    power_w: Floats
    served: Floats
    late: Floats
    lost: Floats
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]


def planned_course(name: str, request: PlanRequest, budget: PowerBudget) -> Course:
    """What a plan expects of itself."""
    items, slots = budget.intervals, cut_slots(request.slots, request.events)
    duration_s = np.array([item.interval.duration_s for item in items])
    return Course(
        name=name,
        settings="",
        slots=slots,
        limit_w=tuple(item.limit_w for item in items),
        power_w=np.array([item.expected_power_w for item in items]),
        served=np.array([item.planned_tokens_per_s for item in items]) * duration_s,
        late=np.zeros(len(items)),
        lost=np.array([item.shortfall_tokens_per_s for item in items]) * duration_s,
        reasons=tuple(item.reason.value for item in items),
        findings=budget.findings,
    )


def outcome_of(course: Course, request: PlanRequest, during: Interval) -> Outcome:
    """Count what falls into ``during``; a slot that lies partly in it counts by that part."""
    slots = course.slots
    inside_s = np.array([slot.interval.overlap_s(during) for slot in slots])
    share = inside_s / np.array([slot.interval.duration_s for slot in slots])
    energy = energy_kwh(course.power_w, inside_s)
    arrived, served, late, lost = (
        float(amount @ share)
        for amount in (_arrived(slots), course.served, course.late, course.lost)
    )
    cost = Amount.of(energy, _known(slot.price_per_mwh for slot in slots) / 1000)
    carbon = Amount.of(energy, _known(slot.carbon_g_per_kwh for slot in slots) / 1000)
    marginal = Amount.of(energy, _known(slot.marginal_carbon_g_per_kwh for slot in slots) / 1000)
    per_j = _known(cost_per_j(request.policy, slot) for slot in slots)
    return Outcome(
        energy_kwh=float(energy.sum()),
        cost=cost.value,
        cost_covered_ratio=cost.covered_ratio,
        worth=Amount.of(energy, per_j * J_PER_KWH).value,
        carbon_kg=carbon.value,
        carbon_covered_ratio=carbon.covered_ratio,
        marginal_carbon_kg=marginal.value,
        demand_charge=added_charge(
            request.peak_charges,
            [slot.interval for slot in slots],
            course.power_w,
            during,
            ZoneInfo(request.policy.timezone),
        ),
        peak_w=float(course.power_w[inside_s > 0].max()),
        tokens_arrived=arrived,
        tokens_served=served,
        tokens_late=late,
        tokens_lost=lost,
        tokens_carried=arrived - served - lost,
        floor_misses_tokens=_floor_misses(course, during),
    )


def _floor_misses(course: Course, during: Interval) -> float | None:
    if course.limit_w is None:
        return None
    return sum(
        item.amount * item.interval.overlap_s(during) / item.interval.duration_s
        for item in course.findings
        if item.constraint in MISSES
    )


def added_charge(
    charges: Sequence[PeakCharge],
    intervals: Sequence[Interval],
    power_w: Floats,
    during: Interval,
    zone: tzinfo,
) -> float:
    """What the peaks of a stretch add to what is billed already, in the site's currency.

    ``zone`` is the site's: windows are on its clock.
    """
    inside = [i for i, interval in enumerate(intervals) if interval.overlap_s(during) > 0]
    parts = [
        Interval(
            max(intervals[i].start_at, during.start_at), min(intervals[i].end_at, during.end_at)
        )
        for i in inside
    ]
    total = 0.0
    for peak in peaks_of(charges, parts, zone):
        highest_w = max(
            sum(
                share * float(power_w[inside[slot]])
                for slot, share in zip(window.slots, window.shares, strict=True)
            )
            for window in peak.windows
        )
        above_w = max(0.0, highest_w - peak.charge.reached_w)
        total += peak.charge.price_per_kw * above_w / W_PER_KW
    return total


def _arrived(slots: Sequence[PlanSlot]) -> Floats:
    return np.array([slot.demand_tokens_per_s * slot.interval.duration_s for slot in slots])


def _known(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values])
