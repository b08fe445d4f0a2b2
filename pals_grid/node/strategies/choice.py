"""The choice of a level: least energy for the load, best tokens/J for a target, or the most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.node.strategies.levels import LevelTable

KEEP_LOAD_RATIO = 0.015
KEEP_TARGET_RATIO = 0.003
OTHER_CLOCK_RATIO = 1.03
"""Another clock has to save more than this: limit and lock do much the same."""
FLOOR_RATIO = 0.03
REFERENCE = -1


class Backlog(NamedTuple):
    """Requests inside and waiting now, and the output tokens/s that each one too many asks for."""

    inside: float
    tokens_per_s: float


NOTHING = Backlog(0.0, 0.0)


class LevelChooser:
    """Indices into the level table; None where nothing does."""

    def __init__(self, table: LevelTable, *, hysteresis: bool = True) -> None:
        self._table = table
        self._levels = table.surface.levels
        self._hysteresis = hysteresis
        self._clocks = [level.sm_clock_mhz for level in self._levels]
        free = [i for i, level in enumerate(self._levels) if level.sm_clock_mhz is None]
        #: While a budget binds the limit does the work: clocks are left free.
        self._limited = free or list(range(len(self._levels)))

    def for_load(
        self,
        mean_per_s: float,
        ready_per_s: float,
        backlog: Backlog,
        budget_w: float,
        current: int | None,
        slowdown_ratio: float = math.inf,
    ) -> int | None:
        """Least draw at the mean load, able to take ``ready_per_s`` and to work off the backlog.

        Levels that are slower than the fastest by more than ``slowdown_ratio`` are left out.
        Ranked by the table's draw: corrections were learned at other loads, and where the draw
        hardly rises with the limit a small difference between two of them would turn the order.
        """
        table = self._table
        known = REFERENCE if current is None else current
        powers_w, order, slower = table.at_load(mean_per_s / table.tokens_ratio[known])
        fits, tokens, ratios = table.fit_running, table.fit_tokens, table.power_ratio
        inside, weight = backlog
        clocks, clock = self._clocks, self._clocks[known]
        keeps = self._hysteresis and current is not None
        other = OTHER_CLOCK_RATIO if keeps else 1.0
        near = 1 + KEEP_LOAD_RATIO if keeps else 1.0
        if ready_per_s > table.most_tokens_per_s:
            return None

        best, best_w, kept_w = None, math.inf, math.inf
        for i in order:  # up to a hundred at a tick: no call inside
            power_w, fit = powers_w[i], fits[i]
            if power_w > best_w * near:
                break
            spare = tokens[i] - ready_per_s
            if spare < 0 or fit <= 0 or spare < (inside - fit) * weight:
                continue
            if slower[i] > slowdown_ratio or power_w * ratios[i] > budget_w:
                continue
            if i == current:
                kept_w = power_w
            rank_w = power_w if clocks[i] == clock else power_w * other
            if rank_w < best_w:
                best, best_w = i, rank_w
        return current if best is not None and kept_w <= best_w * near else best

    def for_target(self, target_per_s: float, budget_w: float, current: int | None) -> int | None:
        """Best tokens/J of a saturated engine that meets the target."""
        table = self._table
        fits, powers_w = table.fit_running, table.fit_power_w
        best, best_ratio, kept_ratio = None, 0.0, 0.0
        for i, tokens in enumerate(table.fit_tokens):
            if tokens < target_per_s or powers_w[i] > budget_w or fits[i] <= 0:
                continue
            ratio = tokens / powers_w[i]
            if ratio > best_ratio:
                best, best_ratio = i, ratio
            if i == current:
                kept_ratio = ratio
        if self._hysteresis and kept_ratio >= best_ratio * (1 - KEEP_TARGET_RATIO):
            return current if kept_ratio > 0 else best
        return best

    def most(self, budget_w: float) -> int | None:
        """Most throughput inside the budget; levels that miss an objective come last."""
        table = self._table
        found = [i for i in self._limited if table.fit_power_w[i] <= budget_w]
        if not found:
            return None
        return max(found, key=lambda i: (table.fit_running[i] > 0, table.fit_tokens[i]))

    def floor(self) -> int:
        """Most throughput at about the least power."""
        table = self._table
        least_w = min(table.fit_power_w[i] for i in self._limited) * (1 + FLOOR_RATIO)
        low = [i for i in self._limited if table.fit_power_w[i] <= least_w]
        return max(low, key=lambda i: (table.fit_running[i] > 0, table.fit_tokens[i]))

    def between(self, index: int, target_per_s: float) -> float:
        """Limit between ``index`` and the level below it that just meets the target."""
        level = self._levels[index]
        below = index - 1
        if below < 0 or self._levels[below].sm_clock_mhz != level.sm_clock_mhz:
            return level.limit_w
        table = self._table
        low, high = table.fit_tokens[below], table.fit_tokens[index]
        better = low / table.fit_power_w[below] > high / table.fit_power_w[index]
        if not low < target_per_s < high or not better or table.fit_running[below] <= 0:
            return level.limit_w
        part = (target_per_s - low) / (high - low)
        return self._levels[below].limit_w * (1 - part) + level.limit_w * part
