"""Where a unit was told to stand: what the next tick compares and keeps."""

from __future__ import annotations

from dataclasses import dataclass

HOLD_TICKS = 3
"""So long a rise is held before the limit may fall again."""
SETTLED_TICKS = 2
"""Ticks after a move that still show the way there."""


@dataclass(slots=True)
class Standing:
    """The last command of one unit, None and 0 before the first one.

    ``index`` is its level, ``limit_w`` per GPU. ``binds`` says that the budget holds the limit
    down. ``settled_ticks`` counts ticks since the engine was moved, ``risen_ticks`` since a rise.
    """

    index: int | None = None
    limit_w: float | None = None
    batch: int = 0
    binds: bool = False
    settled_ticks: int = 0
    risen_ticks: int = HOLD_TICKS

    @property
    def settled(self) -> bool:
        """Whether what is measured belongs to what was commanded."""
        return self.settled_ticks > SETTLED_TICKS

    def move(self, index: int, limit_w: float, batch: int, *, clock_moved: bool) -> None:
        """Take the command that is given now; a limit that moves by 1 % at most does not count."""
        moved = self.limit_w is None or abs(limit_w - self.limit_w) > 0.01 * limit_w
        if moved or clock_moved or batch != self.batch:
            self.settled_ticks = 0
        self.index, self.limit_w, self.batch = index, limit_w, batch
