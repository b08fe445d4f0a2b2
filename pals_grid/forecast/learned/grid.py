"""A series as an array on an even grid of time, with its holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

DAY_S = 86_400
STEPS_S = (300, 600, 900, 1800, 3600)
FILL_S = 6 * 3600
"""A hole of up to 6 h is bridged with its last value for the inputs, never for a target."""


@dataclass(frozen=True, slots=True)
class Grid:
    """``values[i]`` holds over ``[start_s + i * step_s, + step_s)``, NaN where nobody knows one.

    ``start_s`` is in seconds since the epoch; ``step_s`` divides an hour.
    """

    start_s: int
    step_s: int
    values: Floats

    @property
    def day(self) -> int:
        """Steps in 24 h."""
        return DAY_S // self.step_s

    def steps(self, hours: float) -> int:
        """Whole steps in ``hours``, at least one."""
        return max(1, round(hours * 3600 / self.step_s))

    def until(self, count: int) -> Grid:
        """Return the first ``count`` steps alone."""
        return Grid(self.start_s, self.step_s, self.values[:count])


def to_grid(
    starts_s: Sequence[float],
    ends_s: Sequence[float],
    values: Sequence[float],
    *,
    min_step_s: int = STEPS_S[0],
) -> Grid:
    """Put intervals of any lengths on one grid, each step with the time-weighted mean in it.

    The step is the median length of the intervals, rounded up to 5, 10, 15, 30 or 60 minutes, and
    at least ``min_step_s``; longer intervals fill several steps. Seconds since the epoch.

    Raises:
        InvalidValue: without any value.
    """
    if not len(values):
        raise InvalidValue("values", 0, "must be at least one")
    begin, end = np.asarray(starts_s, float), np.asarray(ends_s, float)
    median_s = max(float(np.median(end - begin)), float(min_step_s))
    step_s = next((step for step in STEPS_S if step >= median_s - 1), STEPS_S[-1])
    start_s = int(begin.min() // step_s) * step_s
    count = int(np.ceil((end.max() - start_s) / step_s))
    # The last step is left out where the values end inside it.
    whole = max(1, int((end.max() - start_s) // step_s))
    weight, total = np.zeros(count), np.zeros(count)
    given = np.asarray(values, float)
    cursor = begin.copy()
    while (left := cursor < end - 1e-6).any():
        index = ((cursor[left] - start_s) // step_s).astype(np.int64)
        edge = np.minimum(start_s + (index + 1) * step_s, end[left])
        np.add.at(weight, index, edge - cursor[left])
        np.add.at(total, index, (edge - cursor[left]) * given[left])
        cursor[left] = edge
    known = weight >= 0.5 * step_s
    means = np.where(known, total / np.maximum(weight, 1e-9), np.nan)
    return Grid(start_s, step_s, means[:whole])


def bridged(grid: Grid) -> Floats:
    """The values with holes of up to 6 h filled by the value before."""
    index = np.where(np.isfinite(grid.values), np.arange(len(grid.values)), -1)
    last = np.maximum.accumulate(index)
    filled = grid.values[np.maximum(last, 0)]
    too_long = np.arange(len(grid.values)) - last > FILL_S // grid.step_s
    return np.where((last < 0) | too_long, np.nan, filled)


def running_mean(values: Floats, window: int) -> Floats:
    """Mean of what is known among the last ``window`` values; NaN where nothing is."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    ends = np.arange(len(values)) + 1
    begins = np.maximum(ends - window, 0)
    count = counts[ends] - counts[begins]
    mean = (sums[ends] - sums[begins]) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def shifted(values: Floats, steps: int) -> Floats:
    """The value of ``steps`` before, at each step."""
    moved = np.full(len(values), np.nan)
    if steps < len(values):
        moved[steps:] = values[: len(values) - steps]
    return moved


def at(values: Floats, index: Ints) -> Floats:
    """``values[index]``, NaN outside."""
    inside = (index >= 0) & (index < len(values))
    return np.where(inside, values[np.clip(index, 0, len(values) - 1)], np.nan)
