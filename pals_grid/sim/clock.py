"""A clock that goes only when told."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import require_utc

if TYPE_CHECKING:
    from datetime import datetime


class SimClock:
    """Wall and monotonic time, moved by ``advance``."""

    def __init__(self, start_at: datetime, monotonic_s: float = 0.0) -> None:
        require_utc("start_at", start_at)
        self._start_at = start_at
        self._origin_s = monotonic_s
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Simulated UTC time."""
        return self._start_at + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        """Simulated seconds since some fixed instant."""
        return self._origin_s + self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if not 0 <= seconds < 1e9:
            raise InvalidValue("seconds", seconds, "must be from 0 to 1e9")
        self._elapsed_s += seconds
