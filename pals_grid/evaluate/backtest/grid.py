"""The backtest's slots, by number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.core.intervals import Interval

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Grid:
    """``count`` slots of ``slot_s`` from ``start_at`` on, which lies on the grid of the epoch."""

    start_at: datetime
    slot_s: float
    count: int

    @property
    def start_s(self) -> float:
        """Seconds since the epoch."""
        return self.start_at.timestamp()

    @property
    def per_day(self) -> int:
        """Slots of a day."""
        return round(86_400 / self.slot_s)

    @property
    def per_hour(self) -> float:
        """Slots of an hour."""
        return 3600 / self.slot_s

    @cached_property
    def edges(self) -> list[datetime]:
        """Starts of all slots, and the end of the last."""
        step = timedelta(seconds=self.slot_s)
        return [self.start_at + step * i for i in range(self.count + 1)]

    @cached_property
    def intervals(self) -> list[Interval]:
        """All slots."""
        return [Interval(a, b) for a, b in zip(self.edges, self.edges[1:], strict=False)]

    def at(self, instant: datetime) -> int:
        """Number of the slot that ``instant`` lies in; below 0 or from ``count`` on outside."""
        return int((instant.timestamp() - self.start_s) // self.slot_s)

    def local_midnight(self, slot: int, timezone: str) -> int:
        """First slot that begins on the local day on which ``slot`` begins; 0 before the grid."""
        at = self.edges[slot].astimezone(ZoneInfo(timezone))
        midnight = datetime.combine(at.date(), time(), at.tzinfo).astimezone(UTC)
        return max(0, math.ceil((midnight.timestamp() - self.start_s) / self.slot_s))

    def weekend(self, timezone: str) -> npt.NDArray[np.bool_]:
        """Slots that begin on a Saturday or Sunday, local time."""
        zone = ZoneInfo(timezone)
        days = [at.astimezone(zone).weekday() >= 5 for at in self.edges[:-1]]
        return np.array(days)


def grid_of(start_at: datetime, end_at: datetime, slot_s: float) -> Grid:
    """Slots that cover ``[start_at, end_at)``."""
    first = int(start_at.timestamp() // slot_s)
    last = -int(-end_at.timestamp() // slot_s)
    return Grid(datetime.fromtimestamp(first * slot_s, UTC), slot_s, last - first)
