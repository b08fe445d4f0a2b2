"""Means over seeds with their 95 % confidence interval, and differences of paired runs."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; 1.96 above that errs by
#: 4 % at 31 and less further on.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Mean(NamedTuple):
    """A mean and half the width of its 95 % interval (None of a single value)."""

    mean: float
    half_width: float | None
    seeds: int


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean and interval by Student's t; None without values.

    Seeds are taken as independent draws of load, dies and noise; the plant's own error is not in
    the interval.
    """
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Mean(values[0], None, 1)
    t = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    return Mean(fmean(values), t * stdev(values) / math.sqrt(count), count)


def paired(a: Sequence[float], b: Sequence[float]) -> Mean | None:
    """Mean of ``a - b``, pair by pair (the same seed gives the same load, dies and noise)."""
    return mean_of([x - y for x, y in zip(a, b, strict=True)])


def quantile(values: Sequence[float], q: float) -> float | None:
    """The value that a share ``q`` of ``values`` does not exceed (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(1, math.ceil(q * len(ordered) - 1e-9))
    return ordered[rank - 1]
