"""How much of the latency objectives is planned with, learned from what requests met with.

An objective is of a request: its time to the first token, its mean time between tokens. The
table's ITL is a mean at a steady batch, so a part of the objective is left free; the part
shrinks and grows with the share of requests that miss. With ``itl_tail`` the objective is held
by the 99th percentile of single tokens as well. Tokens that share a step with a chunk of prefill
make that tail, and full power may hardly shorten it; so the tail moves a bound on the slowdown
against full power instead of the objective that is planned with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample
    from pals_grid.core.site import Slo

PLANNED_TTFT_RATIO = 0.5
"""The table's TTFT is a mean of one admitted at once; half of the objective is kept for waiting."""
MISS_RATIO = 0.004
"""Share of misses that is aimed at; a 99th percentile may have 1 %."""
MISS_TAU_S = 60.0
ENOUGH_REQUESTS = 20.0
FIRST_ITL_RATIO, LEAST_ITL_RATIO, MOST_ITL_RATIO = 0.85, 0.5, 0.95
ITL_DOWN_PER_S, ITL_UP_PER_S = 0.01, 0.001
HEADROOM_UP_PER_S, HEADROOM_DOWN_PER_S, MOST_HEADROOM = 0.03, 0.005, 1.25
FIRST_SLOWDOWN_RATIO, MOST_SLOWDOWN_RATIO = 0.04, 0.5
SLOWDOWN_GAIN_PER_S = 0.012
TAIL_OVER_RATIO, TAIL_UNDER_RATIO = 0.15, 0.06
"""Errors of the tail of the last seconds count up to these ratios of the objective: a tail above it
holds more of the tokens that decide the tail over all."""


class LatencyPlan:
    """Of one engine; ``adaptive`` False: 80 % of the ITL objective, always.

    ``itl`` and ``ttft`` say whether the objectives are held at all, ``itl_tail`` whether by the
    tail of single tokens too, where the engine tells it. ``slowdown_ratio`` is how much longer
    the ITL may be than at full power under the same load, ``max_slowdown_ratio`` its bound.
    """

    def __init__(
        self,
        slo: Slo,
        *,
        adaptive: bool = True,
        itl: bool = True,
        ttft: bool = True,
        itl_tail: bool = False,
        max_slowdown_ratio: float = math.inf,
    ) -> None:
        self._adaptive = adaptive
        self._holds_itl = itl
        self._holds_ttft = ttft
        self._by_tail = itl_tail and adaptive
        self._before: EngineSample | None = None
        self._itl_misses = _Share()
        self._ttft_misses = _Share()
        self._max_slowdown_ratio = max_slowdown_ratio
        self.headroom = 1.0
        self.set_slo(slo)

    def set_slo(self, slo: Slo) -> None:
        """Plan by these objectives, afresh."""
        self._slo = slo
        self._itl_ratio = FIRST_ITL_RATIO
        self.slowdown_ratio = self._max_slowdown_ratio
        if self._by_tail:
            self.slowdown_ratio = min(FIRST_SLOWDOWN_RATIO, self._max_slowdown_ratio)

    @property
    def ttft_s(self) -> float:
        """Highest TTFT of the table to plan with."""
        return PLANNED_TTFT_RATIO * self._slo.ttft_s if self._holds_ttft else math.inf

    @property
    def itl_s(self) -> float:
        """Highest mean ITL to plan with."""
        if not self._holds_itl:
            return math.inf
        return self._itl_ratio * self._slo.itl_s if self._adaptive else self._slo.planned_itl_s

    @property
    def overload_itl_s(self) -> float:
        """Highest mean ITL while not all that arrives can be served.

        A smaller batch serves less then, and every request in the queue misses its TTFT; so no
        more of the objective is left free than a request may miss it by.
        """
        if not self._holds_itl:
            return math.inf
        ratio = MOST_ITL_RATIO if self._adaptive else 1.0
        return ratio * self._slo.itl_s

    def learn(self, sample: EngineSample, dt_s: float) -> None:
        """Take a sample of an engine that works."""
        before, self._before = self._before, sample
        if not self._adaptive or dt_s <= 0 or before is None:
            return
        done = float(max(0, sample.requests_finished_total - before.requests_finished_total))
        itl_misses = max(0, sample.itl_misses_total - before.itl_misses_total)
        if self._itl_misses.add(itl_misses, done, dt_s) > MISS_RATIO:
            self._itl_ratio = max(LEAST_ITL_RATIO, self._itl_ratio - ITL_DOWN_PER_S * dt_s)
        else:
            self._itl_ratio = min(MOST_ITL_RATIO, self._itl_ratio + ITL_UP_PER_S * dt_s)
        ttft_misses = max(0, sample.ttft_misses_total - before.ttft_misses_total)
        if self._ttft_misses.add(ttft_misses, done, dt_s) > MISS_RATIO:
            self.headroom = min(MOST_HEADROOM, self.headroom + HEADROOM_UP_PER_S * dt_s)
        else:
            self.headroom = max(1.0, self.headroom - HEADROOM_DOWN_PER_S * dt_s)
        if self._by_tail and sample.itl_p99_s is not None:
            self._follow_tail(sample.itl_p99_s, dt_s)

    def _follow_tail(self, itl_p99_s: float, dt_s: float) -> None:
        error = 1 - itl_p99_s / self._slo.itl_s
        error = min(TAIL_UNDER_RATIO, max(-TAIL_OVER_RATIO, error))
        moved = SLOWDOWN_GAIN_PER_S * error * dt_s
        most = min(MOST_SLOWDOWN_RATIO, self._max_slowdown_ratio)
        self.slowdown_ratio = min(most, max(0.0, self.slowdown_ratio + moved))


class _Share:
    """Misses over finished requests of about the last minute; 0 while there are too few."""

    def __init__(self) -> None:
        self._misses = 0.0
        self._done = 0.0

    def add(self, misses: float, done: float, dt_s: float) -> float:
        keep = math.exp(-dt_s / MISS_TAU_S)
        self._misses = self._misses * keep + misses
        self._done = self._done * keep + done
        return self._misses / max(self._done, ENOUGH_REQUESTS)
