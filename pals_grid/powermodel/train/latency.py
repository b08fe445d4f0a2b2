"""TTFT and ITL of one engine against its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pals_grid.powermodel.train.engines import Settings
from pals_grid.powermodel.train.smooth import Coordinates, SmoothResidual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.train.engines import Floats, GpuKind

_RIDGE = 1e-4


class Latency:
    """Log of a time, a plane over log batch and log throughput with a smooth rest.

    ``times_s`` has a value for each row. The time is learned as a multiple of ``batch /
    throughput``, the time in which every sequence gets one token.
    """

    def __init__(self, rows: Sequence[ProfileRow], times_s: Sequence[float], kind: GpuKind) -> None:
        self._kind = kind
        at = Settings.of(rows, kind)
        log_speed = np.log([row.tokens_per_s for row in rows])
        target = np.log(times_s) - _turn(at, log_speed)
        basis = _basis(at, log_speed)
        self._centre, self._mean = basis.mean(axis=0), float(target.mean())
        basis = basis - self._centre
        gram = basis.T @ basis + _RIDGE * len(rows) * np.eye(basis.shape[1])
        self._slopes = np.linalg.solve(gram, basis.T @ (target - self._mean))
        rest = target - self._mean - basis @ self._slopes
        self._smooth = SmoothResidual(_coordinates(at), rest)

    def predict(self, rows: Sequence[ProfileRow], log_speed: Floats) -> Floats:
        """Seconds at the settings of ``rows``, where throughput is ``exp(log_speed)``."""
        at = Settings.of(rows, self._kind)
        plane = (_basis(at, log_speed) - self._centre) @ self._slopes
        rest = self._smooth.predict(_coordinates(at))
        result: Floats = np.exp(_turn(at, log_speed) + self._mean + plane + rest)
        return result


def _turn(at: Settings, log_speed: Floats) -> Floats:
    result: Floats = np.log(at.batch) - log_speed
    return result


def _basis(at: Settings, log_speed: Floats) -> Floats:
    x = np.log2(at.batch) / 4
    return np.column_stack([x, x**2, log_speed])


def _coordinates(at: Settings) -> Coordinates:
    log_clock = np.log(np.maximum(at.clock_ratio, 0.02)) / 0.4
    places = np.column_stack([np.log(at.limit_w) / 0.4, log_clock, np.log2(at.batch) / 2.0])
    return Coordinates(places, places, np.zeros(len(places)), np.ones(len(places)))
