"""Least absolute deviations, shrunk: the part of a forecast that history is too short to bend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pals_grid.forecast.learned.grid import Floats

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Linear:
    """``offset + rows @ slopes``."""

    offset: float
    slopes: Floats

    def predict(self, rows: Floats) -> Floats:
        """One value a row."""
        found: Floats = rows @ self.slopes + self.offset
        return found


def fit_linear(
    rows: Floats, targets: Floats, weights: Floats, prior: Floats, shrink: float
) -> Linear:
    """Fit by reweighted least squares, with slopes drawn towards ``prior``.

    ``shrink`` is by how much, on the standard scale, a row.

    Weighting each row by the inverse of its error turns squares into absolute values; errors
    under a third of the median count as that, which keeps it from dividing by zero.
    """
    mass = np.ones(len(targets))
    left = targets - rows @ prior
    fitted = _fit_squares(rows, left, weights, shrink)
    for _ in range(ROUNDS):
        error = np.abs(left - fitted.predict(rows))
        least = max(0.3 * float(np.median(error)), 1e-9)
        mass = least / np.maximum(error, least)
        fitted = _fit_squares(rows, left, weights * mass, shrink)
    return Linear(fitted.offset, fitted.slopes + prior)


def _fit_squares(rows: Floats, targets: Floats, weights: Floats, shrink: float) -> Linear:
    total = float(weights.sum())
    middle = weights @ rows / total
    spread = np.sqrt(weights @ (rows - middle) ** 2 / total) + 1e-9
    target = float(weights @ targets) / total
    standard = (rows - middle) / spread
    weighted = standard * weights[:, None]
    square = weighted.T @ standard + shrink * total * np.eye(rows.shape[1])
    slopes = np.linalg.solve(square, weighted.T @ (targets - target)) / spread
    return Linear(target - float(middle @ slopes), slopes)
