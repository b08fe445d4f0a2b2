"""The parts of a predictor for one kind of GPU: mean physics, and three ways to correct it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pals_grid.powermodel.train.core import PhysicsCore, Prediction
from pals_grid.powermodel.train.engines import EngineKey, Settings, log_targets
from pals_grid.powermodel.train.response import Prior
from pals_grid.powermodel.train.smooth import Coordinates, SmoothResidual
from pals_grid.powermodel.train.trees import BOOSTING, FOREST, TreeResidual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.train.engines import Floats

#: The least-squares problem has several near-equal minima; priors around the middle one, averaged,
#: depend less on which of them is found.
PRIORS = tuple(
    Prior(static, overlap) for static in (0.1425, 0.15, 0.1575) for overlap in (1.0, 1.5)
)
FEW_PRIORS = (Prior(0.15, 1.0), Prior(0.15, 1.5))


class Correction(StrEnum):
    """Ways to correct the physics."""

    SMOOTH = "smooth"
    FOREST = "forest"
    BOOSTING = "boosting"


class Logs(NamedTuple):
    """Log tokens/s and log draw per GPU (W)."""

    speed: Floats
    draw: Floats

    def plus(self, other: Logs, speed_weight: float, draw_weight: float) -> Logs:
        """Add ``other`` in parts."""
        return Logs(self.speed + speed_weight * other.speed, self.draw + draw_weight * other.draw)


class Parts:
    """Fitted on rows of one kind of GPU."""

    def __init__(
        self,
        rows: Sequence[ProfileRow],
        *,
        corrections: Sequence[Correction],
        seed: int,
        priors: Sequence[Prior] = PRIORS,
    ) -> None:
        self._cores = [PhysicsCore(rows, prior) for prior in priors]
        self._groups = {key: i for i, key in enumerate(dict.fromkeys(map(EngineKey.of, rows)))}
        speed, draw = log_targets(rows)
        mean = self._mean(rows)
        left = (speed - mean.log_speed, draw - mean.log_draw)
        features = self._features(rows, mean)
        places = self._coordinates(rows, mean)
        self._smooth = [SmoothResidual(places, part) for part in left]
        self._trees = {
            correction: [TreeResidual(features, part, parameters, seed) for part in left]
            for correction, parameters in (
                (Correction.FOREST, FOREST),
                (Correction.BOOSTING, BOOSTING),
            )
            if correction in corrections
        }

    def knows(self, row: ProfileRow) -> bool:
        """Whether any row was of this row's engine."""
        return EngineKey.of(row) in self._groups

    def predict(self, rows: Sequence[ProfileRow]) -> tuple[Logs, dict[Correction, Logs]]:
        """Physics, and what each correction adds to it."""
        mean = self._mean(rows)
        features = self._features(rows, mean)
        places = self._coordinates(rows, mean)
        added = {Correction.SMOOTH: Logs(*(part.predict(places) for part in self._smooth))}
        for correction, trees in self._trees.items():
            added[correction] = Logs(*(part.predict(features) for part in trees))
        return Logs(mean.log_speed, mean.log_draw), added

    def _mean(self, rows: Sequence[ProfileRow]) -> Prediction:
        found = [core.predict(rows) for core in self._cores]
        return Prediction(
            np.mean([p.log_speed for p in found], axis=0),
            np.mean([p.log_draw for p in found], axis=0),
            np.mean([p.log_free_speed for p in found], axis=0),
            np.mean([p.log_free_draw for p in found], axis=0),
            np.mean([p.clock_ratio for p in found], axis=0),
        )

    def _features(self, rows: Sequence[ProfileRow], mean: Prediction) -> Floats:
        """Physics features: how far the limit holds the cell, and what that does to it."""
        kind = self._cores[0].kind
        at = Settings.of(rows, kind)
        log_limit = np.log(at.limit_w / kind.top_limit_w)
        free = mean.log_free_draw - np.log(kind.top_limit_w)
        return np.column_stack(
            [
                log_limit,
                np.log2(at.batch),
                at.clock_ratio,
                free,
                log_limit - free,
                mean.log_speed - mean.log_free_speed,
                mean.log_draw - mean.log_free_draw,
                mean.clock_ratio,
            ]
        )

    def _coordinates(self, rows: Sequence[ProfileRow], mean: Prediction) -> Coordinates:
        kind = self._cores[0].kind
        at = Settings.of(rows, kind)
        log_limit = np.log(at.limit_w) / 0.3
        log_clock = np.log(np.maximum(at.clock_ratio, 0.02)) / 0.3
        shared = np.column_stack([log_limit, log_clock, mean.log_free_draw / 0.3])
        own = np.column_stack([log_limit, log_clock, np.log2(at.batch) / 2.0])
        groups = np.array([self._groups.get(EngineKey.of(row), -1) for row in rows], np.float64)
        # Where neither limit nor clock holds the cell, rows of one cell differ by noise alone.
        held = (mean.log_free_speed - mean.log_speed) + (mean.log_free_draw - mean.log_draw)
        return Coordinates(shared, own, groups, 1 - np.exp(-np.maximum(held, 0.0) / 0.1))
