"""Batch levels of served models without a power limit, by Gaussian-process regression.

The logarithms of step time, draw and rate against the logarithm of the batch: a straight line in
the features of ``powermodel.features`` (also kept by itself, for groups never seen), deviations
that the groups of one model, family, GPU or task share, each smooth in the batch, and a group's
own. Rows far outside what their neighbours tell get more noise instead of pulling (the median
ITL of mixed batches jumps between the step with and the step without a prompt's chunk).

The weights were chosen by hand once and not tuned: a search over them moved the error at
levels left out by less than its own spread between halves of the models.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pals_grid.powermodel.deployment import Deployment
from pals_grid.powermodel.features import FEATURE_NAMES, feature_row
from pals_grid.powermodel.fitted import LevelGroup, Trend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pals_grid.powermodel.measured import LevelRow

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Weights:
    """Variances of the parts, in squared logarithms."""

    own_rough: float
    own: float
    family_task: float
    family: float
    family_gpu: float
    family_anywhere: float
    gpu_task: float
    noise: float
    noise_media: float
    noise_large: float
    line: float
    own_smooth: float
    late_own: float
    late_family: float


_STEP = _Weights(
    0.01, 0.01, 0.02, 0.02, 0.02, 0.02, 0.01, 0.004, 1.0, 1.0, 0.3, 0.01, 0.02, 0.05
)  # fmt: skip
_POWER = _Weights(
    0.002, 0.003, 0.005, 0.005, 0.005, 0.005, 0.003, 0.0008, 0.3, 0.3, 0.1, 0.003, 0.0, 0.0
)  # fmt: skip
_SMOOTH, _ROUGH = 1.5, 1.0
_FLAT = 1e-9
_OUTLIER = 2.0
_LARGE, _LATE = 6.0, 5.5
_MEDIA = ("image-chat", "video-chat")


class _Labels:
    """Which parts two sets of rows share, and how far apart their batches are."""

    def __init__(self, left: Sequence[LevelRow], right: Sequence[LevelRow]) -> None:
        def same(*names: str) -> Bools:
            def values(rows: Sequence[LevelRow]) -> NDArray[np.str_]:
                return np.array(["|".join(str(getattr(r, n)) for n in names) for r in rows])

            return np.asarray(values(left)[:, None] == values(right)[None, :])

        self.gpu_task = same("gpu_model", "task")
        self.family = same("family")
        self.family_gpu = self.family & same("gpu_model")
        self.deployment = self.family_gpu & same("gpu_count", "data_parallel", "precision")
        self.deployment_task = self.deployment & same("task")
        self.own = self.deployment_task & same("model", "tensor_parallel", "expert_parallel")
        here, there = _logs(left), _logs(right)
        self.apart = np.abs(here[:, None] - there[None, :])
        self.late = _ramp(here)[:, None] * _ramp(there)[None, :]


def _logs(rows: Sequence[LevelRow]) -> Floats:
    return np.log(np.maximum([row.running for row in rows], 1.0))


def _ramp(logs: Floats) -> Floats:
    return np.asarray(np.logaddexp(0.0, 2 * (logs - _LATE)) / 2)


def _covariance(labels: _Labels, w: _Weights) -> Floats:
    smooth = np.exp(-0.5 * (labels.apart / _SMOOTH) ** 2)
    rough = np.exp(-labels.apart / _ROUGH)
    own = w.own_rough * rough + w.own + w.own_smooth * smooth + w.late_own * labels.late
    deployment = w.family * smooth + w.late_family * labels.late
    family_gpu = w.family_gpu * smooth + w.late_family * labels.late
    return np.asarray(
        labels.own * own
        + labels.deployment_task * w.family_task * smooth
        + labels.deployment * deployment
        + labels.family_gpu * family_gpu
        + labels.family * w.family_anywhere * smooth
        + labels.gpu_task * w.gpu_task * smooth
    )


class LevelRegression:
    """Fitted on rows of one source; predicts any row's step (ms), W per GPU and tokens/s a seq."""

    def __init__(self, rows: Sequence[LevelRow]) -> None:
        self._rows = list(rows)
        features = _features(self._rows)
        self._middle, self._scale = features.mean(axis=0), features.std(axis=0)
        self._middle[0] = 0.0
        self._scale[self._scale < _FLAT] = 1.0
        labels = _Labels(self._rows, self._rows)
        standard = self._standard(features)
        self._parts = [
            _Part(np.log(values), weights, labels, standard, self._noise(weights))
            for values, weights in (
                (np.array([row.step_ms for row in rows]), _STEP),
                (np.array([row.power_w for row in rows]), _POWER),
                (np.array([row.tokens_per_s / row.running for row in rows]), _STEP),
            )
        ]

    def predict(self, rows: Sequence[LevelRow]) -> Floats:
        """One line a row: step in ms, watts per GPU, tokens/s of one sequence."""
        labels = _Labels(rows, self._rows)
        standard = self._standard(_features(rows))
        return np.stack([np.exp(p.predict(labels, standard)) for p in self._parts], axis=1)

    def trend(self, source: str) -> Trend:
        """Return the straight line alone, in plain features."""
        lines = []
        for part in self._parts:
            slope = part.line / self._scale
            slope[0] += part.mean - float(np.sum((part.line * self._middle / self._scale)[1:]))
            lines.append(tuple(map(float, slope)))
        return Trend(source, FEATURE_NAMES, *lines)

    def _standard(self, features: Floats) -> Floats:
        return np.asarray((features - self._middle) / self._scale)

    def _noise(self, w: _Weights) -> Floats:
        logs = _logs(self._rows)
        media = np.array([row.task in _MEDIA for row in self._rows])
        large = np.where(logs > _LARGE, np.exp(2 * np.minimum(logs - _LARGE, 2.0)), 0.0)
        return np.asarray(w.noise * (1 + w.noise_media * media + w.noise_large * large))


