"""From values of any length to one mean a slot."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from pals_grid.core.series import KIND_RANK, Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval

_start_at = attrgetter("start_at")


def best_values(observations: Iterable[Observation]) -> list[Observation]:
    """Reduce values to at most one for each moment, cut where a better one begins.

    Measured goes before forecast, modelled and synthetic, then the latest known; a worse value
    fills only what better ones leave open, also where their lengths differ. Ordered by start,
    apart.
    """
    observations = sorted(observations, key=_start_at)
    if all(one.end_at <= other.start_at for one, other in pairwise(observations)):
        return observations
    by_worth = sorted(
        observations, key=lambda item: (KIND_RANK[item.kind], item.known_at), reverse=True
    )
    taken: list[Observation] = []
    for item in by_worth:
        for part in _open_parts(item, taken):
            insort(taken, part, key=_start_at)
    return taken


@dataclass(frozen=True, slots=True)
class SlotCover:
    """What the best values say of one slot: their mean over the seconds that they cover."""

    mean: float | None
    covered_s: float


def slot_means(
    observations: Iterable[Observation], slots: Sequence[Interval]
) -> list[float | None]:
    """Time-weighted mean of the best values in each slot, in the values' unit.

    A slot that is covered in part has the mean of that part; one without any value has None.
    ``slots`` are ordered and apart.
    """
    return [cover.mean for cover in slot_covers(observations, slots)]


def slot_covers(observations: Iterable[Observation], slots: Sequence[Interval]) -> list[SlotCover]:
    """Do as ``slot_means``, and tell how much of each slot is covered."""
    values = best_values(observations)
    covers: list[SlotCover] = []
    first = 0
    for slot in slots:
        while first < len(values) and values[first].end_at <= slot.start_at:
            first += 1
        last = first
        while last < len(values) and values[last].start_at < slot.end_at:
            last += 1
        covers.append(_cover(values[first:last], slot))
    return covers


def _cover(values: Sequence[Observation], slot: Interval) -> SlotCover:
    covered_s = total = 0.0
    for item in values:
        shared = min(item.end_at, slot.end_at) - max(item.start_at, slot.start_at)
        shared_s = shared.total_seconds()
        covered_s += shared_s
        total += shared_s * item.value
    if len(values) == 1:  # to the last digit
        return SlotCover(values[0].value, covered_s)
    return SlotCover(total / covered_s if covered_s > 0 else None, covered_s)


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
