"""How throughput and draw answer to a power limit and a clock, relative to running free.

Work takes a fixed dynamic energy at a given voltage, so under a limit the draw is::

    draw(f) = static_w + static_slope_w * f**n + dynamic_w * e(f) / t(f)
    t(f) = ((1 - c) + c * f**-r) ** (1 / r)        time relative to the highest clock
    e(f) = lam + (1 - lam) * f**n                  energy of an operation, likewise

with ``f`` the clock as a ratio of the highest, ``c`` the share of time that follows the clock,
``r`` how far the rest overlaps with it (1: not at all), ``lam`` the energy at the voltage floor.
The limit chooses ``f``: ``draw(f) = softmin(kappa * limit, free draw)``, soft because a run is a
mix of phases that reach the limit one after the other. Below the lowest clock of the grid the
GPU skips cycles and throughput goes with the dynamic power that is left.

Source of the form: energy of CMOS switching (f * V**2 with a voltage floor), this project's own
arrangement; its figures are fitted. Left out: temperature, spread between dies, memory clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pals_grid.powermodel.train.engines import Floats, Settings

GRID = np.concatenate([np.linspace(0.02, 0.2, 10)[:-1], np.linspace(0.2, 1.0, 33)])

#: Names of the shared parameters, and which of them an engine may have its own deviation of.
SHARED = ("static", "lam", "n", "r", "c0", "c1", "c2", "kappa", "log_q", "q1", "slope")
OWN = ("lam", "c0", "log_q", "static")
_OWN_COLUMNS = [SHARED.index(name) for name in OWN]


@dataclass(frozen=True)
class Prior:
    """Mean and width of the parameters before any row is seen; watts as ratios of the top limit.

    The static part of the draw, .15 of an A100's 400 W, is what such boards draw at rest with a
    model loaded (customary readings are 55 to 65 W). The others are wide: exponents between
    those of a fixed and of a fully following voltage, any share of memory-bound time.
    """

    static_ratio: float = 0.15
    overlap: float = 1.5

    def means(self) -> Floats:
        """In the order of ``SHARED``."""
        values = (self.static_ratio, 0.6, 3.0, self.overlap, 0.5, 1.0, 0.0, 0.993, 2.64, 0.0, 0.0)
        return np.array(values)

    def widths(self) -> Floats:
        """In the order of ``SHARED``."""
        return np.array((0.0125, 0.15, 0.5, 0.5, 1.0, 1.0, 0.5, 0.005, 0.6, 0.5, 0.0375))

    def own_widths(self) -> Floats:
        """How far engines differ, in the order of ``OWN``."""
        return np.array((0.04, 0.5, 0.15, 0.0125))


class Answer(NamedTuple):
    """Log of throughput relative to running free, log of the draw (W), clock ratio."""

    log_speed: Floats
    log_draw: Floats
    clock_ratio: Floats


def respond(
    shared: Floats, own: Floats, free_w: Floats, at: Settings, top_limit_w: float
) -> Answer:
    """Answer of cells with a free draw of ``free_w`` per GPU, ``own`` a row of ``OWN`` for each."""
    values = np.repeat(shared[:, None], len(free_w), axis=1)
    values[_OWN_COLUMNS] += own.T
    static, lam, n, r, c0, c1, c2, kappa, log_q, q1, slope = values
    static_w = np.clip(static, 0.01, 0.6) * top_limit_w
    slope_w = np.clip(slope, -0.2, 0.2) * top_limit_w
    lam = np.clip(lam, 0.2, 0.98)
    n, r = np.clip(n, 1.05, 20), np.clip(r, 0.5, 10)
    least_w = static_w + np.maximum(slope_w, 0) + 0.01 * top_limit_w
    free_w = np.clip(free_w, least_w, 50 * top_limit_w)
    load = np.log(np.maximum(free_w - static_w, 0.05 * top_limit_w) / (0.375 * top_limit_w))
    share = c0 + 2 * c1 * load + c2 * (np.log2(at.batch) - 3) / 3
    c = 1 / (1 + np.exp(-np.clip(share, -20, 20)))
    q = np.exp(np.clip(log_q + 2 * q1 * np.log(free_w / (0.625 * top_limit_w)), 0.5, 4.5))

    power_n = GRID[None, :] ** n[:, None]
    times = _time(GRID[None, :], c[:, None], r[:, None])
    energy = lam[:, None] + (1 - lam[:, None]) * power_n
    dynamic_w = (free_w - static_w - slope_w)[:, None]
    draws_w = static_w[:, None] + slope_w[:, None] * power_n + dynamic_w * energy / times
    locked_w = np.where(at.clock_ratio < 1, _read(GRID, draws_w, at.clock_ratio), free_w)
    log_limit = np.log(np.clip(kappa, 0.5, 2.0) * at.limit_w)
    log_locked = np.log(np.maximum(locked_w, 1e-3 * top_limit_w))
    draw_w = np.exp(-np.logaddexp(-q * log_limit, -q * log_locked) / q)
    ratio = np.minimum(_solve(draws_w, draw_w), at.clock_ratio)
    log_speed = -np.log(_time(ratio, c, r))
    least_dynamic_w = np.maximum(draws_w[:, 0] - static_w, 1e-3 * top_limit_w)
    skipped = np.maximum(draw_w - static_w, 1e-3 * top_limit_w) / least_dynamic_w
    return Answer(log_speed + np.log(np.minimum(skipped, 1.0)), np.log(draw_w), ratio)


def _time(ratio: Floats, c: Floats, r: Floats) -> Floats:
    result: Floats = ((1 - c) + c * ratio**-r) ** (1 / r)
    return result


def _solve(draws_w: Floats, draw_w: Floats) -> Floats:
    """Clock ratio at which each row of rising ``draws_w`` reaches ``draw_w``."""
    above = np.clip((draws_w < draw_w[:, None]).sum(axis=1), 1, len(GRID) - 1)
    at = np.arange(len(draw_w))
    low_w, high_w = draws_w[at, above - 1], draws_w[at, above]
    share = np.clip((draw_w - low_w) / np.maximum(high_w - low_w, 1e-9), 0.0, 1.0)
    ratio: Floats = GRID[above - 1] + share * (GRID[above] - GRID[above - 1])
    return ratio


def _read(grid: Floats, rows: Floats, x: Floats) -> Floats:
    """Each row, a function on ``grid``, at its own ``x``."""
    above = np.clip(np.searchsorted(grid, x), 1, len(grid) - 1)
    at = np.arange(len(x))
    share = np.clip((x - grid[above - 1]) / (grid[above] - grid[above - 1]), 0.0, 1.0)
    value: Floats = rows[at, above - 1] + share * (rows[at, above] - rows[at, above - 1])
    return value
