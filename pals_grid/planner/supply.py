"""All fleets as one convex curve per slot: exact, and in a few pieces for the programme.

Any fleet can serve any token, so what costs the least power joins the fleets' segments by rising
marginal power (``PowerCurve.combined``); splitting a throughput by equal marginal power gives each
fleet its part back. A compressed curve joins some of the exact one's breakpoints by chords, which
lie above a convex curve: what it says can be served in a power can be served in it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.fleet import PowerCurve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from pals_grid.core.fleet import Fleet
    from pals_grid.core.intervals import Interval

MOST_PIECES = 20
GAP_RATIO = 2e-4
"""Chords lie at most this share of ``max_power_w - floor_w`` above the curve, or there are
MOST_PIECES of them."""


@dataclass(frozen=True, slots=True)
class Supply:
    """One slot's fleets: the exact curve, and its chords' widths (tokens/s) and slopes (W s).

    ``gap_w`` is the most that a chord lies above the curve.
    """

    curve: PowerCurve
    widths: npt.NDArray[np.float64]
    slopes: npt.NDArray[np.float64]
    gap_w: float


def supplies_for(fleets: Sequence[Fleet], intervals: Iterable[Interval]) -> list[Supply]:
    """Each interval's supply; intervals with the same limits of the fleets share one."""
    made: dict[tuple[float, ...], Supply] = {}
    found = []
    always_w = tuple(fleet.maximum_w for fleet in fleets)
    changing = [(i, fleet) for i, fleet in enumerate(fleets) if fleet.thermal_limits]
    for interval in intervals:
        limits_w = always_w
        if changing:
            own_w = list(always_w)
            for i, fleet in changing:
                own_w[i] = fleet.most_w(interval)
            limits_w = tuple(own_w)
        if limits_w not in made:
            made[limits_w] = compress(_merged(fleets, limits_w))
        found.append(made[limits_w])
    return found


def _merged(fleets: Sequence[Fleet], limits_w: Sequence[float]) -> PowerCurve:
    return PowerCurve.combined(
        [
            fleet.curve.within(fleet.minimum_w, limit_w)
            for fleet, limit_w in zip(fleets, limits_w, strict=True)
        ]
    )


def compress(
    curve: PowerCurve, gap_ratio: float = GAP_RATIO, most_pieces: int = MOST_PIECES
) -> Supply:
    """Cut the curve where a chord is furthest above it, until all are near or enough."""
    tokens, power_w = np.array(curve.tokens_per_s), np.array(curve.power_w)
    enough_w = gap_ratio * (curve.max_power_w - curve.floor_w)
    kept = [0, len(tokens) - 1] if len(tokens) > 1 else [0]
    gaps = [_furthest(tokens, power_w, a, b) for a, b in itertools.pairwise(kept)]
    while len(gaps) < most_pieces and gaps and (worst := max(gaps))[0] > enough_w:
        i, cut = gaps.index(worst), worst[1]
        gaps[i : i + 1] = [
            _furthest(tokens, power_w, kept[i], cut),
            _furthest(tokens, power_w, cut, kept[i + 1]),
        ]
        kept.insert(i + 1, cut)
    widths = np.diff(tokens[kept])
    return Supply(
        curve, widths, np.diff(power_w[kept]) / widths, max((gap for gap, _ in gaps), default=0.0)
    )


def _furthest(
    tokens: npt.NDArray[np.float64], power_w: npt.NDArray[np.float64], a: int, b: int
) -> tuple[float, int]:
    """How far the chord from breakpoint ``a`` to ``b`` lies above the curve at most, and where."""
    slope = (power_w[b] - power_w[a]) / (tokens[b] - tokens[a])
    above_w = power_w[a] + slope * (tokens[a : b + 1] - tokens[a]) - power_w[a : b + 1]
    at = int(np.argmax(above_w))
    return float(above_w[at]), a + at


def slope_at(supply: Supply, rate: float) -> float:
    """Marginal power just below a throughput, W s; never 0."""
    if not len(supply.slopes):
        return 1e-9
    at = int(np.searchsorted(np.cumsum(supply.widths), rate * (1 - 1e-9)))
    return max(float(supply.slopes[min(at, len(supply.slopes) - 1)]), 1e-9)
