"""What a forecast looks at: only what was known at its origin, and the calendar of its target.

A row is a pair of ``known``, the index of the last step known at the origin, and ``lead``, the
steps from there to the target. Levels are in units of the series' own spread around its own
median of the last 14 days, so that a price crisis and a calm year read alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pals_grid.forecast.learned.beside import Beside
from pals_grid.forecast.learned.grid import at, bridged, running_mean, shifted
from pals_grid.forecast.learned.scale import CLIP, mean_of_days, spread_of

if TYPE_CHECKING:
    from pals_grid.forecast.issued import Announced
    from pals_grid.forecast.learned.grid import Floats, Grid, Ints

PRIOR = (0.6, 0.0, 0.2, 0.2)
"""What the linear part is drawn to: shares of the latest day, the mean of 7 and of 14 days."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Local hour, weekday (Monday 0) and place in the year, 0 to 1, of each target."""

    hour: Ints
    weekday: Ints
    year: Floats


@dataclass(frozen=True, slots=True)
class Rivals:
    """Seasonal-naive values of each target: the latest day's, week's, mean of the last 7 days."""

    day: Floats
    week: Floats
    days7: Floats


class Features:
    """Inputs over one series; its arrays are made once, rows are looked up in them.

    ``announced`` is another series that tells of its future, see ``Beside``.
    """

    def __init__(self, grid: Grid, zone: str = "UTC", announced: Announced | None = None) -> None:
        self.grid = grid
        self._beside = None if announced is None else Beside(grid, announced, zone)
        self._zone = ZoneInfo(zone)
        self._values = bridged(grid)
        day, hour = grid.day, grid.steps(1)
        profile = {days: mean_of_days(self._values, day, days) for days in (3, 7, 14)}
        self._profile = profile
        odd = self._values - shifted(profile[7], day)
        self._odd = [odd, *(running_mean(odd, hour * hours) for hours in (1, 3, 24))]
        self._means = {
            hours: running_mean(self._values, hour * hours) for hours in (1, 3, 24, 72, 168, 672)
        }
        self._slope = self._values - shifted(self._values, hour)
        self._high = _running_extreme(self._values, day, np.maximum)
        self._low = _running_extreme(self._values, day, np.minimum)
        self._median, self._spread = spread_of(self._values, self._means[168], day)

    @property
    def is_told(self) -> bool:
        """Whether there is an announced series beside."""
        return self._beside is not None

    def scale(self, known: Ints) -> tuple[Floats, Floats]:
        """Median and spread that the rows' levels are in units of."""
        return at(self._median, known), at(self._spread, known)

    def targets(self, known: Ints, lead: Ints) -> Floats:
        """The values that came, NaN where none did; never bridged."""
        return at(self.grid.values, known + lead)

    def rivals(self, known: Ints, lead: Ints) -> Rivals:
        """Seasonal-naive forecasts, from what was known at the same origin."""
        recent = self._day_index(known, lead)
        week = 7 * self.grid.day
        weeks = -(-lead // week)
        return Rivals(
            day=at(self._values, recent),
            week=at(self._values, known + lead - weeks * week),
            days7=at(self._profile[7], recent),
        )

    def calendar(self, known: Ints, lead: Ints) -> Calendar:
        """Local calendar of the targets."""
        starts = self.grid.start_s + (known + lead) * self.grid.step_s
        hours, place = np.unique(starts // 3600, return_inverse=True)
        local = [datetime.fromtimestamp(int(h) * 3600, UTC).astimezone(self._zone) for h in hours]
        hour = np.array([t.hour for t in local], dtype=np.int64)
        weekday = np.array([t.weekday() for t in local], dtype=np.int64)
        year = np.array([(t.timetuple().tm_yday - 1) / 365.25 for t in local])
        return Calendar(hour[place], weekday[place], year[place])

    def linear(self, known: Ints, lead: Ints, calendar: Calendar) -> Floats:
        """Rows for the linear part: levels, departures from the usual day, weekday."""
        recent = self._day_index(known, lead)
        week = 7 * self.grid.day
        target = known + lead
        last_week = target - -(-lead // week) * week
        levels = [
            at(self._values, recent),
            *(at(profile, recent) for profile in self._profile.values()),
            at(self._values, last_week),
            at(self._values, last_week - week),
            *(at(self._means[hours], known) for hours in (24, 72, 168, 672)),
        ]
        odd = [at(values, known) for values in self._odd]
        days = np.eye(7)[calendar.weekday]
        columns = [*self._levels(levels, known), *self._departures(odd, known), days]
        rows = np.column_stack([*columns, *self._announced(known, lead)])
        return np.nan_to_num(rows, nan=0.0)

    def boosted(self, known: Ints, lead: Ints, calendar: Calendar, base: Floats) -> Floats:
        """Rows for the trees: what may correct ``base``, the linear part's own forecast."""
        recent, hour = self._day_index(known, lead), self.grid.steps(1)
        near = [recent + step * hour for step in (0, -1, -2, -3, 1, 2, 3)]
        levels = [
            *(np.where(i <= known, at(self._values, i), np.nan) for i in near),
            *(at(self._values, recent - days * self.grid.day) for days in range(1, 7)),
            *(at(self._values, known - step * hour) for step in (0, 1, 2, 3, 6, 12)),
            *(at(mean, known) for mean in self._means.values()),
            *(at(profile, recent) for profile in self._profile.values()),
            at(self._high, known),
            at(self._low, known),
        ]
        odd = [at(values, known) for values in (*self._odd, self._slope)]
        turn = 2 * np.pi * calendar.year
        others = [
            base,
            calendar.hour.astype(float),
            calendar.weekday.astype(float),
            (calendar.weekday >= 5).astype(float),
            np.sin(turn),
            np.cos(turn),
            lead * self.grid.step_s / 3600,
        ]
        compared = [level - base for level in self._levels(levels, known)]
        columns = [*compared, *self._departures(odd, known), *others]
        return np.column_stack([*columns, *self._announced(known, lead)])

    def _announced(self, known: Ints, lead: Ints) -> list[Floats]:
        return [] if self._beside is None else [self._beside.rows(known, lead)]

    def _day_index(self, known: Ints, lead: Ints) -> Ints:
        """The latest step of the target's time of day that was known."""
        days = -(-lead // self.grid.day)
        return known + lead - days * self.grid.day

    def _levels(self, levels: list[Floats], known: Ints) -> list[Floats]:
        median, spread = self.scale(known)
        return [np.clip((level - median) / spread, -CLIP, CLIP) for level in levels]

    def _departures(self, odd: list[Floats], known: Ints) -> list[Floats]:
        _, spread = self.scale(known)
        return [np.clip(values / spread, -CLIP, CLIP) for values in odd]


def _running_extreme(values: Floats, window: int, worst: np.ufunc) -> Floats:
    empty = -np.inf if worst is np.maximum else np.inf
    padded = np.concatenate([np.full(window - 1, empty), np.where(np.isnan(values), empty, values)])
    found = worst.reduce(sliding_window_view(padded, window), axis=1)
    return np.where(np.isfinite(found), found, np.nan)
