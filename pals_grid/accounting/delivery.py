"""What a demand-response event delivered against what was ordered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.intervals import Interval

TOLERANCE_RATIO = 0.02
"""A reading counts as inside the limit up to 2 % above it: a node's meter model and the time
that a limit takes to act are no better than that."""


@dataclass(frozen=True, slots=True)
class SitePowerReading:
    """Mean power of the site over one interval, at its boundary."""

    interval: Interval
    power_w: float


@dataclass(frozen=True, slots=True)
class DeliveryMeasure:
    """Delivered against ordered, over the readings that fall inside the event.

    ``within_limit_ratio`` is the share of covered time inside the limit and its tolerance;
    ``curtailed_j`` the reference's energy minus the actual one over that time, never negative.
    Both ratio and mean are None where nothing was measured.
    """

    mean_power_w: float | None
    covered_s: float
    within_limit_ratio: float | None
    curtailed_j: float


def measure_delivery(
    event: DemandResponseEvent,
    readings: Iterable[SitePowerReading],
    tolerance_ratio: float = TOLERANCE_RATIO,
) -> DeliveryMeasure:
    """Measure ``event`` from non-overlapping readings; ramps before and after do not count."""
    bound_w = event.ordered_w * (1 + tolerance_ratio)
    inside = [
        (event.order.event_interval.overlap_s(reading.interval), reading.power_w)
        for reading in readings
    ]
    covered_s = sum(seconds for seconds, _ in inside)
    if covered_s <= 0:
        return DeliveryMeasure(None, 0.0, None, 0.0)
    energy_j = sum(seconds * power_w for seconds, power_w in inside)
    held_s = sum(seconds for seconds, power_w in inside if power_w <= bound_w)
    return DeliveryMeasure(
        mean_power_w=energy_j / covered_s,
        covered_s=covered_s,
        within_limit_ratio=held_s / covered_s,
        curtailed_j=max(0.0, event.reference_w * covered_s - energy_j),
    )
