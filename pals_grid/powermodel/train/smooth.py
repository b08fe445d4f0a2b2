"""What the physics core leaves over, as a smooth function: a Gaussian process."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

if TYPE_CHECKING:
    from pals_grid.powermodel.train.engines import Floats, Ints

_MAX_SEARCHED = 400
_AMPLITUDES = (0.005, 0.015, 0.03, 0.06, 0.12)
_LENGTHS = (1.0, 1.7, 3.0)
_NOISES = (0.002, 0.006, 0.012, 0.02)


class SmoothResidual:
    """A Gaussian process over coordinates already scaled to a length of 1.

    ``groups`` (engine numbers) get a part of their own beside the shared one; ``shared`` and
    ``own`` are the coordinates of each part, ``weight`` how far a row is under its limit's hold.
    Length, amplitude and noise are those of the greatest marginal likelihood on a small grid
    (of every so-manieth row where there are many).
    """

    def __init__(self, coordinates: Coordinates, left: Floats) -> None:
        self._known = coordinates
        some = np.arange(0, len(left), 1 + (len(left) - 1) // _MAX_SEARCHED)
        few, targets = coordinates.at(some), left[some]
        shapes = {length: few.kernel(few, length) for length in _LENGTHS}
        best = (-np.inf, 1.0, 0.0, 1.0)
        for (length, shape), amplitude, noise in product(shapes.items(), _AMPLITUDES, _NOISES):
            factor = _factor(shape, amplitude, noise)
            explained = targets @ cho_solve(factor, targets)
            likelihood = float(-0.5 * explained - np.log(np.diag(factor[0])).sum())
            best = max(best, (likelihood, length, amplitude, noise))
        _, self._length, amplitude, noise = best
        factor = _factor(coordinates.kernel(coordinates, self._length), amplitude, noise)
        self._weights: Floats = amplitude**2 * cho_solve(factor, left)

    def predict(self, coordinates: Coordinates) -> Floats:
        """Mean of the process; goes to 0 away from the rows."""
        result: Floats = coordinates.kernel(self._known, self._length) @ self._weights
        return result


class Coordinates:
    """Places of rows for ``SmoothResidual``."""

    def __init__(self, shared: Floats, own: Floats, groups: Floats, weight: Floats) -> None:
        self._shared, self._own, self._groups, self._weight = shared, own, groups, weight

    def at(self, rows: Ints) -> Coordinates:
        """Places of some rows."""
        return Coordinates(
            self._shared[rows], self._own[rows], self._groups[rows], self._weight[rows]
        )

    def kernel(self, other: Coordinates, length: float) -> Floats:
        """Covariance with ``other``, of amplitude 1."""
        same = self._groups[:, None] == other._groups[None, :]
        value = _bell(self._shared, other._shared, length)
        value += same * _bell(self._own, other._own, length)
        result: Floats = value * self._weight[:, None] * other._weight[None, :]
        return result


def _factor(shape: Floats, amplitude: float, noise: float) -> tuple[Floats, bool]:
    covariance = amplitude**2 * shape + noise**2 * np.eye(len(shape))
    result: tuple[Floats, bool] = cho_factor(covariance, lower=True)
    return result


def _bell(a: Floats, b: Floats, length: float) -> Floats:
    distance = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    result: Floats = np.exp(-0.5 * distance / length**2)
    return result
