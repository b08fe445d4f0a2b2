"""A quantity of engines against their batch: known at some batches, wanted at others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator

if TYPE_CHECKING:
    from pals_grid.powermodel.train.engines import Floats, Ints

_RIDGE = 1e-3


class BatchShape:
    """A parabola over log batch shared by the engines, and each engine's own way off it.

    Between an engine's own batches the difference from the parabola is interpolated, beyond
    them held; an engine without any batch stands at the mean of the others.
    """

    def __init__(self, engines: Ints, batches: Floats, values: Floats) -> None:
        x = np.log2(batches)
        count = int(engines.max()) + 1
        self._low, self._high = float(x.min()), float(x.max())
        means = np.array([values[engines == e].mean() for e in range(count)])
        centres = np.array([self._basis(x[engines == e]).mean(axis=0) for e in range(count)])
        basis = self._basis(x) - centres[engines]
        gram = basis.T @ basis + _RIDGE * np.eye(2)
        self._slopes = np.linalg.solve(gram, basis.T @ (values - means[engines]))
        self._found: dict[tuple[int, float], float] = {}
        self._own: dict[int, tuple[Floats, Floats]] = {}
        for engine in range(count):
            mine = np.flatnonzero(engines == engine)
            mine = mine[np.argsort(x[mine])]
            self._own[engine] = (x[mine], values[mine] - self._parabola(x[mine]))
        self._mean = float(np.mean([off.mean() for _, off in self._own.values()]))

    def value(self, engine: int, batch: float) -> float:
        """Value of ``engine`` (-1: none of those known) at ``batch``."""
        x = float(np.log2(batch))
        if (engine, x) not in self._found:
            at = float(self._parabola(np.array([x]))[0])
            own = self._own.get(engine)
            self._found[engine, x] = at + (self._mean if own is None else _between(x, *own))
        return self._found[engine, x]

    def _parabola(self, x: Floats) -> Floats:
        """Inside the batches known the parabola, beyond them its tangent, rising or level."""
        inside = np.clip(x, self._low, self._high)
        rise = np.maximum(self._slopes[0] / 3 + 2 * self._slopes[1] * inside / 9, 0.0)
        result: Floats = self._basis(inside) @ self._slopes + rise * (x - inside)
        return result

    @staticmethod
    def _basis(x: Floats) -> Floats:
        return np.stack([x / 3, (x / 3) ** 2], axis=-1)


def _between(x: float, places: Floats, values: Floats) -> float:
    inside = float(np.clip(x, places[0], places[-1]))
    if len(places) < 3:
        return float(np.interp(inside, places, values))
    return float(PchipInterpolator(places, values)(inside))
