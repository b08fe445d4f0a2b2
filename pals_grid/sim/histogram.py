"""Quantiles of latencies from logarithmic bins 2 % wide."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_log, _floor = math.log, math.floor
_BINS_PER_LOG = 1 / _log(1.02)
#: Jitter of a step's time, log-normal: the p90 and p95 of the ITL lie 2.4 to 2.5 % (as sigma) above
#: its median in the median of the 38 lm-arena-chat runs at batch 8 and 16 of ML.ENERGY v3
#: (github.com/ml-energy/leaderboard, commit 0cd52da); half of them lie between 1.5 and 4.3 %.
#: Steps that carry prompts are longer still, and those the plant makes itself.
JITTER_SIGMA = 0.025


def latency_bin(seconds: float) -> int:
    """Return the bin of a latency above 0."""
    return _floor(_log(seconds) * _BINS_PER_LOG)


class LatencyHistogram:
    """Weights (tokens, requests) by latency; ``jitter_sigma`` spreads each value log-normally.

    The spread is applied when the histogram is asked, so it costs nothing while it fills and
    needs no random numbers. A quantile is right within a bin's width.
    """

    def __init__(self, jitter_sigma: float = 0.0) -> None:
        self._kernel = _kernel(jitter_sigma)
        self._weights: dict[int, float] = {}

    @property
    def total(self) -> float:
        """Weight of everything."""
        return sum(self._weights.values())

    def add(self, seconds: float, weight: float = 1.0) -> None:
        """Count ``weight`` at a latency above 0."""
        self.merge({latency_bin(seconds): weight})

    def merge(self, weights: Mapping[int, float]) -> None:
        """Count weights by bin."""
        mine = self._weights
        for index, weight in weights.items():
            mine[index] = mine.get(index, 0.0) + weight

    def merged(self, other: LatencyHistogram) -> LatencyHistogram:
        """Return the sum of this one and another, with this one's jitter."""
        both = LatencyHistogram()
        both._kernel = self._kernel
        both.merge(self._weights)
        both.merge(other._weights)
        return both

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """Return what was added after ``earlier``, a copy of this histogram at that time."""
        gained = LatencyHistogram()
        gained._kernel = self._kernel
        before = earlier._weights
        gained.merge({i: w - before.get(i, 0.0) for i, w in self._weights.items()})
        return gained

    def quantile(self, q: float) -> float | None:
        """Return the latency in seconds that a share ``q`` does not exceed; None when empty."""
        return _quantile(self._weights, q, self._kernel)

    def share_above(self, seconds: float) -> float:
        """Share of the weight above a latency; 0 when empty."""
        total = self.total
        if total <= 0:
            return 0.0
        position = math.log(seconds) * _BINS_PER_LOG
        index = math.floor(position)
        above = 0.0
        for k, weight in _spread(self._weights, self._kernel).items():
            if k > index:
                above += weight
            elif k == index:
                above += weight * (index + 1 - position)
        return above / total


class RecentLatencies:
    """Latencies of about the last ``slots`` x ``slot_s`` seconds, and of all time.

    ``now`` takes weights by bin directly; ``roll`` closes it when its time is over.
    """

    def __init__(self, slot_s: float = 1.0, slots: int = 8, jitter_sigma: float = 0.0) -> None:
        self.now: defaultdict[int, float] = defaultdict(float)
        self._slot_s = slot_s
        self._ring: deque[Mapping[int, float]] = deque([{}] * slots)
        self._until_s = slot_s
        self._recent: dict[int, float] = {}
        self._jitter_sigma = jitter_sigma
        self._kernel = _kernel(jitter_sigma)
        self._all = LatencyHistogram(jitter_sigma)
        self._found: dict[float, float | None] = {}

    def add(self, seconds: float, weight: float = 1.0) -> None:
        """Count a latency; below 1 us it counts as that."""
        self.now[latency_bin(seconds if seconds > 1e-6 else 1e-6)] += weight  # noqa: FURB136 - quicker

    def roll(self, now_s: float) -> None:
        """Close the slot whose time is over; called at least once a slot."""
        if now_s < self._until_s:
            return
        self._until_s = now_s - now_s % self._slot_s + self._slot_s
        self._found.clear()
        closed, self.now = self.now, defaultdict(float)
        recent = self._recent
        for index, weight in closed.items():
            recent[index] = recent.get(index, 0.0) + weight
        self._all.merge(closed)
        self._ring.append(closed)
        for index, weight in self._ring.popleft().items():
            left = recent[index] - weight
            if left > 1e-9 * weight:
                recent[index] = left
            else:
                del recent[index]

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the recent latencies, None where there are none.

        It is found once a slot: the slot that is filling changes it little.
        """
        found = self._found.get(q)
        if found is None:
            found = self._found[q] = self._quantile(q)
        return found

    def _quantile(self, q: float) -> float | None:
        weights = self._recent
        if self.now:
            weights = dict(weights)
            for index, weight in self.now.items():
                weights[index] = weights.get(index, 0.0) + weight
        return _quantile(weights, q, self._kernel)

    def histogram(self) -> LatencyHistogram:
        """Return a copy of everything so far."""
        copy = LatencyHistogram(self._jitter_sigma).merged(self._all)
        copy.merge(self.now)
        return copy


def _quantile(weights: Mapping[int, float], q: float, kernel: tuple[float, ...]) -> float | None:
    """Return the quantile in seconds of weights by bin, from the top: high ones are asked for."""
    if not weights:
        return None
    beyond = (1 - q) * sum(weights.values())
    falling = sorted(weights, reverse=True)
    index, share = _walk(weights, falling, beyond)
    if len(kernel) > 1:
        # What lies further down than this cannot be spread up to where the quantile is.
        lowest = index - len(kernel)
        top = {k: weight for k, weight in weights.items() if k >= lowest}
        spread = _spread(top, kernel)
        index, share = _walk(spread, sorted(spread, reverse=True), beyond)
    return math.exp((index + 1 - share) / _BINS_PER_LOG)


def _walk(weights: Mapping[int, float], falling: list[int], beyond: float) -> tuple[int, float]:
    """Return the bin, and the share of it from its upper end, above which ``beyond`` lies."""
    for index in falling:
        weight = weights[index]
        if weight >= beyond:
            return index, beyond / weight if weight > 0 else 0.0
        beyond -= weight
    return falling[-1], 1.0


def _spread(weights: Mapping[int, float], kernel: tuple[float, ...]) -> dict[int, float]:
    half = len(kernel) // 2
    spread: defaultdict[int, float] = defaultdict(float)
    for index, weight in weights.items():
        for k, share in enumerate(kernel, start=index - half):
            spread[k] += weight * share
    return spread


def _kernel(sigma: float) -> tuple[float, ...]:
    """Shares by bin of a log-normal about one value, out to three sigma; odd in number."""
    if sigma <= 0:
        return (1.0,)
    half = math.ceil(3 * sigma * _BINS_PER_LOG)
    raw = [math.exp(-(((k / _BINS_PER_LOG) / sigma) ** 2) / 2) for k in range(-half, half + 1)]
    return tuple(share / sum(raw) for share in raw)
