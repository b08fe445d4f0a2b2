"""How much of a median is the model's: the rest is the seasonal-naive rival's.

Two forecasts that err differently err less together. Of five shares the one is sought that had the
least error on forecasts whose values have come. That is little evidence, so the model gives way
half as far; and wholly where the rival alone was better than such a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.forecast.learned.model import EDGES_H, Quantiles, bucket_of
from pals_grid.forecast.scoring import LEAD_EDGES_H, MIN_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.forecast.learned.grid import Floats

RIVALS = ("day", "week")
LOAD_RIVALS = ("day", "week", "days7")
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True, slots=True)
class Shares:
    """By bucket of leads, the model's share of the median; all of it where none is given."""

    by_bucket: Mapping[int, float]

    def apply(self, found: Quantiles, rival: Floats, lead_h: Floats) -> Quantiles:
        """Move the quantiles towards the rival, where that has a value."""
        given = np.array([self.by_bucket.get(one, 1.0) for one in range(len(EDGES_H) - 1)])
        share = given[bucket_of(lead_h)]
        moved = np.where(np.isfinite(rival), (1 - share) * (rival - found.p50), 0.0)
        return Quantiles(found.p10 + moved, found.p50 + moved, found.p90 + moved)


def fit_shares(p50: Floats, values: Floats, rival: Floats, lead_h: Floats) -> Shares:
    """Measure on forecasts whose values have come, in the ranges of leads of the record.

    With fewer than 100 values in a range the model stands alone there.
    """
    known = np.isfinite(values) & np.isfinite(rival)
    by_range = []
    for over_h, up_to_h in pairwise(LEAD_EDGES_H):
        mine = known & (lead_h > over_h) & (lead_h <= up_to_h)
        enough = mine.sum() >= MIN_VALUES
        by_range.append(_share(values[mine] - rival[mine], (p50 - rival)[mine]) if enough else 1.0)
    ends = np.minimum(EDGES_H[1:], LEAD_EDGES_H[-1])
    ranges = np.searchsorted(LEAD_EDGES_H, ends) - 1
    return Shares({bucket: by_range[one] for bucket, one in enumerate(ranges.tolist())})


def _share(values: Floats, p50: Floats) -> float:
    """The model's share; both are counted from the rival's value."""

    def error(share: float) -> float:
        return float(np.abs(values - share * p50).sum())

    share = (1 + min(SHARES, key=error)) / 2
    return share if error(share) < error(0.0) else 0.0
