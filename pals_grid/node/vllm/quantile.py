"""Quantiles of the last seconds from Prometheus histograms, which count since the start."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW_S = 10.0


class BucketWindow:
    """Scrapes of one histogram's cumulative buckets, by upper bound in seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._scrapes: deque[tuple[float, dict[float, float]]] = deque()

    def add(self, at_s: float, buckets: Mapping[float, float]) -> None:
        """Take a scrape. One that counts less than the last is of an engine that restarted."""
        if self._scrapes:
            before = self._scrapes[-1][1]
            if any(buckets.get(edge, 0.0) < count for edge, count in before.items()):
                self._scrapes.clear()
        self._scrapes.append((at_s, dict(buckets)))
        while len(self._scrapes) > 2 and self._scrapes[1][0] <= at_s - self._window_s:
            self._scrapes.popleft()

    def quantile(self, ratio: float) -> float | None:
        """Seconds that ``ratio`` of the window's observations did not exceed; None without any.

        Straight between a bucket's bounds, as Prometheus' histogram_quantile; those above the
        last finite bound count as that bound, which is then too low.
        """
        if len(self._scrapes) < 2:
            return None
        first, last = self._scrapes[0][1], self._scrapes[-1][1]
        counts = sorted((edge, last[edge] - first.get(edge, 0.0)) for edge in last)
        whole = counts[-1][1] if counts else 0.0
        if whole <= 0:
            return None
        below_s, below = 0.0, 0.0
        for edge_s, count in counts:
            if count >= ratio * whole:
                if math.isinf(edge_s):
                    return below_s
                return below_s + (edge_s - below_s) * (ratio * whole - below) / (count - below)
            below_s, below = edge_s, count
        return below_s
