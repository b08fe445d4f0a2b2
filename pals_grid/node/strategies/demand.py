"""What one engine has to be able to serve: its load, its queue, and what it was granted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.node.deferral import DeferrableQuota
from pals_grid.node.strategies.choice import NOTHING, Backlog
from pals_grid.node.strategies.forecast import LoadForecast
from pals_grid.node.strategies.options import Target

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample
    from pals_grid.node.strategies.options import ControlOptions

SERVED_TAU_S = 5.0
DRAIN_S = 10.0
"""Requests too many inside are worked off in about this time."""
PATIENCE_S, SCARCE_PATIENCE_S = 15.0, 0.8
"""A queue that stands for longer asks for all there is; sooner where there is not enough."""
IN_TIME_RATIO = 0.5
"""Part of the TTFT objective that prompts may wait for before they count as late."""
SATURATED_RATIO = 0.95
DEFERRED_MARGIN = 1.1


class Demand:
    """Of one engine, in output tokens/s.

    ``mean_per_s`` is what is expected on average and ``ready_per_s`` what to be ready for;
    ``backlog`` adds to that for each request too many inside. ``target_per_s`` is the throughput
    asked for by the envelope alone; None where the load counts. ``served_per_s`` is measured.
    """

    def __init__(self, options: ControlOptions, input_per_output: float) -> None:
        self._options = options
        self._input_per_output = input_per_output
        self._forecast = LoadForecast(
            adaptive=options.forecast,
            surges=options.feed_forward,
            margin_ratio=options.margin_ratio,
        )
        self._quota = DeferrableQuota()
        self._granted_per_s: float | None = None
        self._late = 0.0
        self._queue_s = 0.0
        self.engine: EngineSample | None = None
        self.backlog = NOTHING
        self.mean_per_s = 0.0
        self.ready_per_s = 0.0
        self.served_per_s = 0.0
        self.target_per_s: float | None = None
        self._surges = False

    @property
    def tokens_out_per_s(self) -> float:
        """Output tokens/s of the last tick."""
        return self._forecast.tokens_out_per_s

    @property
    def wanted_per_s(self) -> float:
        """What to be able to serve; infinite for all there is."""
        return self.ready_per_s if self.target_per_s is None else self.target_per_s

    @property
    def tokens_deferred(self) -> float:
        """Estimated output tokens of the requests that may wait and do."""
        assert self.engine is not None
        return self.engine.requests_deferred * (self._forecast.tokens_out_per_request or 0.0)

    def observe(self, engine: EngineSample, dt_s: float, *, planned: bool, scarce: bool) -> None:
        """Take a sample, ``dt_s`` after the last.

        ``planned``: a plan grants requests that may wait their place. ``scarce``: the budget
        would bind at full load.
        """
        self.engine = engine
        load = self._forecast.update(engine, dt_s, interactive_only=planned, scarce=scarce)
        weight = 1 - math.exp(-dt_s / SERVED_TAU_S)
        self.served_per_s += (self._forecast.tokens_out_per_s - self.served_per_s) * weight
        self._quota.observe(engine, self._forecast.tokens_out_per_s, dt_s)
        self.mean_per_s = load.mean_per_s
        if not load.known:
            self.mean_per_s = max(load.mean_per_s, self._forecast.served_per_s)
        self.ready_per_s = max(load.ready_per_s, 0.0 if load.known else self.mean_per_s)
        self._surges = load.surges

    def prepare(
        self, dt_s: float, *, headroom: float, ttft_s: float, tokens_per_s: float, scarce: bool
    ) -> None:
        """Add the queue and jumps to what to be ready for.

        ``headroom`` scales the forecast; prompts that ``tokens_per_s`` does not work off within
        half of the TTFT objective ``ttft_s`` are late.
        """
        engine = self.engine
        assert engine is not None
        self.ready_per_s *= headroom
        self.backlog = NOTHING
        if not self._options.feed_forward:
            return
        size = self._forecast.tokens_out_per_request
        if engine.requests_waiting > 0 and size is None:
            self.ready_per_s = math.inf
        inside = engine.requests_running + engine.requests_waiting
        self.backlog = Backlog(inside, (size or 0.0) / DRAIN_S)
        late = self._late_prompts(engine, IN_TIME_RATIO * ttft_s * tokens_per_s)
        # One long prompt is late for a tick; a limit would rise only after that.
        self.ready_per_s += min(late, self._late) / ttft_s
        self._late = late
        self._queue_s = self._queue_s + dt_s if engine.requests_waiting > 0 else 0.0
        if self._surges or self._queue_s > (SCARCE_PATIENCE_S if scarce else PATIENCE_S):
            self.ready_per_s = math.inf

    def _late_prompts(self, engine: EngineSample, in_time: float) -> float:
        """Prompts that wait for too long, in output tokens of the mix."""
        prompts = engine.prompt_tokens_waiting
        if prompts is None or self._input_per_output <= 0:
            return 0.0
        return max(0.0, prompts / self._input_per_output - in_time)

    def grant(self, granted_per_s: float | None, most_per_s: float) -> None:
        """Take the unit's part of the envelope's target; None without a plan."""
        engine = self.engine
        assert engine is not None
        self._granted_per_s = granted_per_s
        granted = granted_per_s or 0.0
        mode = self._options.target
        self.target_per_s = None
        if mode is Target.ENVELOPE and granted > 0:
            self.target_per_s = min(granted, most_per_s)
            return
        deferrable = engine.requests_deferred + engine.requests_running_deferrable
        if deferrable > 0:
            served = self.served_per_s * DEFERRED_MARGIN
            self.mean_per_s = max(self.mean_per_s, min(granted, served))
        if deferrable > 0 or mode is Target.BOTH:
            self.ready_per_s = max(self.ready_per_s, granted)

    def saturated_target_per_s(self, batch: int) -> float | None:
        """The target, while the engine has more work than its ``batch`` takes in."""
        engine = self.engine
        assert engine is not None
        if self.target_per_s is None:
            return None
        full = engine.requests_waiting > 0 or engine.requests_running >= SATURATED_RATIO * batch
        return self.target_per_s if full else None

    def deferrable_seqs(self, tokens_per_s: float, batch: int) -> int:
        """How many deferrable requests may run at a level that serves ``tokens_per_s``."""
        assert self.engine is not None
        if self._granted_per_s is None:  # without a plan nothing is held back
            return batch
        return self._quota.seqs(self.engine, min(self._granted_per_s, tokens_per_s), batch)
