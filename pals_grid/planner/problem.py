"""A plan's request as arrays over its slots: what the programme is built from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.core.intervals import Interval
from pals_grid.core.time_of_use import clock_floor
from pals_grid.core.units import J_PER_KWH
from pals_grid.planner.caps import caps_for
from pals_grid.planner.costs import cost_per_j
from pals_grid.planner.grid import cut_slots
from pals_grid.planner.supply import supplies_for
from pals_grid.planner.work import work_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo

    import numpy.typing as npt

    from pals_grid.core.budget import PeakCharge, PlanRequest, PlanSlot
    from pals_grid.planner.caps import Cap
    from pals_grid.planner.supply import Supply
    from pals_grid.planner.work import Work

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PeakWindow:
    """The slots that one window of a charge averages, with their shares (1 in all)."""

    slots: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Peak:
    """A charge and its windows inside the horizon."""

    charge: PeakCharge
    windows: tuple[PeakWindow, ...]


@dataclass(frozen=True, slots=True)
class CarbonDay:
    """A local day inside the horizon: grams of a watt held over each slot, and what is left."""

    interval: Interval
    g_per_w: Floats
    left_g: float


@dataclass(frozen=True, slots=True)
class Problem:
    """A request by slot. Costs are 0 where ``known`` is false; ``spare_w`` is the fleets' own.

    ``dark`` slots leave less power than the fleets' floor: nothing can be served in them.
    ``extra`` is what the upper quantile of the demand served at once adds to it, tokens/s.
    """

    request: PlanRequest
    slots: tuple[PlanSlot, ...]
    caps: tuple[Cap, ...]
    supplies: tuple[Supply, ...]
    work: Work
    duration_s: Floats
    cost_per_j: Floats
    known: Bools
    reserved_w: Floats
    spare_w: Floats
    floor_w: Floats
    room: Floats
    extra: Floats
    peaks: tuple[Peak, ...]
    days: tuple[CarbonDay, ...]

    @property
    def dark(self) -> Bools:
        """Slots in which nothing can be served."""
        return self.spare_w < self.floor_w


def problem_of(request: PlanRequest) -> Problem:
    """Cut the slots at the events' edges and look everything up once."""
    slots = cut_slots(request.slots, request.events)
    intervals = [slot.interval for slot in slots]
    caps = tuple(caps_for(intervals, request.policy, request.events))
    supplies = tuple(supplies_for(request.fleets, intervals))
    costs = [cost_per_j(request.policy, slot) for slot in slots]
    work = work_of(request, slots)
    reserved_w = np.array([slot.reserved_w for slot in slots])
    spare_w = np.maximum(0.0, np.array([cap.limit_w for cap in caps]) - reserved_w)
    return Problem(
        request=request,
        slots=slots,
        caps=caps,
        supplies=supplies,
        work=work,
        duration_s=np.array([interval.duration_s for interval in intervals]),
        cost_per_j=np.array([cost or 0.0 for cost in costs]),
        known=np.array([cost is not None for cost in costs]),
        reserved_w=reserved_w,
        spare_w=spare_w,
        floor_w=np.array([supply.curve.floor_w for supply in supplies]),
        room=np.array(
            [
                supply.curve.tokens_per_s_at(float(power_w))
                for supply, power_w in zip(supplies, spare_w, strict=True)
            ]
        ),
        extra=_extra(slots, work.at_once),
        peaks=tuple(peaks_of(request.peak_charges, intervals, ZoneInfo(request.policy.timezone))),
        days=tuple(_days(request, slots)),
    )


def _extra(slots: Sequence[PlanSlot], at_once: Floats) -> Floats:
    return np.array(
        [
            max(0.0, slot.demand_high_tokens_per_s / slot.demand_tokens_per_s - 1) * rate
            if slot.demand_high_tokens_per_s is not None and slot.demand_tokens_per_s > 0
            else 0.0
            for slot, rate in zip(slots, at_once, strict=True)
        ]
    )


def peaks_of(
    charges: Sequence[PeakCharge], intervals: Sequence[Interval], zone: tzinfo
) -> Iterator[Peak]:
    """Charges that have a price, with their windows inside the intervals, on ``zone``'s clock."""
    for charge in charges:
        windows = dict.fromkeys(
            window
            for span in charge.intervals
            for window in _windows(span, timedelta(seconds=charge.window_s), intervals, zone)
        )
        if windows and charge.price_per_kw > 0:
            yield Peak(charge, tuple(windows))


def _windows(
    span: Interval, length: timedelta, intervals: Sequence[Interval], zone: tzinfo
) -> Iterator[PeakWindow]:
    """Windows on the clock's grid; what lies outside the span or the horizon does not count."""
    cursor = max(span.start_at, intervals[0].start_at)
    end_at = min(span.end_at, intervals[-1].end_at)
    first = 0
    while cursor < end_at:
        edge = min(clock_floor(cursor, length, zone) + length, end_at)
        window = Interval(cursor, edge)
        while intervals[first].end_at <= cursor:
            first += 1
        last = first
        while last + 1 < len(intervals) and intervals[last + 1].start_at < edge:
            last += 1
        covered = tuple(range(first, last + 1))
        yield PeakWindow(
            covered, tuple(intervals[i].overlap_s(window) / window.duration_s for i in covered)
        )
        cursor = edge


def _days(request: PlanRequest, slots: Sequence[PlanSlot]) -> Iterator[CarbonDay]:
    """Local days; a slot without a known intensity counts nothing."""
    cap_kg = request.policy.carbon_cap_kg_per_day
    if cap_kg is None:
        return
    g_per_j = np.array([(slot.carbon_g_per_kwh or 0.0) / J_PER_KWH for slot in slots])
    spent_kg = request.carbon_spent_kg
    for day in _local_days(
        request, Interval(slots[0].interval.start_at, slots[-1].interval.end_at)
    ):
        overlap_s = np.array([slot.interval.overlap_s(day) for slot in slots])
        yield CarbonDay(day, g_per_j * overlap_s, 1000 * (cap_kg - spent_kg))
        spent_kg = 0.0


def _local_days(request: PlanRequest, horizon: Interval) -> Iterator[Interval]:
    zone = ZoneInfo(request.policy.timezone)
    date = horizon.start_at.astimezone(zone).date()
    while True:
        start_at, end_at = (
            datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(horizon.end_at.tzinfo)
            for day in (date, date + timedelta(days=1))
        )
        if start_at >= horizon.end_at:
            return
        yield Interval(start_at, end_at)
        date += timedelta(days=1)
