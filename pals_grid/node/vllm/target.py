"""The target that holds for a step: the agent's while its lease runs, else none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.node.vllm.layout import MAX_LEASE_S, BatchMode

if TYPE_CHECKING:
    from pals_grid.node.vllm.layout import Control


class Target(NamedTuple):
    """At most ``max_num_seqs`` requests in the batch; generation 0 is vLLM's own limit."""

    generation: int
    max_num_seqs: int
    mode: BatchMode


class LeasedTarget:
    """Follows the control record; counts how often a lease ran out under a target."""

    def __init__(self) -> None:
        self._under_lease = False
        self.lapses = 0

    def target(self, control: Control | None, own_max_num_seqs: int, now_s: float) -> Target:
        """Return what holds now, clamped to 1 and vLLM's own limit.

        A deadline further away than any lease is of another clock, and does not count.
        """
        free = Target(0, own_max_num_seqs, BatchMode.DRAIN)
        if control is None or control.max_num_seqs == 0:
            self._under_lease = False
            return free
        left_s = control.deadline_s - now_s
        if not (math.isfinite(left_s) and 0 < left_s <= MAX_LEASE_S):
            self.lapses += self._under_lease
            self._under_lease = False
            return free
        self._under_lease = True
        wanted = min(max(control.max_num_seqs, 1), own_max_num_seqs)
        return Target(control.generation, wanted, BatchMode(control.mode))
