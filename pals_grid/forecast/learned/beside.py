"""Another series beside the one that is forecast, known before its time: day-ahead prices.

A day-ahead market clears on tomorrow's wind, sun and demand. So its prices tell of tomorrow's
carbon what no history of carbon can, once they are published, and only then.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.forecast.learned.grid import DAY_S, at, running_mean, to_grid
from pals_grid.forecast.learned.scale import CLIP, mean_of_days, spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.forecast.issued import Announced
    from pals_grid.forecast.learned.grid import Floats, Grid, Ints

LONGEST_AHEAD_S = 4 * DAY_S


class Beside:
    """Inputs over an announced series, on the steps of the series that is forecast."""

    def __init__(self, grid: Grid, announced: Announced, zone: str) -> None:
        """Take what was ever announced; ``zone`` tells its days."""
        self._day = grid.day
        count = len(grid.values) + LONGEST_AHEAD_S // grid.step_s
        starts_s = grid.start_s + np.arange(count) * grid.step_s
        self._values = _on_steps(grid, announced, announced.values, starts_s)
        known_s = _on_steps(grid, announced, announced.known_s, starts_s)
        days = _local_days(starts_s, zone)
        self._mean = _by_day(self._values, days)
        # Known at an origin that is this step's start, or later; never for what nobody announced.
        self._known = np.where(np.isfinite(known_s), (known_s - grid.start_s) / grid.step_s, np.inf)
        self._mean_known = _latest_by_day(self._known, days)
        self._usual = mean_of_days(self._values, grid.day, 7)
        week_mean = running_mean(self._values, 7 * grid.day)
        self._median, self._spread = spread_of(self._values, week_mean, grid.day)

    def rows(self, known: Ints, lead: Ints) -> Floats:
        """Rows of 4, in units of the announced series' own spread; NaN where not yet known.

        The level of the target's step; how far it is from its usual one, and from that of the
        latest day known; how far its day's mean is from that day's.
        """
        target = known + lead
        recent = target - -(-lead // self._day) * self._day
        is_known = at(self._known, target) <= known + 1
        is_mean_known = at(self._mean_known, target) <= known + 1
        value, spread = at(self._values, target), at(self._spread, known)
        columns = (
            np.where(is_known, value - at(self._median, known), np.nan),
            np.where(is_known, value - at(self._usual, target - self._day), np.nan),
            np.where(is_known, value - at(self._values, recent), np.nan),
            np.where(is_mean_known, at(self._mean, target) - at(self._mean, recent), np.nan),
        )
        return np.column_stack([np.clip(column / spread, -CLIP, CLIP) for column in columns])


def _on_steps(grid: Grid, announced: Announced, values: Sequence[float], starts_s: Ints) -> Floats:
    """Means over the steps that begin at ``starts_s``; longer intervals fill several."""
    if not len(values):
        return np.full(len(starts_s), np.nan)
    own = to_grid(announced.starts_s, announced.ends_s, values, min_step_s=grid.step_s)
    return at(own.values, (starts_s - own.start_s) // own.step_s)


def _local_days(starts_s: Ints, zone: str) -> Ints:
    """Number of the local day of each step, from 0."""
    hours, place = np.unique(starts_s // 3600, return_inverse=True)
    local = ZoneInfo(zone)
    days = [datetime.fromtimestamp(int(h) * 3600, UTC).astimezone(local).toordinal() for h in hours]
    found: Ints = np.array(days, dtype=np.int64)[place] - days[0]
    return found


def _by_day(values: Floats, days: Ints) -> Floats:
    """Mean of what is known of each step's day."""
    known = np.isfinite(values)
    count = np.bincount(days, known)
    total = np.bincount(days, np.where(known, values, 0.0))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean[days]


def _latest_by_day(known: Floats, days: Ints) -> Floats:
    """When the last of each step's day was known; what never was is left out."""
    latest = np.full(int(days[-1]) + 1, -np.inf)
    finite = np.isfinite(known)
    np.maximum.at(latest, days[finite], known[finite])
    return np.where(np.isfinite(latest), latest, np.inf)[days]
