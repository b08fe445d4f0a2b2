"""One value for each slot: the primary feed's, else the first of its chain that has one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.core.fallback import (
    Absence,
    FromConstant,
    FromFeed,
    FromLastWeek,
    SlotSource,
    SourceKind,
    primary_of,
)
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind, coverage_ratio, mean_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, tzinfo

    from pals_grid.core.fallback import (
        Fallback,
    )
    from pals_grid.core.feed import Feed, FeedHealth

WHOLE_RATIO = 0.99
"""A slot of an earlier week counts as known when this much of it is."""
_WEEK = timedelta(days=7)
_start_at = attrgetter("start_at")

History: TypeAlias = Callable[[Interval], Sequence[Observation]]
"""Measured values of the primary feed over an interval of the past, apart and in order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One feed as slots see it: its best values that can be used, and those that cannot.

    Each is apart and in order; ``unusable`` are prices that no tariff converts, ``modelled`` are
    forecasts of our own model of this feed.
    """

    feed: Feed
    health: FeedHealth
    values: Sequence[Observation]
    unusable: Sequence[Observation] = ()
    modelled: Sequence[Observation] = ()

    @property
    def is_synthetic(self) -> bool:
        """Whether it has values, and all are made up."""
        return bool(self.values) and all(v.kind is ValueKind.SYNTHETIC for v in self.values)

    def absence(self, slot: Interval, now: datetime) -> tuple[Absence, datetime | None]:
        """Why it has no value for a slot, and since when it has been silent."""
        if _inside(self.unusable, slot):
            return Absence.NOT_CONVERTIBLE, None
        last_at = self.health.last_success_at
        if last_at is None:
            return Absence.NEVER_ANSWERED, None
        is_late = (now - last_at).total_seconds() > self.feed.stale_after_s
        if self.health.consecutive_failures or is_late:
            return Absence.SILENT, last_at
        return Absence.NOT_PUBLISHED, None


@dataclass(frozen=True, slots=True)
class Chain:
    """Who is asked first, and what stands in for it, in order."""

    primary: Candidate
    entries: tuple[Fallback, ...]
    feeds: Mapping[str, Candidate]

    @property
    def asked(self) -> list[Candidate]:
        """Every feed that slots may come from, the primary first."""
        named = [item.feed for item in self.entries if isinstance(item, FromFeed)]
        return [self.primary, *(self.feeds[name] for name in named if name in self.feeds)]


def chain_of(candidates: Sequence[Candidate]) -> Chain | None:
    """Who is asked of the feeds of one quantity, in the order of their creation.

    The first feed with a chain of its own that stands in no other's is the primary, and nothing
    but its chain stands in for it. Where no feed has a chain, feeds with real values come before
    those whose values are all synthetic, then the older before the newer; the first is the
    primary and the others stand in for it.
    """
    if not candidates:
        return None
    feeds = {item.feed.name: item for item in candidates}
    primary = primary_of([item.feed for item in candidates])
    if primary is not None:
        return Chain(feeds[primary.name], primary.fallbacks, feeds)
    first, *rest = sorted(candidates, key=lambda item: (item.is_synthetic, item.feed.id))
    return Chain(first, tuple(FromFeed(item.feed.name) for item in rest), feeds)


@dataclass(frozen=True, slots=True)
class Sought:
    """What a resolution is for: the slots, in order and apart, and what it needs to know."""

    slots: Sequence[Interval]
    now: datetime
    zone: tzinfo
    unit: str
    history: History


def resolve_slots(chain: Chain, sought: Sought) -> list[SlotSource | None]:
    """Find a value for each slot; None where neither the primary nor its chain has one.

    Our model of the primary comes before the first entry that is no feed with real values.
    """
    primary = chain.primary
    found = [_from_feed(primary, slot, SourceKind.PRIMARY) for slot in sought.slots]
    for entry in _with_model(chain):
        holes = [i for i, source in enumerate(found) if source is None]
        if not holes:
            break
        for i, source in _stand_in(entry, chain, sought, holes):
            absence, since_at = primary.absence(sought.slots[i], sought.now)
            found[i] = replace(
                source,
                primary=primary.feed.name,
                absence=absence,
                silent_since_at=since_at,
            )
    return [
        source if source is None or source.primary else replace(source, primary=source.feed)
        for source in found
    ]


class _FromModel:
    """Our own model's forecast of the primary."""


