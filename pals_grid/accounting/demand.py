"""The month's highest demand, and what a tariff charges for it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.time_of_use import clock_floor
from pals_grid.core.units import J_PER_MWH, W_PER_KW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, tzinfo

    from pals_grid.accounting.delivery import SitePowerReading
    from pals_grid.core.intervals import Interval
    from pals_grid.core.tariff import CoincidentPeak, DemandCharge, Tariff

LEAST_COVERED_RATIO = 0.5
"""A window of which less was measured has no mean that a bill could rest on."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A month's highest mean power over one window. ``covered_ratio`` is of the month so far.

    ``power_w`` and ``window`` are None where nothing was measured.
    """

    power_w: float | None
    start_at: datetime | None
    covered_ratio: float


@dataclass(frozen=True, slots=True)
class DemandCost:
    """One demand charge over one month, in the site's currency: never a part of energy's cost.

    ``billed_w`` is the peak, or what a ratchet holds it up to.
    """

    name: str
    price_per_kw: float
    peak: Peak
    billed_w: float | None
    cost: float | None


def find_peak(
    tariff: Tariff,
    charge: DemandCharge,
    month: Interval,
    readings: Iterable[SitePowerReading],
    zone: tzinfo,
) -> Peak:
    """Find the highest mean power over windows on the site's clock that begin in ``month``.

    ``readings`` are means over intervals on the clock's quarters or finer, apart. A window's
    mean is over the time that they cover; one covered by less than half is left out.
    """
    step = timedelta(seconds=charge.window_s)
    energy_j: dict[datetime, float] = defaultdict(float)
    covered_s: dict[datetime, float] = defaultdict(float)
    for item in readings:
        if month.contains(item.interval.start_at):
            window_at = clock_floor(item.interval.start_at, step, zone)
            covered_s[window_at] += item.interval.duration_s
            energy_j[window_at] += item.power_w * item.interval.duration_s
    name = charge.in_period
    spans = [month] if name is None else tariff.spans(name, month, zone)
    whole_s = sum(covered_s.values())
    means = [
        (energy_j[at] / covered_s[at], at)
        for at in sorted(covered_s)
        if covered_s[at] >= LEAST_COVERED_RATIO * charge.window_s
        and any(span.contains(at) for span in spans)
    ]
    power_w, at = max(means, key=lambda mean: mean[0], default=(None, None))
    return Peak(power_w, at, min(1.0, whole_s / month.duration_s))


def demand_cost(charge: DemandCharge, peak: Peak, earlier_w: Sequence[float]) -> DemandCost:
    """Cost of a month's peak; ``earlier_w`` are the peaks of the ratchet's months that are known.

    None without a measured peak, even where the ratchet would bill one: nothing is made up.
    """
    if peak.power_w is None:
        return DemandCost(charge.name, charge.price_per_kw, peak, None, None)
    held_up_w = charge.ratchet_ratio * max(earlier_w, default=0.0)
    billed_w = max(peak.power_w, held_up_w)
    cost = billed_w / W_PER_KW * charge.price_per_kw
    return DemandCost(charge.name, charge.price_per_kw, peak, billed_w, cost)


def coincident_cost(peak: CoincidentPeak, readings: Iterable[SitePowerReading]) -> float:
    """Expected charge of what was drawn in the hours at risk, in the site's currency."""
    return sum(
        item.power_w * item.interval.duration_s / J_PER_MWH * peak.risk_per_mwh(item.interval)
        for item in readings
    )
