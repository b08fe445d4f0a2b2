"""The most requests that an engine takes in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.node.strategies.forecast import restarted

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample

PINNED_TICKS = 6
"""Requests that run while others wait are the batch if their number stands still for so long."""


class BatchCap:
    """Of one engine; ``most`` is infinite while nothing is known.

    Where the batch can be set, the engine's answer tells. Where it refuses and does not tell its
    own, the number that runs while a queue stands does, until more run or it starts again.
    """

    def __init__(self) -> None:
        self.most = math.inf
        self._told: int | None = None
        self._refused = False
        self._before: EngineSample | None = None
        self._ticks = 0

    def hold(self, max_num_seqs: int | None, *, refused: bool) -> None:
        """Take what the engine lets be set: at most ``max_num_seqs``, None while unknown."""
        if (max_num_seqs, refused) != (self._told, self._refused):
            self._told, self._refused = max_num_seqs, refused
            self.most = math.inf if max_num_seqs is None else float(max_num_seqs)

    def observe(self, engine: EngineSample) -> None:
        """Take a sample."""
        before, self._before = self._before, engine
        if before is None or not self._refused or self._told is not None:
            return
        running = engine.requests_running
        if running > self.most or restarted(before, engine):
            self.most = math.inf
        pinned = engine.requests_waiting > 0 and 0 < running == before.requests_running
        self._ticks = self._ticks + 1 if pinned else 0
        if self._ticks >= PINNED_TICKS:
            self.most = float(running)
