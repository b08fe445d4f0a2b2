"""A series' model: a shrunk linear part per lead and hour, corrected by LightGBM quantiles."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.forecast.learned.features import PRIOR
from pals_grid.forecast.learned.linear import Linear, fit_linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pals_grid.forecast.learned.features import Calendar, Features
    from pals_grid.forecast.learned.grid import Floats, Ints

EDGES_H = (
    0.0,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
    3.0,
    5.0,
    8.0,
    12.0,
    16.0,
    20.0,
    23.0,
    24.0,
    32.0,
    40.0,
    56.0,
)
"""Leads between two edges share a linear part; the last edge is the furthest forecast."""
BAND_EDGES_H = (0.0, 3.0, 12.0, 24.0, 56.0)
"""Leads between two edges share their trees and their calibration."""
LOOKBACK_DAYS = 1461
MIN_FIT_DAYS = 28
MOST_WEIGHT = 3.0
"""A wild time counts at most this many times as much as a usual one."""
QUANTILES = (0.1, 0.5, 0.9)

# Most of the work goes where forecasts are asked most: from 12 to 24 h ahead.
_PAIRS_A_BUCKET = (12_000, 12_000, 24_000, 12_000)
_ROWS_A_BAND = (6_000, 6_000, 20_000, 6_000)
_MIN_ROWS_AN_HOUR = 60
_SHRINK_ROWS = 200.0
_ROUNDS = {0.1: 40, 0.5: 90, 0.9: 40}
_PARAMETERS: Mapping[str, object] = {
    "objective": "quantile",
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
    "seed": 7,
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 150,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.6,
    "bagging_freq": 1,
    "lambda_l2": 20.0,
    "max_bin": 63,
}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """P10, P50 and P90 of each row, which never cross, in the series' unit."""

    p10: Floats
    p50: Floats
    p90: Floats


@dataclass(frozen=True, slots=True)
class _Rows:
    """Training pairs of one bucket, after its linear part."""

    inputs: Floats
    left: Floats
    weights: Floats


class Model:
    """A fitted model; make one with ``fit_model`` or ``decode_model``.

    ``is_told``: it was fitted with an announced series beside, and wants one.
    """

    def __init__(
        self,
        buckets: Mapping[int, Mapping[int, Linear]],
        trees: Mapping[tuple[int, float], Any],
        *,
        is_told: bool = False,
    ) -> None:
        self._buckets = buckets
        self._trees = trees
        self.is_told = is_told

    def predict(self, features: Features, known: Ints, lead: Ints) -> Quantiles:
        """Forecast each pair of the last known step and the steps ahead.

        Raises:
            InvalidValue: for a lead of none or of more than 56 h.
        """
        lead_h = lead * features.grid.step_s / 3600
        if len(lead) and (lead.min() < 1 or lead_h.max() > EDGES_H[-1]):
            raise InvalidValue("lead", float(lead_h.max()), f"must be up to {EDGES_H[-1]:g} h")
        calendar = features.calendar(known, lead)
        base = self._base(features, known, lead, calendar)
        inputs = features.boosted(known, lead, calendar, base)
        median, spread = features.scale(known)
        found = {q: np.zeros(len(known)) for q in QUANTILES}
        bands = band_of(lead_h)
        for band in np.unique(bands):
            mine = bands == band
            for quantile in QUANTILES:
                tree = self._trees[int(band), quantile]
                found[quantile][mine] = tree.predict(inputs[mine], num_threads=1)
        low, middle, high = ((base + found[q]) * spread + median for q in QUANTILES)
        # No two quantiles meet: a width of zero could not be calibrated.
        least = 1e-3 * spread
        return Quantiles(np.minimum(low, middle - least), middle, np.maximum(high, middle + least))

    def _base(self, features: Features, known: Ints, lead: Ints, calendar: Calendar) -> Floats:
        rows = features.linear(known, lead, calendar)
        base = np.zeros(len(known))
        bucket = self._nearest_bucket(bucket_of(lead * features.grid.step_s / 3600))
        for number in np.unique(bucket):
            hours = self._buckets[int(number)]
            for hour in np.unique(calendar.hour[bucket == number]):
                mine = (bucket == number) & (calendar.hour == hour)
                base[mine] = hours[int(hour)].predict(rows[mine])
        return base

    def _nearest_bucket(self, bucket: Ints) -> Ints:
        """The bucket, or the next longer one that the step's length let be fitted."""
        fitted = np.array(sorted(self._buckets))
        place = np.minimum(np.searchsorted(fitted, bucket), len(fitted) - 1)
        nearest: Ints = fitted[place]
        return nearest

    def encode(self) -> bytes:
        """Give the model as bytes for ``decode_model``."""
        document = {
            "buckets": {
                bucket: {hour: [one.offset, one.slopes.tolist()] for hour, one in hours.items()}
                for bucket, hours in self._buckets.items()
            },
            "trees": [
                [band, quantile, tree.model_to_string()]
                for (band, quantile), tree in self._trees.items()
            ],
            "is_told": self.is_told,
        }
        return gzip.compress(json.dumps(document).encode(), mtime=0)


def decode_model(packed: bytes) -> Model:
    """Read what ``Model.encode`` wrote.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
    """
    lightgbm = import_lightgbm()
    document = json.loads(gzip.decompress(packed))
    buckets = {
        int(bucket): {
            int(hour): Linear(offset, np.array(slopes)) for hour, (offset, slopes) in hours.items()
        }
        for bucket, hours in document["buckets"].items()
    }
    trees = {
        (band, quantile): lightgbm.Booster(model_str=text)
        for band, quantile, text in document["trees"]
    }
    return Model(buckets, trees, is_told=document.get("is_told", False))


