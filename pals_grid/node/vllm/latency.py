"""Latencies of every iteration, from the front end to the agent, as histograms that only rise.

Bins are a factor of 1.12 wide from 1 ms to about 290 s, so a quantile is right to 6 %.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from pals_grid.node.vllm.layout import BIN_RATIO, BINS, LOWEST_BIN_S, LatencyTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.node.vllm.channel import FrontFile

log = logging.getLogger("vllm.pals_grid")

WINDOW_S = 10.0
TTFT, GAP, REQUEST = 0, BINS, 2 * BINS
_PER_BIN = 1 / math.log(BIN_RATIO)


def bin_of(value_s: float) -> int:
    """Return the bin of a latency; the first and the last take all beyond."""
    if value_s <= LOWEST_BIN_S:
        return 0
    return min(BINS - 1, 1 + int(math.log(value_s / LOWEST_BIN_S) * _PER_BIN))


def bin_top_s(index: int) -> float:
    """Return the upper bound of a bin."""
    return LOWEST_BIN_S * BIN_RATIO**index


class LatencyMeter:
    """The front end's side: adds up, and writes after each iteration."""

    def __init__(self, channel: FrontFile) -> None:
        self._channel = channel
        self._bins = array("Q", bytes(3 * BINS * 8))
        self._prefills = 0
        self._prefill_s = 0.0
        self._faulty = False
        self._tell()  # so that the agent counts from the first one on

    def record(self, stats: Any) -> None:  # noqa: ANN401 - vLLM's IterationStats
        """Take an iteration; a fault is logged once and stops the recording, never serving."""
        if self._faulty:
            return
        try:
            self._add(stats)
        except Exception:
            self._faulty = True
            log.exception("PALS Grid: latencies are not told any more")

    def _add(self, stats: Any) -> None:  # noqa: ANN401
        self._count(TTFT, stats.time_to_first_tokens_iter)
        self._count(GAP, stats.inter_token_latencies_iter)
        for finished in stats.finished_requests:
            self._prefills += 1
            self._prefill_s += max(0.0, finished.prefill_time)
            if finished.num_generation_tokens > 1:
                self._count(REQUEST, (finished.mean_time_per_output_token,))
        self._tell()

    def _tell(self) -> None:
        totals = LatencyTotals(
            time.monotonic(), self._prefills, self._prefill_s, self._bins.tobytes()
        )
        self._channel.latency.write(totals)

    def _count(self, first: int, values_s: Iterable[float]) -> None:
        for value_s in values_s:
            self._bins[first + bin_of(value_s)] += 1


class LatencyView:
    """The agent's side: misses since the start, quantiles of the last ten seconds.

    Files of front ends that ended keep their counts, so totals never fall.
    """

    def __init__(self) -> None:
        self._gone = array("Q", bytes(3 * BINS * 8))
        self._seen: dict[str, LatencyTotals] = {}
        self._prefills = 0
        self._prefill_s = 0.0
        self._history: deque[tuple[float, array[int]]] = deque()

    def update(self, fronts: dict[str, LatencyTotals], now_s: float) -> None:
        """Take what every front end that is there says, by name."""
        for name in self._seen.keys() - fronts.keys():
            self._retire(self._seen.pop(name))
        self._seen.update(fronts)
        whole = array("Q", self._gone)
        for totals in self._seen.values():
            _add_to(whole, totals)
        self._history.append((now_s, whole))
        while len(self._history) > 2 and self._history[1][0] <= now_s - WINDOW_S:
            self._history.popleft()

    @property
    def prefills(self) -> tuple[int, float]:
        """Requests that finished, and the sum of their times from admission to first token."""
        seen = self._seen.values()
        return (
            self._prefills + sum(totals.prefills_total for totals in seen),
            self._prefill_s + sum(totals.prefill_s_total for totals in seen),
        )

    def misses(self, kind: int, bound_s: float) -> int:
        """Count those above ``bound_s`` since the start; the bound's own bin counts in part."""
        if not self._history:
            return 0
        counts = self._history[-1][1][kind : kind + BINS]
        edge = bin_of(bound_s)
        low_s, high_s = (bin_top_s(edge - 1) if edge else 0.0), bin_top_s(edge)
        inside = min(1.0, max(0.0, (high_s - bound_s) / (high_s - low_s)))
        return int(sum(counts[edge + 1 :]) + inside * counts[edge])

    def quantile_s(self, kind: int, ratio: float) -> float | None:
        """Seconds that ``ratio`` of the last ten seconds' did not exceed; None without any."""
        if len(self._history) < 2:
            return None
        first, last = self._history[0][1], self._history[-1][1]
        return _quantile_s([last[kind + i] - first[kind + i] for i in range(BINS)], ratio)

    def _retire(self, totals: LatencyTotals) -> None:
        _add_to(self._gone, totals)
        self._prefills += totals.prefills_total
        self._prefill_s += totals.prefill_s_total


def _add_to(whole: array[int], totals: LatencyTotals) -> None:
    counts = array("Q", totals.bins)
    for index, count in enumerate(counts):
        if count:
            whole[index] += count


def _quantile_s(counts: Sequence[int], ratio: float) -> float | None:
    whole = sum(counts)
    if whole == 0:
        return None
    for index, below in enumerate(itertools.accumulate(counts)):
        if below >= ratio * whole and counts[index]:
            low_s = bin_top_s(index - 1) if index else 0.0
            part = 1 - (below - ratio * whole) / counts[index]
            return low_s + (bin_top_s(index) - low_s) * part
    return bin_top_s(BINS - 1)
