"""How much deferrable work runs beside the interactive requests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample

MEAN_TAU_S = 30.0
MORE_PER_TICK = 2


class DeferrableQuota:
    """Deferrable sequences that bring the throughput to what the plan grants.

    All running sequences progress alike, so the interactive ones make their share of the
    throughput. Means over 30 s: a tick's tokens swing with the prompts that are in work.
    """

    def __init__(self) -> None:
        self._seen = 0.0
        self._tokens_per_s = 0.0
        self._running = 0.0
        self._interactive = 0.0

    def observe(self, engine: EngineSample, tokens_out_per_s: float, dt_s: float) -> None:
        """Take one sample, ``dt_s`` after the last."""
        weight = 1 - math.exp(-dt_s / MEAN_TAU_S)
        interactive = engine.requests_running - engine.requests_running_deferrable
        self._seen += weight * (1 - self._seen)
        self._tokens_per_s += weight * (tokens_out_per_s - self._tokens_per_s)
        self._running += weight * (engine.requests_running - self._running)
        self._interactive += weight * (interactive - self._interactive)

    def seqs(self, engine: EngineSample, granted_tokens_per_s: float, max_num_seqs: int) -> int:
        """Most deferrable requests to have inside now.

        Two more a tick at most, for many prompts at once hold everyone up, and none more while
        interactive requests wait.
        """
        most = engine.requests_running_deferrable
        if engine.requests_waiting == 0:
            most += MORE_PER_TICK
        return max(0, min(self._wanted(granted_tokens_per_s), most, max_num_seqs))

    def _wanted(self, granted_tokens_per_s: float) -> int:
        if self._running < 1e-6 or self._tokens_per_s <= 0:
            return 1 if granted_tokens_per_s > 0 else 0
        each = self._tokens_per_s / self._running
        # A twentieth of a sequence is noise, not a grant.
        interactive = self._interactive / self._seen
        return math.ceil(granted_tokens_per_s / each - interactive - 0.05)
