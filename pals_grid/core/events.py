"""Demand-response events: what the grid asks of a site, over which interval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, require_utc

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.fleet import Origin

RAMP_STEPS = 6


class EventStatus(StrEnum):
    """Where an event stands; ``far``, ``near`` and ``active`` follow from the clock."""

    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class EventRequest:
    """What a user orders: a limit in watts, or a reduction as a ratio of the reference power.

    ``notice_at`` is when the event was announced; ``ramp_s`` is how long before ``start_at``
    the descent begins and how long after ``end_at`` the recovery takes.
    """

    name: str
    start_at: datetime
    end_at: datetime
    limit_w: float | None = None
    reduction_ratio: float | None = None
    notice_at: datetime | None = None
    ramp_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidValue("name", self.name, "must not be empty")
        Interval(self.start_at, self.end_at)
        if (self.limit_w is None) == (self.reduction_ratio is None):
            raise InvalidValue(
                "limit_w, reduction_ratio",
                (self.limit_w, self.reduction_ratio),
                "exactly one of the two must be given",
            )
        if self.limit_w is not None and not 0 <= self.limit_w <= 1e10:
            raise InvalidValue("limit_w", self.limit_w, "must be from 0 to 1e10")
        if self.reduction_ratio is not None and not 0 < self.reduction_ratio <= 1:
            raise InvalidValue("reduction_ratio", self.reduction_ratio, "must be in (0, 1]")
        if not 0 <= self.ramp_s <= 86_400:
            raise InvalidValue("ramp_s", self.ramp_s, "must be from 0 to 86400")
        if self.notice_at is not None and require_utc("notice_at", self.notice_at) > self.start_at:
            raise InvalidValue(
                "notice_at", self.notice_at.isoformat(), "must not be after start_at"
            )

    @property
    def event_interval(self) -> Interval:
        """The interval over which the order holds in full."""
        return Interval(self.start_at, self.end_at)


@dataclass(frozen=True, slots=True)
class DemandResponseEvent:
    """A stored event.

    ``reference_w`` was frozen when it was created: the site's power that a reduction counts
    from, measured before the event or, without a measurement, planned.
    """

    id: int
    site_id: int
    version: int
    status: EventStatus
    order: EventRequest
    reference_w: float
    reference_origin: Origin
    created_at: datetime
    cancelled_at: datetime | None = None

    @property
    def ordered_w(self) -> float:
        """The site's limit during the event, in watts."""
        if self.order.limit_w is not None:
            return self.order.limit_w
        assert self.order.reduction_ratio is not None
        return self.reference_w * (1 - self.order.reduction_ratio)

    def limits(self, uncapped_w: float) -> tuple[tuple[Interval, float], ...]:
        """Limits over time: stairs down from ``uncapped_w`` before, the order, stairs up after.

        Each stair is at its lower value for its whole length, so the limit is never above the
        straight ramp. Empty for a cancelled event.
        """
        if self.status is EventStatus.CANCELLED:
            return ()
        held = (self.order.event_interval, min(self.ordered_w, uncapped_w))
        if self.order.ramp_s <= 0:
            return (held,)
        step = timedelta(seconds=self.order.ramp_s / RAMP_STEPS)
        drop_w = uncapped_w - held[1]
        before = [
            (
                Interval(self.order.start_at - step * k, self.order.start_at - step * (k - 1)),
                held[1] + drop_w * (k - 1) / RAMP_STEPS,
            )
            for k in range(RAMP_STEPS, 0, -1)
        ]
        after = [
            (
                Interval(self.order.end_at + step * k, self.order.end_at + step * (k + 1)),
                held[1] + drop_w * k / RAMP_STEPS,
            )
            for k in range(RAMP_STEPS)
        ]
        return (*before, held, *after)
