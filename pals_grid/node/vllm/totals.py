"""Counters that go on when what they are read from is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunningTotals:
    """Sums of what several sources counted since each was first seen."""

    def __init__(self, size: int) -> None:
        self._seen: dict[str, tuple[float, ...]] = {}
        self._totals = [0.0] * size

    def update(self, sources: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
        """Take every source that is there, by a name that no other will have; return the sums."""
        for name, counts in sources.items():
            before = self._seen.get(name, counts)
            for index, count in enumerate(counts):
                self._totals[index] += max(0.0, count - before[index])
        self._seen = dict(sources)
        return tuple(self._totals)
