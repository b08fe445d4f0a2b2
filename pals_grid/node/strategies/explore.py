"""Neighbouring limits of a saturated engine, tried one at a time to learn their corrections.

A point that the table overrates is chosen, measured and left again. One that it underrates would
never be seen: so the levels next to the best are tried for a few seconds each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.node.strategies.correction import TrackCorrection
    from pals_grid.node.strategies.levels import LevelTable

REST_TICKS = 20
AGAIN_TICKS = 2
DWELL_TICKS = 11
ENOUGH_WINDOWS = 0.9
LEAST_DOUBT, MOST_DOUBT, SURPLUS_DOUBT = 0.004, 0.06, 0.12
STEEPEST = 1.2
"""Throughput falls at most with this power of the limit (A100 table, 150 W and more: below 1)."""
REACH = 3
SURPLUS = (0.012, 0.2)
"""Throughput above the target that hints at a lower limit which the table underrates."""


class Explorer:
    """Tries levels next to the best until each has been measured.

    Only where the target is met for certain (by the corrected table, or by the best level's
    measured throughput at the steepest fall), the budget holds, and no more tokens/J are lost
    than the table has been wrong by so far.
    """

    def __init__(self, table: LevelTable) -> None:
        self._table = table
        self._tried: int | None = None
        self._best: int | None = None
        self._rest = REST_TICKS
        self._dwell = 0

    def next(self, best: int, target_per_s: float, budget_w: float, *, settled: int) -> int | None:
        """Level to try now, or None to stay with ``best``; called once a tick."""
        if self._tried is not None:
            self._dwell -= 1
            if self._dwell > 0 and self._table.fit_power_w[self._tried] <= budget_w:
                return self._tried
            self._rest = AGAIN_TICKS if self._tried == best else REST_TICKS
            self._tried = None
        self._rest -= 1
        if self._rest > 0 or (settled < DWELL_TICKS and best != self._best):
            return None
        self._best = best
        self._tried = self._candidate(best, target_per_s, budget_w)
        self._dwell = DWELL_TICKS
        self._rest = REST_TICKS
        return self._tried

    def _candidate(self, best: int, target_per_s: float, budget_w: float) -> int | None:
        table = self._table
        levels = table.surface.levels
        clock_mhz = levels[best].sm_clock_mhz
        correction = table.corrections[clock_mhz]
        if correction.windows(levels[best].limit_w) < ENOUGH_WINDOWS:
            return None
        doubt = min(MOST_DOUBT, max(LEAST_DOUBT, correction.doubt_ratio))
        least = (1 - doubt) * table.fit_tokens[best] / table.fit_power_w[best]
        hopeful = (1 - SURPLUS_DOUBT) * table.fit_tokens[best] / table.fit_power_w[best]
        surplus = 1 + SURPLUS[0] < table.fit_tokens[best] / target_per_s < 1 + SURPLUS[1]
        steps = [sign * k for k in range(1, REACH + 1) for sign in (-1, 1)]
        for i in (best + step for step in steps):
            if not 0 <= i < len(levels) or levels[i].sm_clock_mhz != clock_mhz:
                continue
            down = surplus and i < best
            worth = table.fit_tokens[i] >= (hopeful if down else least) * table.fit_power_w[i]
            fits = worth and table.fit_power_w[i] <= budget_w
            if fits and self._certain(i, best, target_per_s) and self._unseen(i, correction):
                return i
        return None

    def _unseen(self, i: int, correction: TrackCorrection) -> bool:
        level = self._table.surface.levels[i]
        return correction.windows(level.limit_w) < ENOUGH_WINDOWS and (
            self._table.fit_running[i] > 0
        )

    def _certain(self, i: int, best: int, target_per_s: float) -> bool:
        table = self._table
        levels = table.surface.levels
        ratio = levels[i].limit_w / levels[best].limit_w
        least = table.fit_tokens[best] * min(1.0, math.pow(ratio, STEEPEST))
        return max(least, table.fit_tokens[i]) >= target_per_s
