"""Predictors of throughput and power, from the rows of a profile."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.train.engines import gpu_family, log_targets, with_common_mix
from pals_grid.powermodel.train.parts import FEW_PRIORS, Correction, Logs, Parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.train.engines import Floats

MAX_ROWS = 3000
"""Rows of one kind of GPU: the fit's time grows with the third power (1440 rows: 20 s)."""

_MIN_CV_ROWS = 30
_MIN_CV_LIMITS = 4
_SHARPNESS = 0.03


class Kind(StrEnum):
    """Kinds of predictor; each is the physics core with something on top."""

    PHYSICS = "physics"
    FOREST = "forest"
    BOOSTING = "boosting"
    ENSEMBLE = "ensemble"


class Predicted(NamedTuple):
    """Output tokens/s of the engine and the draw of all its GPUs in W."""

    tokens_per_s: float
    gpu_power_w: float


class _Weights(NamedTuple):
    speed: Mapping[Correction, float]
    draw: Mapping[Correction, float]


_SINGLE = {
    Kind.PHYSICS: Correction.SMOOTH,
    Kind.FOREST: Correction.FOREST,
    Kind.BOOSTING: Correction.BOOSTING,
}


class Predictor:
    """Fitted predictors of every kind asked for; see ``fit_predictor``."""

    def __init__(self, rows: Sequence[ProfileRow], kinds: Sequence[Kind], seed: int) -> None:
        if not rows:
            raise InvalidValue("rows", 0, "a predictor needs at least one row of a profile")
        if not kinds:
            raise InvalidValue("kinds", 0, "must name at least one kind of predictor")
        self._rows = with_common_mix(rows)
        self.kinds = tuple(kinds)
        wanted = _corrections(kinds)
        self._parts: dict[str, Parts] = {}
        self._weights: dict[str, _Weights] = {}
        for family in dict.fromkeys(gpu_family(row.gpu_model) for row in rows):
            mine = [row for row in self._rows if gpu_family(row.gpu_model) == family]
            if len(mine) > MAX_ROWS:
                raise InvalidValue(f"rows of {family}", len(mine), f"must be {MAX_ROWS} or fewer")
            self._parts[family] = Parts(mine, corrections=wanted, seed=seed)
            if Kind.ENSEMBLE in kinds:
                self._weights[family] = _choose_weights(mine, seed)

    def predict(self, rows: Sequence[ProfileRow], kind: Kind | None = None) -> list[Predicted]:
        """Throughput and power at the settings of ``rows``; their measured values are not read.

        ``kind`` is the first of those fitted where it is left out.

        Raises:
            InvalidValue: for a kind that was not fitted, or a GPU of which no row was known.
        """
        chosen = self.kinds[0] if kind is None else kind
        if chosen not in self.kinds:
            raise InvalidValue("kind", str(chosen), f"must be one of {', '.join(self.kinds)}")
        result: list[Predicted | None] = [None] * len(rows)
        like = with_common_mix(rows, self._rows)
        families = [gpu_family(row.gpu_model) for row in rows]
        for family in dict.fromkeys(families):
            if family not in self._parts:
                known = ", ".join(self._parts)
                raise InvalidValue("gpu_model", family, f"must be one with rows ({known})")
            mine = [i for i, name in enumerate(families) if name == family]
            logs = self._logs(family, [like[i] for i in mine], chosen)
            for i, speed, draw in zip(mine, np.exp(logs.speed), np.exp(logs.draw), strict=True):
                result[i] = Predicted(float(speed), float(draw) * rows[i].gpu_count)
        return [value for value in result if value is not None]

    def knows(self, row: ProfileRow) -> bool:
        """Whether the engine of ``row`` had rows of its own."""
        parts = self._parts.get(gpu_family(row.gpu_model))
        (like,) = with_common_mix([row], self._rows)
        return parts is not None and parts.knows(like)

    def weights(self) -> dict[str, dict[str, dict[str, float]]]:
        """What the ensemble adds of each correction, by kind of GPU and target."""
        return {
            family: {
                "throughput": {str(key): value for key, value in weights.speed.items()},
                "power": {str(key): value for key, value in weights.draw.items()},
            }
            for family, weights in self._weights.items()
        }

    def _logs(self, family: str, rows: Sequence[ProfileRow], kind: Kind) -> Logs:
        base, added = self._parts[family].predict(rows)
        single = _SINGLE.get(kind)
        if single is not None:
            return base.plus(added[single], 1.0, 1.0)
        weights = self._weights[family]
        for correction, logs in added.items():
            base = base.plus(
                logs, weights.speed.get(correction, 0.0), weights.draw.get(correction, 0.0)
            )
        return base


def fit_predictor(
    rows: Sequence[ProfileRow], *, kinds: Sequence[Kind] = (Kind.ENSEMBLE,), seed: int = 0
) -> Predictor:
    """Fit predictors of ``kinds`` on ``rows``; GPUs of different kinds are fitted apart.

    The ensemble's weights come from leaving out each limit of ``rows`` in turn, inside ``rows``
    alone. LightGBM is needed for every kind but ``physics``.

    Raises:
        InvalidValue: without rows, with too many, or for one that cannot be learned from.
        ConfigurationError: when LightGBM is needed and cannot be imported.
    """
    return Predictor(rows, kinds, seed)


def _corrections(kinds: Sequence[Kind]) -> tuple[Correction, ...]:
    if Kind.ENSEMBLE in kinds:
        return tuple(Correction)
    return tuple(_SINGLE[kind] for kind in kinds)


def _choose_weights(rows: Sequence[ProfileRow], seed: int) -> _Weights:
    """Weights, at most 1 together, by their error on inner left-out limits.

    Few rows choose nothing: the smooth correction is taken whole.
    """
    limits = Counter(row.power_limit_w for row in rows)
    if len(rows) < _MIN_CV_ROWS or len(limits) < _MIN_CV_LIMITS:
        whole = {Correction.SMOOTH: 1.0}
        return _Weights(whole, whole)
    left: list[Logs] = []
    added: list[dict[Correction, Logs]] = []
    for limit_w in limits:
        inside = [row for row in rows if row.power_limit_w != limit_w]
        parts = Parts(inside, corrections=tuple(Correction), seed=seed, priors=FEW_PRIORS)
        outside = [row for row in rows if row.power_limit_w == limit_w and parts.knows(row)]
        if outside:
            base, more = parts.predict(outside)
            speed, draw = log_targets(outside)
            left.append(Logs(speed - base.speed, draw - base.draw))
            added.append(more)
    return _Weights(*(_best(part, left, added) for part in range(2)))


def _best(
    part: int, left: Sequence[Logs], added: Sequence[Mapping[Correction, Logs]]
) -> dict[Correction, float]:
    """Weights for one target (0: speed, 1: draw) by mean absolute log error.

    The mean of all choices, the better the heavier: a few limits do not tell the best one from
    those that are nearly as good.
    """
    target = np.concatenate([logs[part] for logs in left])
    table: dict[Correction, Floats] = {
        correction: np.concatenate([more[correction][part] for more in added])
        for correction in Correction
    }
    choices = [quarters for quarters in product(range(5), repeat=len(table)) if sum(quarters) <= 4]
    weights = np.array(choices) / 4
    errors = np.abs(target[:, None] - np.column_stack(list(table.values())) @ weights.T).mean(
        axis=0
    )
    trust = np.exp(-(errors / errors.min() - 1) / _SHARPNESS)
    mean = trust @ weights / trust.sum()
    return {correction: float(value) for correction, value in zip(table, mean, strict=True)}
