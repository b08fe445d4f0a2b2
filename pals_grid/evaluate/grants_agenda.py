"""Simulated time: what is to happen, and when."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

_Event: TypeAlias = "tuple[float, int, Callable[[], None]]"


class Agenda:
    """Lets things happen in the order of their times, and else as they were put in."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[_Event] = []
        self._order = 0

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let something happen in ``delay_s``."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._order, act))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due by ``end_s``."""
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._queue)
            act()
        self.now_s = end_s
