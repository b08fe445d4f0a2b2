"""Work inside the site: what waits until when, what is late; one slot served after another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Served:
    """A slot's tokens: all that were served, and those that became late in it."""

    tokens: float
    late_at_once: float
    late_waiting: float


class Ledger:
    """Tokens that wait, by the last slot that they may be served in, earliest first.

    What must be served in a slot is what cannot wait, what is late, and what is due in it: nodes
    take work in its last slot like work that cannot wait. The rest is served up to the grant.
    ``served`` are the tokens of each slot, NaN of those that have not been served.
    """

    def __init__(self, count: int) -> None:
        self.served = [math.nan] * count
        self._due = [0.0] * count
        self._first = count
        self._last = -1
        self.waiting = 0.0
        self.late = 0.0

    def arrive(self, tokens: float, last: int) -> None:
        """Add work that may be served up to the end of slot ``last``."""
        if tokens <= 0:
            return
        last = min(last, len(self._due) - 1)
        self._due[last] += tokens
        self.waiting += tokens
        self._first = min(self._first, last)
        self._last = max(self._last, last)

    def dues(self) -> Iterator[tuple[int, float]]:
        """Slot and tokens of everything that waits in time."""
        for slot in range(self._first, self._last + 1):
            if self._due[slot] > NOTHING:
                yield slot, self._due[slot]

    def must(self, slot: int) -> float:
        """Tokens that are late, or due in ``slot``."""
        return self.late + self._due[slot]

    def serve(self, slot: int, at_once: float, grant: float, room: float) -> Served:
        """Serve a slot; all amounts are tokens.

        Args:
            slot: its number; no work that is due earlier waits any more.
            at_once: what arrives and cannot wait.
            grant: what the site is to serve in all, where that is more than what it must.
            room: the most that it can serve.
        """
        due = self._take(self._due[slot], through=slot)
        served_late = min(self.late, room)
        served_at_once = min(at_once, room - served_late)
        served_due = min(due, room - served_late - served_at_once)
        must = served_late + served_at_once + served_due
        extra = self._take(max(0.0, min(grant, room) - must), through=len(self._due) - 1)
        late_at_once, late_waiting = at_once - served_at_once, due - served_due
        self.late += late_at_once + late_waiting - served_late
        self.served[slot] = must + extra
        return Served(must + extra, late_at_once, late_waiting)

    def _take(self, tokens: float, through: int) -> float:
        left = tokens
        until = min(through, self._last)
        while left > 0 and self._first <= until:
            taken = min(left, self._due[self._first])
            self._due[self._first] -= taken
            left -= taken
            if self._due[self._first] > 0:
                break
            self._first += 1
        self.waiting = max(0.0, self.waiting - (tokens - left))
        return tokens - left
