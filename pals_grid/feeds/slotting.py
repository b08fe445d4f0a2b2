"""From values of any length to one mean a slot."""

from __future__ import annotations

from bisect import bisect_right, insort
from operator import attrgetter
from typing import TYPE_CHECKING

from pals_grid.core.series import Observation, ValueKind, mean_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval

_RANK = {ValueKind.MEASURED: 2, ValueKind.FORECAST: 1, ValueKind.SYNTHETIC: 0}
_start_at = attrgetter("start_at")


def best_values(observations: Iterable[Observation]) -> list[Observation]:
    """Reduce values to at most one for each moment, cut where a better one begins.

    Measured goes before forecast before synthetic, then the latest known; a worse value fills
    only what better ones leave open, also where their lengths differ. Ordered by start, apart.
    """
    by_worth = sorted(
        observations, key=lambda item: (_RANK[item.kind], item.known_at), reverse=True
    )
    taken: list[Observation] = []
    for item in by_worth:
        for part in _open_parts(item, taken):
            insort(taken, part, key=_start_at)
    return taken


def slot_means(
    observations: Iterable[Observation], slots: Sequence[Interval]
) -> list[float | None]:
    """Time-weighted mean of the best values in each slot, in the values' unit.

    A slot that is covered in part has the mean of that part; one without any value has None.
    ``slots`` are ordered and apart.
    """
    values = best_values(observations)
    means: list[float | None] = []
    first = 0
    for slot in slots:
        while first < len(values) and values[first].end_at <= slot.start_at:
            first += 1
        last = first
        while last < len(values) and values[last].start_at < slot.end_at:
            last += 1
        means.append(mean_over(values[first:last], slot))
    return means


def _open_parts(item: Observation, taken: list[Observation]) -> list[Observation]:
    """Cut out of ``item`` what ``taken``, ordered and apart, covers."""
    parts: list[Observation] = []
    cursor = item.start_at
    index = max(0, bisect_right(taken, cursor, key=_start_at) - 1)
    while index < len(taken) and taken[index].start_at < item.end_at:
        if taken[index].start_at > cursor:
            parts.append(_cut(item, cursor, taken[index].start_at))
        cursor = max(cursor, taken[index].end_at)
        index += 1
    if cursor < item.end_at:
        parts.append(_cut(item, cursor, item.end_at))
    return parts


def _cut(item: Observation, start_at: datetime, end_at: datetime) -> Observation:
    return Observation(start_at, end_at, item.value, item.unit, item.kind, item.known_at)