def _with_model(chain: Chain) -> Iterator[Fallback | _FromModel]:
    def is_real(entry: Fallback) -> bool:
        if not isinstance(entry, FromFeed):
            return False
        return entry.feed not in chain.feeds or not chain.feeds[entry.feed].is_synthetic

    first = list(takewhile(is_real, chain.entries))
    yield from first
    yield _FromModel()
    yield from chain.entries[len(first) :]


def _stand_in(
    entry: Fallback | _FromModel, chain: Chain, sought: Sought, holes: Sequence[int]
) -> Iterable[tuple[int, SlotSource]]:
    """Fill of ``holes`` what one entry of the chain can."""
    if isinstance(entry, FromLastWeek):
        yield from _from_last_week(entry.weeks, chain.primary, sought, holes)
        return
    for i in holes:
        source = None
        if isinstance(entry, _FromModel):
            primary = chain.primary
            values = _inside(primary.modelled, sought.slots[i])
            source = _mean_of(primary.feed, values, sought.slots[i], SourceKind.MODEL)
        elif isinstance(entry, FromConstant):
            feed = chain.primary.feed
            source = SlotSource(SourceKind.CONSTANT, feed.id, feed.name, entry.value, sought.unit)
        elif entry.feed in chain.feeds:
            source = _from_feed(chain.feeds[entry.feed], sought.slots[i], SourceKind.FEED)
        if source is not None:
            yield i, source


def _from_feed(candidate: Candidate, slot: Interval, kind: SourceKind) -> SlotSource | None:
    """Mean of a feed's values in a slot; of the part that they cover, where that is not all."""
    return _mean_of(candidate.feed, _inside(candidate.values, slot), slot, kind)


def _mean_of(
    feed: Feed, inside: Sequence[Observation], slot: Interval, kind: SourceKind
) -> SlotSource | None:
    values = _of_one_unit(inside)
    mean = mean_over(values, slot)
    if mean is None:
        return None
    return SlotSource(kind, feed.id, feed.name, mean, values[0].unit, _weakest(values))


def _from_last_week(
    weeks: int, primary: Candidate, sought: Sought, holes: Sequence[int]
) -> Iterable[tuple[int, SlotSource]]:
    left = list(holes)
    for back in range(1, weeks + 1):
        if not left:
            return
        at = {i: weeks_before(sought.slots[i], back, sought.zone) for i in left}
        known = sought.history(Interval(at[left[0]].start_at, at[left[-1]].end_at))
        for i in list(left):
            values = _of_one_unit(_inside(known, at[i]))
            if not values or coverage_ratio(values, at[i]) < WHOLE_RATIO:
                continue
            left.remove(i)
            mean = mean_over(values, at[i])
            assert mean is not None
            yield (
                i,
                SlotSource(
                    SourceKind.LAST_WEEK,
                    primary.feed.id,
                    primary.feed.name,
                    mean,
                    values[0].unit,
                    _weakest(values),
                    taken_from=at[i],
                    weeks_back=back,
                ),
            )


def weeks_before(slot: Interval, weeks: int, zone: tzinfo) -> Interval:
    """Return the same local time ``weeks`` weeks ago, as long as ``slot``."""
    local = slot.start_at.astimezone(zone) - weeks * _WEEK
    start_at = local.astimezone(UTC)
    return Interval(start_at, start_at + (slot.end_at - slot.start_at))


def _inside(values: Sequence[Observation], slot: Interval) -> Sequence[Observation]:
    """Values that share time with ``slot``; ``values`` are apart and in order."""
    first = max(0, bisect_right(values, slot.start_at, key=_start_at) - 1)
    last = bisect_right(values, slot.end_at, key=_start_at)
    return [item for item in values[first:last] if slot.overlap_s(item.interval) > 0]


def _of_one_unit(values: Sequence[Observation]) -> Sequence[Observation]:
    """Values in the unit of the first: amounts of two currencies have no mean."""
    return [item for item in values if item.unit == values[0].unit]


def _weakest(values: Sequence[Observation]) -> ValueKind:
    order = list(ValueKind)
    return max((item.kind for item in values), key=order.index)
