"""Widen or narrow P10 and P90 by how far off they were lately (conformal calibration).

Romano, Patterson, Candes: Conformalized Quantile Regression (NeurIPS 2019), with the distance in
units of the forecast's own half-width, each side for itself, over a moving window of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.forecast.learned.model import EDGES_H, Quantiles, band_of, bucket_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.forecast.learned.grid import Floats

SIDE = 0.9
"""Share of values that each side must hold: P10 above a tenth, P90 below a tenth."""
WINDOW_DAYS = 56
MIN_VALUES = 300
_LEAST, _MOST = 0.02, 20.0


@dataclass(frozen=True, slots=True)
class Widths:
    """By bucket of leads, what the half-widths below and above the median are multiplied with."""

    by_bucket: Mapping[int, tuple[float, float]]

    def apply(self, found: Quantiles, lead_h: Floats) -> Quantiles:
        """Calibrate; the median stays."""
        buckets = range(len(EDGES_H) - 1)
        factors = np.array([self.by_bucket.get(one, (1.0, 1.0)) for one in buckets])
        low, high = factors[bucket_of(lead_h)].T
        return Quantiles(
            found.p50 - low * (found.p50 - found.p10),
            found.p50,
            found.p50 + high * (found.p90 - found.p50),
        )


def fit_widths(found: Quantiles, values: Floats, lead_h: Floats) -> Widths:
    """Measure on forecasts whose values have come.

    A bucket of leads with fewer than 300 values is judged with those of its band; where they are
    fewer too, its widths stay as they are.
    """
    known = np.isfinite(values)
    buckets, bands = bucket_of(lead_h), band_of(lead_h)
    below = (found.p50 - values) / np.maximum(found.p50 - found.p10, 1e-12)
    above = (values - found.p50) / np.maximum(found.p90 - found.p50, 1e-12)
    by_bucket: dict[int, tuple[float, float]] = {}
    for bucket in range(len(EDGES_H) - 1):
        mine = known & (buckets == bucket)
        if mine.sum() < MIN_VALUES:
            mine = known & (bands == band_of(np.array([EDGES_H[bucket + 1]]))[0])
        if mine.sum() >= MIN_VALUES:
            low, high = np.quantile(below[mine], SIDE), np.quantile(above[mine], SIDE)
            by_bucket[bucket] = (
                float(np.clip(low, _LEAST, _MOST)),
                float(np.clip(high, _LEAST, _MOST)),
            )
    return Widths(by_bucket)