def fit_model(features: Features, known_count: int, *, lookback_days: int = LOOKBACK_DAYS) -> Model:
    """Fit on the first ``known_count`` steps, at most 4 years of them; deterministic.

    Targets are weighted by the series' spread at their origin, so that the error is nearly the one
    in the series' unit; a storm of prices does not drown all else.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
        InvalidValue: with fewer than 28 days of history.
    """
    days = known_count / features.grid.day
    if days < MIN_FIT_DAYS:
        raise InvalidValue("history", f"{days:.1f} days", f"must be {MIN_FIT_DAYS} days or more")
    first = max(7 * features.grid.day, known_count - lookback_days * features.grid.day)
    buckets: dict[int, dict[int, Linear]] = {}
    bands: dict[int, list[_Rows]] = {}
    for bucket, known, lead in _training_pairs(features, first, known_count):
        hours, rows = _fit_bucket(features, known, lead)
        buckets[bucket] = hours
        bands.setdefault(int(band_of(np.array([EDGES_H[bucket + 1]]))[0]), []).append(rows)
    trees = {
        (band, quantile): tree
        for band, rows in bands.items()
        for quantile, tree in _fit_trees(rows, _ROWS_A_BAND[band]).items()
    }
    return Model(buckets, trees, is_told=features.is_told)


def bucket_of(lead_h: Floats) -> Ints:
    """Number of the linear part of each lead."""
    return np.clip(np.searchsorted(EDGES_H, lead_h - 1e-9) - 1, 0, len(EDGES_H) - 2)


def band_of(lead_h: Floats) -> Ints:
    """Number of the trees of each lead."""
    return np.clip(np.searchsorted(BAND_EDGES_H, lead_h - 1e-9) - 1, 0, len(BAND_EDGES_H) - 2)


def import_lightgbm() -> Any:  # noqa: ANN401 - the package has no types
    """Import LightGBM.

    Raises:
        ConfigurationError: when it cannot be imported.
    """
    try:
        import lightgbm  # noqa: PLC0415 - a heavy package, and an optional one
    except (ImportError, OSError) as error:
        text = f"LightGBM: install pals-grid[train] and the system's libgomp1 ({error})"
        raise ConfigurationError(text) from error
    return lightgbm


def _training_pairs(features: Features, first: int, count: int) -> Iterator[tuple[int, Ints, Ints]]:
    """For each bucket of leads, targets that are known, each with a lead drawn from the bucket."""
    finite = np.isfinite(features.grid.values[:count])
    targets = first + np.flatnonzero(finite[first:])
    hour = 3600 / features.grid.step_s
    for bucket, (low_h, high_h) in enumerate(pairwise(EDGES_H)):
        shortest, longest = int(np.floor(low_h * hour + 1e-9)) + 1, int(high_h * hour + 1e-9)
        if longest < shortest:
            continue
        random = np.random.default_rng(bucket)
        at_most = _PAIRS_A_BUCKET[int(band_of(np.array([high_h]))[0])]
        chosen = targets
        if len(chosen) > at_most:
            chosen = np.sort(random.choice(chosen, at_most, replace=False))
        lead = random.integers(shortest, longest + 1, len(chosen))
        known = chosen - lead
        usable = known >= 0
        usable[usable] &= np.isfinite(features.scale(known[usable])[0])
        yield bucket, known[usable], lead[usable]


def _fit_bucket(features: Features, known: Ints, lead: Ints) -> tuple[dict[int, Linear], _Rows]:
    calendar = features.calendar(known, lead)
    rows = features.linear(known, lead, calendar)
    median, spread = features.scale(known)
    targets = np.clip((features.targets(known, lead) - median) / spread, -30.0, 30.0)
    weights = np.minimum(spread, MOST_WEIGHT * float(np.median(spread)))
    weights = weights / float(weights.mean())
    # Minutes ahead the last value tells nearly all, and nothing else is to be drawn to.
    is_near = bool(lead.max() * features.grid.step_s <= BAND_EDGES_H[1] * 3600)
    hours: dict[int, Linear] = {}
    prior = np.zeros(rows.shape[1])
    prior[: len(PRIOR)] = PRIOR
    base = np.zeros(len(known))
    for hour in range(24):
        away = np.abs(calendar.hour - hour)
        near = np.minimum(away, 24 - away) <= 1
        mine = near if near.sum() >= _MIN_ROWS_AN_HOUR else np.ones(len(known), bool)
        shrink = 0.01 if is_near else 0.03 + _SHRINK_ROWS / mine.sum()
        hours[hour] = fit_linear(rows[mine], targets[mine], weights[mine], prior, shrink)
        exact = calendar.hour == hour
        base[exact] = hours[hour].predict(rows[exact])
    inputs = features.boosted(known, lead, calendar, base)
    return hours, _Rows(inputs, targets - base, weights)


def _fit_trees(rows: list[_Rows], at_most: int) -> dict[float, Any]:
    """One LightGBM booster a quantile, over the same rows."""
    lightgbm = import_lightgbm()
    inputs = np.vstack([one.inputs for one in rows])
    left = np.concatenate([one.left for one in rows])
    weights = np.concatenate([one.weights for one in rows])
    if len(left) > at_most:
        chosen = np.sort(np.random.default_rng(0).choice(len(left), at_most, replace=False))
        inputs, left, weights = inputs[chosen], left[chosen], weights[chosen]
    data = lightgbm.Dataset(inputs, left, weight=weights, params=dict(_PARAMETERS))
    return {
        quantile: lightgbm.train({**_PARAMETERS, "alpha": quantile}, data, _ROUNDS[quantile])
        for quantile in QUANTILES
    }
