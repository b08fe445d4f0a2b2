"""The nodes of a site as arrays, so that a split of thousands takes milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.fleet import NodeCapability, PowerCurve

_SLOPE_DIGITS = 12  # closer slopes are rounding: like nodes get like shares

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class FleetArrays:
    """N nodes with up to K + 1 breakpoints each, rows in the order they were given.

    ``curve_w`` and ``curve_tokens_per_s`` are (N, K + 1), shorter curves repeat their last point;
    ``power_min_w``, ``power_max_w`` and ``online`` are (N,). Power is at node boundary.
    ``slopes_w_per_token_per_s`` is (N, K), infinite for what only fills a row up. Columns are
    contiguous: what is done node by node runs along them.
    """

    curve_w: Floats
    curve_tokens_per_s: Floats
    slopes_w_per_token_per_s: Floats
    power_min_w: Floats
    power_max_w: Floats
    online: Flags

    @staticmethod
    def of(nodes: Sequence[NodeCapability]) -> FleetArrays:
        """Lay the nodes' curves side by side; equal curves are converted once."""
        rows: dict[PowerCurve, int] = {}
        which = [rows.setdefault(node.curve, len(rows)) for node in nodes]
        width = max((len(curve.power_w) for curve in rows), default=1)
        power_w = _padded([curve.power_w for curve in rows], width)[which]
        tokens = _padded([curve.tokens_per_s for curve in rows], width)[which]
        return FleetArrays(
            curve_w=np.asfortranarray(power_w),
            curve_tokens_per_s=np.asfortranarray(tokens),
            slopes_w_per_token_per_s=np.asfortranarray(_slopes(power_w, tokens)),
            power_min_w=np.array([node.power_min_w for node in nodes], dtype=float),
            power_max_w=np.array([node.power_max_w for node in nodes], dtype=float),
            online=np.array([node.online for node in nodes], dtype=bool),
        )

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(self.power_min_w)

    def subset(self, rows: Flags | Indices) -> FleetArrays:
        """The nodes of ``rows``: a flag each, or their indices."""
        return FleetArrays(
            self.curve_w.T[:, rows].T,
            self.curve_tokens_per_s.T[:, rows].T,
            self.slopes_w_per_token_per_s.T[:, rows].T,
            self.power_min_w[rows],
            self.power_max_w[rows],
            self.online[rows],
        )

    def tokens_per_s_at(self, power_w: Floats, rows: Indices | None = None) -> Floats:
        """Most tokens/s of each node, or of ``rows``, inside ``power_w``; 0 below the floor."""
        return _interpolate(self.curve_w, self.curve_tokens_per_s, power_w, 0.0, rows)

    def power_w_at(self, tokens_per_s: Floats) -> Floats:
        """Power that each node needs for ``tokens_per_s`` (N,), held at its curve's ends."""
        floor_w = self.curve_w[:, 0]
        return _interpolate(self.curve_tokens_per_s, self.curve_w, tokens_per_s, floor_w)


def segment_of(edges: Floats, at: Floats) -> Indices:
    """Index of the last edge of each row that is at most ``at`` (N,); -1 below the first."""
    passed = (edges <= at[:, None]).view(np.uint8)
    found: Indices = passed.sum(axis=1, dtype=np.uint16).astype(np.intp) - 1
    return found


def _interpolate(
    x: Floats, y: Floats, at: Floats, below: float | Floats, rows: Indices | None = None
) -> Floats:
    if len(at) == 0:
        return np.zeros(0)
    last = x.shape[1] - 1
    found = segment_of(x if rows is None else x[rows], at)
    low = np.maximum(found, 0)
    high = np.minimum(low + 1, last)
    row = np.arange(len(at)) if rows is None else rows
    x0, x1, y0, y1 = x[row, low], x[row, high], y[row, low], y[row, high]
    width = np.where(x1 > x0, x1 - x0, 1.0)
    part = np.clip((at - x0) / width, 0.0, 1.0)
    return np.where(found < 0, below, y0 + part * (y1 - y0))


def _slopes(power_w: Floats, tokens_per_s: Floats) -> Floats:
    rise, run = np.diff(power_w, axis=1), np.diff(tokens_per_s, axis=1)
    real = run > 0
    found = np.round(rise / np.where(real, run, 1.0), _SLOPE_DIGITS)
    return np.where(real, found, np.inf)


def _padded(rows: Sequence[Sequence[float]], width: int) -> Floats:
    filled = [[*row, *[row[-1]] * (width - len(row))] for row in rows]
    return np.array(filled, dtype=float).reshape(len(rows), width)
