"""How much an engine should be able to serve, from what arrives and what waits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample

ARRIVALS_TAU_S = 30.0
SIZE_TAU_S = 300.0
RELEASE_TAU_S = 10.0


class DemandEstimator:
    """Output tokens/s that an engine's clients ask for.

    Arrivals (finished + running + waiting, differenced) times the mean output of a request,
    but no less than what is served now; plus what admits the standing queue within the TTFT
    objective: ``n`` waiting requests start once about ``n`` requests' worth of tokens is out.
    It rises at once and falls slowly. With a queue but no request finished yet the size of a
    request is unknown and the estimate is infinite: everything that the budget allows.
    """

    def __init__(self, ttft_slo_s: float, *, margin_ratio: float = 0.25) -> None:
        self.ttft_slo_s = ttft_slo_s
        self._margin = 1 + margin_ratio
        self._before: EngineSample | None = None
        self._arrivals_per_s: float | None = None
        self._served_per_s: float | None = None
        self._tokens = 0.0
        self._requests = 0.0
        self._held_per_s = 0.0
        self.tokens_out_per_s = 0.0

    @property
    def tokens_out_per_request(self) -> float | None:
        """Mean output of a request; None before the first has finished."""
        return self._tokens / self._requests if self._requests >= 0.5 else None

    def update(self, sample: EngineSample, dt_s: float, *, interactive_only: bool = False) -> float:
        """Take one sample, ``dt_s`` after the last; returns the demand in output tokens/s.

        ``interactive_only`` leaves out what may wait: a plan has granted that its place, and a
        margin on it would cost power for nothing.
        """
        before, self._before = self._before, sample
        if before is not None and dt_s > 0 and not _restarted(before, sample):
            self._learn(before, sample, dt_s, interactive_only=interactive_only)
        elif sample.requests_finished_total > 0:
            self._tokens = sample.tokens_out_total
            self._requests = float(sample.requests_finished_total)
        needed_per_s = self._needed(sample)
        decay = math.exp(-max(dt_s, 0.0) / RELEASE_TAU_S)
        kept_per_s = self._held_per_s * decay if math.isfinite(self._held_per_s) else 0.0
        self._held_per_s = max(needed_per_s, kept_per_s)
        return self._held_per_s

    def _learn(
        self, before: EngineSample, sample: EngineSample, dt_s: float, *, interactive_only: bool
    ) -> None:
        tokens = sample.tokens_out_total - before.tokens_out_total
        finished = sample.requests_finished_total - before.requests_finished_total
        ratio = 1.0
        inside = sample.requests_waiting - before.requests_waiting
        inside += sample.requests_running - before.requests_running
        if interactive_only:
            ratio = _interactive_ratio(before)
            inside -= sample.requests_running_deferrable - before.requests_running_deferrable
        # Single ticks may come out below 0, for finished requests do not tell their kind.
        arrived = ratio * finished + inside
        self.tokens_out_per_s = tokens / dt_s
        self._arrivals_per_s = _blend(self._arrivals_per_s, arrived / dt_s, dt_s)
        self._served_per_s = _blend(self._served_per_s, ratio * self.tokens_out_per_s, dt_s)
        keep = math.exp(-dt_s / SIZE_TAU_S)
        self._tokens = self._tokens * keep + tokens
        self._requests = self._requests * keep + finished

    def _needed(self, sample: EngineSample) -> float:
        size = self.tokens_out_per_request
        if size is None and sample.requests_waiting > 0:
            return math.inf
        steady_per_s = max((self._arrivals_per_s or 0.0) * (size or 0.0), self._served_per_s or 0.0)
        queue_per_s = sample.requests_waiting * (size or 0.0) / self.ttft_slo_s
        return steady_per_s * self._margin + queue_per_s


def _interactive_ratio(sample: EngineSample) -> float:
    running = sample.requests_running
    return 1 - sample.requests_running_deferrable / running if running > 0 else 1.0


def _restarted(before: EngineSample, sample: EngineSample) -> bool:
    return (
        sample.tokens_out_total < before.tokens_out_total
        or sample.requests_finished_total < before.requests_finished_total
    )


def _blend(before: float | None, value: float, dt_s: float) -> float:
    if before is None:
        return value
    weight = 1 - math.exp(-dt_s / ARRIVALS_TAU_S)
    return before + weight * (value - before)
