"""Where a what-if's slots have their values from, and how far our forecasts of them may be off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pals_grid.core.fallback import SourceKind
from pals_grid.core.series import ValueKind
from pals_grid.core.substitution import source_words
from pals_grid.service.expected_demand import FRESH, DemandSource, step_means
from pals_grid.store.forecasts import ForecastRepository

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.budget import PlanSlot
    from pals_grid.core.fallback import SlotSource
    from pals_grid.core.intervals import Interval
    from pals_grid.core.pricing import Pricing
    from pals_grid.core.site import Site
    from pals_grid.service.planning import Planning

NOBODY = "nobody knows"
_DEMAND_WORDS = {
    DemandSource.MODEL: "our model's median (P50)",
    DemandSource.LAST_DAYS: "the same time of the last days",
    DemandSource.STATED: "stated with the site, or all that its nodes can serve: no record yet",
}


@dataclass(frozen=True, slots=True)
class SourceShare:
    """Hours of a stretch in which a quantity comes from one source; ``kind`` is a word for it.

    ``kind`` is ``market`` (the feed itself), ``forecast`` (of the feed), ``synthetic``, ``feed``
    (another one's), ``model`` (our own median), ``last_week``, ``last_days``, ``constant``,
    ``stated`` or ``unknown``.
    """

    quantity: str
    kind: str
    words: str
    hours: float


def sources_of(planning: Planning, during: Interval) -> tuple[SourceShare, ...]:
    """Sources of price, carbon and demand inside ``during``, the longest of each first."""
    slots = planning.request.slots
    hours = [slot.interval.overlap_s(during) / 3600 for slot in slots]
    columns = {
        "price": [_signal(slot.price_source) for slot in slots],
        "average_intensity": [_signal(slot.carbon_source) for slot in slots],
        "demand": [(item.value, _DEMAND_WORDS[item]) for item in planning.demand.sources],
    }
    return tuple(
        share for quantity, kinds in columns.items() for share in _shares(quantity, kinds, hours)
    )


def _shares(
    quantity: str, kinds: Sequence[tuple[str, str]], hours: Sequence[float]
) -> Iterator[SourceShare]:
    sums: dict[tuple[str, str], float] = {}
    for kind, length_h in zip(kinds, hours, strict=True):
        if length_h > 0:
            sums[kind] = sums.get(kind, 0.0) + length_h
    for (code, words), length_h in sorted(sums.items(), key=lambda item: -item[1]):
        yield SourceShare(quantity, code, words, length_h)


def _signal(source: SlotSource | None) -> tuple[str, str]:
    if source is None:
        return "unknown", NOBODY
    is_own = source.kind is SourceKind.PRIMARY
    words = source_words(source)
    kind = source.value_kind
    is_final = kind is None or kind is ValueKind.MEASURED
    if is_own or source.kind is SourceKind.FEED:
        words += "" if kind is None else f" ({'published' if is_final else kind.value})"
    if not is_own:
        return source.kind.value, words
    return ("market" if kind is None or is_final else kind.value), words


def load_edges(
    connection: Connection, site: Site, planning: Planning, pricing: Pricing, now: datetime
) -> tuple[tuple[PlanSlot, ...], tuple[PlanSlot, ...]] | None:
    """Return the slots as all of our own forecasts' P10 and P90 have them.

    Price and demand move together; None where neither comes from a model of ours.
    """
    slots = planning.request.slots
    prices = _price_edges(connection, site, slots, pricing, now)
    demand = planning.demand
    if all(edge is None for edge, _ in prices) and not any(
        source is DemandSource.MODEL for source in demand.sources
    ):
        return None
    low = tuple(
        _at(slot, price, rate)
        for slot, (price, _), rate in zip(slots, prices, demand.low_tokens_per_s, strict=True)
    )
    high = tuple(
        _at(slot, price, rate)
        for slot, (_, price), rate in zip(slots, prices, demand.high_tokens_per_s, strict=True)
    )
    return low, high


def _at(slot: PlanSlot, price: float | None, rate: float | None) -> PlanSlot:
    return replace(
        slot,
        price_per_mwh=slot.price_per_mwh if price is None else price,
        demand_tokens_per_s=slot.demand_tokens_per_s if rate is None else rate,
        demand_high_tokens_per_s=None if rate is not None else slot.demand_high_tokens_per_s,
    )


def _price_edges(
    connection: Connection,
    site: Site,
    slots: Sequence[PlanSlot],
    pricing: Pricing,
    now: datetime,
) -> list[tuple[float | None, float | None]]:
    """P10 and P90 of what the site pays in slots whose price our model forecasts."""
    feeds = {
        slot.price_source.feed_id
        for slot in slots
        if slot.price_source is not None and slot.price_source.kind is SourceKind.MODEL
    }
    edges: list[tuple[float | None, float | None]] = [(None, None)] * len(slots)
    repository = ForecastRepository(connection)
    for feed_id in feeds:
        held = repository.load(site.id, feed_id)
        if held is None:
            continue
        _, steps = repository.load_latest(held.id, now, issued_after=now - FRESH)
        intervals = [slot.interval for slot in slots]
        lows = step_means(steps, [step.p10 for step in steps], intervals, now)
        highs = step_means(steps, [step.p90 for step in steps], intervals, now)
        for i, (slot, low, high) in enumerate(zip(slots, lows, highs, strict=True)):
            source = slot.price_source
            if source is None or source.feed_id != feed_id or low is None or high is None:
                continue
            if source.kind is SourceKind.MODEL:
                priced = (
                    pricing.price(slot.interval, value, source.unit).price_per_mwh
                    for value in (low, high)
                )
                edges[i] = (next(priced), next(priced))
    return edges
