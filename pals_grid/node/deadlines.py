"""When the next tick is due: a fixed grid on a monotonic clock; late ticks are not piled up."""

from __future__ import annotations


class Deadlines:
    """Deadlines every ``period_s``; the first is the first ``begin``."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_s: float | None = None

    def begin(self, now_s: float) -> tuple[float, int]:
        """Begin a tick; returns how late it is, in seconds, and how many were skipped."""
        if self._due_s is None:
            self._due_s = now_s
        late_s = max(0.0, now_s - self._due_s)
        skipped = int(late_s // self._period_s)
        self._due_s += (skipped + 1) * self._period_s
        return late_s, skipped

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next deadline; 0 when it is past."""
        return 0.0 if self._due_s is None else max(0.0, self._due_s - now_s)
