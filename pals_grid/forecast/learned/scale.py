"""What is usual for a series, and in which units its departures from that are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pals_grid.forecast.learned.grid import shifted

if TYPE_CHECKING:
    from pals_grid.forecast.learned.grid import Floats

SPREAD_DAYS = 14
CLIP = 12.0
"""Inputs further than this many spreads from the median count as this far."""


def mean_of_days(values: Floats, day: int, days: int) -> Floats:
    """Mean of what is known of each step and of the same time on the days before it."""
    stack = [shifted(values, day * back) for back in range(days)]
    total, count = np.zeros(len(values)), np.zeros(len(values))
    for one in stack:
        known = np.isfinite(one)
        total += np.where(known, one, 0.0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def spread_of(values: Floats, week_mean: Floats, day: int) -> tuple[Floats, Floats]:
    """Median and median distance from the week's mean over 14 days, renewed once a day."""
    count = len(values)
    median, spread = np.full(count, np.nan), np.full(count, np.nan)
    away = np.abs(values - week_mean)
    for first in range(0, count, day):
        begin = max(0, first - SPREAD_DAYS * day)
        seen, seen_away = values[begin:first], away[begin:first]
        seen, seen_away = seen[np.isfinite(seen)], seen_away[np.isfinite(seen_away)]
        if len(seen):
            middle = float(np.median(seen))
            least = 1e-3 * max(abs(middle), float(np.abs(seen).max()), 1e-3)
            median[first : first + day] = middle
            spread[first : first + day] = max(float(np.median(seen_away)), least)
    return median, spread