class _Part:
    """One target."""

    def __init__(
        self, log_y: Floats, weights: _Weights, labels: _Labels, features: Floats, noise: Floats
    ) -> None:
        self._weights, self._features = weights, features
        self.mean = float(log_y.mean())
        known = _covariance(labels, weights) + weights.line * features @ features.T
        extra = np.zeros(len(log_y))
        for _ in range(6):
            inverse = np.linalg.inv(known + np.diag(noise + extra))
            self._answer = inverse @ (log_y - self.mean)
            variance = 1 / np.diag(inverse)
            off = self._answer * variance
            grown = extra + 0.7 * np.maximum(off**2 / _OUTLIER**2 - variance, 0.0)
            extra = np.where(off**2 > _OUTLIER**2 * variance, grown, 0.7 * extra)
        self.line = weights.line * features.T @ self._answer

    def predict(self, labels: _Labels, features: Floats) -> Floats:
        shared = _covariance(labels, self._weights) @ self._answer
        return np.asarray(self.mean + shared + features @ self.line)


def _features(rows: Sequence[LevelRow]) -> Floats:
    return np.array([feature_row(row, row.running) for row in rows])


def fit_levels(rows: Sequence[LevelRow]) -> tuple[tuple[LevelGroup, ...], Trend]:
    """Levels of every group of one source, and the source's trend."""
    regression = LevelRegression(rows)
    grouped: dict[tuple[object, ...], list[LevelRow]] = defaultdict(list)
    for row in rows:
        grouped[row.key].append(row)
    members = [
        sorted(group, key=lambda r: r.running) for _, group in sorted(grouped.items(), key=str)
    ]
    asked = [
        msgspec.structs.replace(group[0], running=running)
        for group in members
        for running in _knots(group)
    ]
    answers = iter(regression.predict(asked))
    groups = []
    for group in members:
        knots = _knots(group)
        lines = np.array([next(answers) for _ in knots])
        groups.append(_group(group, knots, lines))
    return tuple(groups), regression.trend(rows[0].source)


def _knots(group: Sequence[LevelRow]) -> list[float]:
    """Half an octave apart, over the measured levels and an octave on each side."""
    low, high = group[0].running / 2, group[-1].running * 2
    steps = max(2, math.ceil(2 * math.log2(high / low)))
    spaced = [low * (high / low) ** (i / steps) for i in range(steps + 1)]
    return [max(1.0, k) for i, k in enumerate(spaced) if k > 1.0 or spaced[i + 1] > 1.0]


def _group(rows: Sequence[LevelRow], knots: Sequence[float], lines: Floats) -> LevelGroup:
    return LevelGroup(
        **{name: getattr(rows[0], name) for name in Deployment.__struct_fields__},
        rows=len(rows),
        measured_levels=tuple(sorted({row.level for row in rows})),
        running=tuple(knots),
        step_ms=tuple(map(float, lines[:, 0])),
        power_w=tuple(map(float, lines[:, 1])),
        rate=tuple(map(float, lines[:, 2])),
    )
