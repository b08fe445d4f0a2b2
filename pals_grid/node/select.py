"""The choice of an operating point (PALS, arXiv 2605.21427, steps 1 to 3).

Of the points whose predicted power fits the budget: among those that meet the throughput target
the highest tokens/J; if none does, the highest throughput. Points that miss the inter-token
latency objective count only where no point inside the budget meets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.fleet import floor_point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.core.fleet import OperatingPoint

KEEP_RATIO = 0.02
CALM_RATIO = 0.05


class PointChooser:
    """Picks from one engine's points; sorted once, so that a choice is one scan."""

    def __init__(self, points: Iterable[OperatingPoint], itl_slo_s: float) -> None:
        everything = tuple(points)
        self._fast = _Ranked([p for p in everything if p.itl_s <= itl_slo_s])
        self._slow = _Ranked([p for p in everything if p.itl_s > itl_slo_s])
        self.cheapest = floor_point(everything, itl_slo_s)
        best = self._fast if self._fast.by_throughput else self._slow
        self.max_tokens_per_s = best.by_throughput[0].tokens_per_s
        self.min_power_w = self.cheapest.gpu_power_w

    def choose(
        self, budget_w: float, target_tokens_per_s: float, current: OperatingPoint | None = None
    ) -> OperatingPoint | None:
        """Choose inside ``budget_w`` of GPU power; None when no point fits.

        ``current`` is kept while it is allowed, meets the target, and the best saves less than
        2 % energy per token; it is left for less throughput only where that exceeds the target
        by 5 %. Noise in the target then changes nothing.
        """
        for ranked in (self._fast, self._slow):
            if current is None or not ranked.allows(current, budget_w, target_tokens_per_s):
                best = ranked.choose(budget_w, target_tokens_per_s)
            else:
                calm = min(target_tokens_per_s * (1 + CALM_RATIO), current.tokens_per_s)
                best = ranked.choose(budget_w, calm)
                if best is None or efficiency(current) >= efficiency(best) * (1 - KEEP_RATIO):
                    return current
            if best is not None:
                return best
        return None

    def need_w(self, target_tokens_per_s: float) -> float:
        """GPU power that the target asks for when nothing limits it."""
        chosen = self.choose(float("inf"), target_tokens_per_s)
        assert chosen is not None  # a table has at least one point
        return chosen.gpu_power_w


class _Ranked:
    def __init__(self, points: list[OperatingPoint]) -> None:
        self.by_throughput = sorted(points, key=lambda p: (-p.tokens_per_s, p.gpu_power_w))
        ranked = sorted(points, key=lambda p: (-efficiency(p), p.gpu_power_w))
        self._by_efficiency = [(p.gpu_power_w, p.tokens_per_s, p) for p in ranked]
        self._members = frozenset(points)

    def choose(self, budget_w: float, target_tokens_per_s: float) -> OperatingPoint | None:
        for power_w, tokens_per_s, point in self._by_efficiency:
            if power_w <= budget_w and tokens_per_s >= target_tokens_per_s:
                return point
        for point in self.by_throughput:
            if point.gpu_power_w <= budget_w:
                return point
        return None

    def allows(self, point: OperatingPoint, budget_w: float, target_tokens_per_s: float) -> bool:
        return (
            point in self._members
            and point.gpu_power_w <= budget_w
            and point.tokens_per_s >= target_tokens_per_s
        )


def efficiency(point: OperatingPoint) -> float:
    """Output tokens per joule of GPU energy."""
    return point.tokens_per_s / point.gpu_power_w if point.gpu_power_w > 0 else float("inf")


def split_budget(
    budget_w: float, needs_w: Sequence[float], floors_w: Sequence[float]
) -> list[float]:
    """Share a node's GPU budget among its engines; the shares sum to ``budget_w`` at most.

    Where the needs fit, each gets its need and its part of what is left over. Otherwise each
    gets its floor (the power of its cheapest point) and the rest in proportion to what it needs
    above that; a budget below the floors is cut in proportion to them.
    """
    budget_w = max(0.0, budget_w)
    needed_w, floor_w = sum(needs_w), sum(floors_w)
    if needed_w <= budget_w:
        return _scaled(needs_w, budget_w)
    if floor_w >= budget_w:
        return _scaled(floors_w, budget_w)
    ratio = (budget_w - floor_w) / (needed_w - floor_w)
    return [floor + (need - floor) * ratio for need, floor in zip(needs_w, floors_w, strict=True)]


def _scaled(parts_w: Sequence[float], total_w: float) -> list[float]:
    whole_w = sum(parts_w)
    if whole_w <= 0:
        return [total_w / len(parts_w)] * len(parts_w)
    return [part * total_w / whole_w for part in parts_w]
