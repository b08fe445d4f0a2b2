"""From stored values to what a planner looks at: price and carbon of each slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.budget import PlanInput
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity, ValueKind, coverage_ratio
from pals_grid.feeds.slotting import best_values, slot_means
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed
    from pals_grid.core.series import Observation


@dataclass(frozen=True, slots=True)
class Signals:
    """Per slot the price and the average carbon intensity, None where nobody knows one."""

    price_per_mwh: tuple[float | None, ...]
    carbon_g_per_kwh: tuple[float | None, ...]
    inputs: tuple[PlanInput, ...]


def load_signals(
    connection: Connection, site_id: int, slots: Sequence[Interval], as_of: datetime
) -> Signals:
    """Read a site's price and carbon over ``slots`` as recorded up to ``as_of``.

    Of the feeds of one quantity, each slot takes the first that has a value for it, in this
    order: feeds with real values before feeds whose values are all synthetic, then by creation.
    A slot's value is the time-weighted mean of the feed's values in it. ``inputs`` names every
    feed that was asked, with what of it was used: a feed that others stood before counts none.
    Carbon is the average intensity; the marginal one is another signal and not taken here.
    """
    horizon = Interval(slots[0].start_at, slots[-1].end_at)
    feeds = FeedRepository(connection).list_all(site_id)
    known = ObservationRepository(connection).load_known([f.id for f in feeds], horizon, as_of)
    sources = [_Source(feed, best_values(known[feed.id])) for feed in feeds]
    sources.sort(key=lambda source: (source.is_synthetic, source.feed.id))
    price = _pick([s for s in sources if s.feed.quantity is Quantity.PRICE], slots)
    carbon = _pick([s for s in sources if s.feed.quantity is Quantity.AVERAGE_INTENSITY], slots)
    taken = {**price.taken, **carbon.taken}
    inputs = tuple(
        _input(source, taken[source.feed.id], horizon, as_of)
        for source in sources
        if source.feed.id in taken
    )
    return Signals(price.values, carbon.values, inputs)


@dataclass(frozen=True, slots=True)
class _Source:
    feed: Feed
    values: Sequence[Observation]

    @property
    def is_synthetic(self) -> bool:
        return all(item.kind is ValueKind.SYNTHETIC for item in self.values)


@dataclass(frozen=True, slots=True)
class _Picked:
    values: tuple[float | None, ...]
    taken: Mapping[int, Sequence[Interval]]


def _pick(sources: Sequence[_Source], slots: Sequence[Interval]) -> _Picked:
    """Per slot the first source's mean; and, by feed, the slots taken from it."""
    values: list[float | None] = [None] * len(slots)
    taken: dict[int, list[Interval]] = {source.feed.id: [] for source in sources}
    for source in sources:
        for i, mean in enumerate(slot_means(source.values, slots)):
            if values[i] is None and mean is not None:
                values[i] = mean
                taken[source.feed.id].append(slots[i])
    return _Picked(tuple(values), taken)


def _input(
    source: _Source, taken: Sequence[Interval], horizon: Interval, as_of: datetime
) -> PlanInput:
    used = [item for item in source.values if any(item.interval.overlap_s(s) > 0 for s in taken)]
    covered_s = sum(coverage_ratio(used, slot) * slot.duration_s for slot in taken)
    return PlanInput(
        feed_id=source.feed.id,
        feed=source.feed.name,
        quantity=source.feed.quantity,
        as_of=as_of,
        latest_known_at=max((item.known_at for item in used), default=None),
        values=len(used),
        coverage_ratio=min(1.0, covered_s / horizon.duration_s),
        kinds=tuple(sorted({item.kind for item in used})),
    )
