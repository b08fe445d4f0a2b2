"""From stored values to what a planner looks at: price and carbon of each slot, with sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.core.budget import PlanInput
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.fallback import Candidate, Sought, chain_of, resolve_slots
from pals_grid.feeds.slotting import best_values, slot_covers
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.fallback import SlotSource
    from pals_grid.core.feed import Feed, FeedHealth
    from pals_grid.core.pricing import Pricing
    from pals_grid.core.series import Observation
    from pals_grid.core.site import Site
    from pals_grid.feeds.fallback import Chain

CARBON_UNIT = "gCO2eq/kWh"


@dataclass(frozen=True, slots=True)
class Signals:
    """Per slot what is paid, the average carbon intensity, and the sources; None: nobody knows.

    A price is the tariff's, in the site's currency; its source has the feed's own value.
    """

    price_per_mwh: tuple[float | None, ...]
    carbon_g_per_kwh: tuple[float | None, ...]
    marginal_carbon_g_per_kwh: tuple[float | None, ...]
    peak_risk_per_mwh: tuple[float, ...]
    price_sources: tuple[SlotSource | None, ...]
    carbon_sources: tuple[SlotSource | None, ...]
    inputs: tuple[PlanInput, ...]


def load_signals(
    connection: Connection,
    site: Site,
    pricing: Pricing,
    slots: Sequence[Interval],
    as_of: datetime,
) -> Signals:
    """Read a site's price and carbon over ``slots`` as recorded up to ``as_of``.

    Who is asked, and what stands in, is in ``feeds.fallback``. A slot's value is the
    time-weighted mean of one source's values in it. ``inputs`` names every feed that was asked,
    with what of its values for these slots was used: a feed that was not needed counts none.
    The marginal intensity is another signal. It is read where the policy weighs it, and nothing
    stands in for it: slots that its feed has no value of its own for have none.
    """
    reader = _Reader(connection, site, pricing, slots, as_of)
    weighs_marginal = site.policy.marginal_carbon_ratio > 0
    marginal = reader.read(Quantity.MARGINAL_INTENSITY) if weighs_marginal else reader.nothing()
    price, carbon = reader.read(Quantity.PRICE), reader.read(Quantity.AVERAGE_INTENSITY)
    prices: list[float | None] = []
    sources: list[SlotSource | None] = []
    for slot, source in zip(slots, price.sources, strict=True):
        if source is None or not pricing.can_price(source.unit, slot.start_at):
            prices.append(None)
            sources.append(None)
            continue
        prices.append(pricing.price(slot, source.value, source.unit).price_per_mwh)
        sources.append(replace(source, tariff_id=pricing.at(slot.start_at).id))
    return Signals(
        price_per_mwh=tuple(prices),
        carbon_g_per_kwh=tuple(item.value if item else None for item in carbon.sources),
        marginal_carbon_g_per_kwh=tuple(
            item.value if item and not item.is_substitute else None for item in marginal.sources
        ),
        peak_risk_per_mwh=tuple(pricing.risk_per_mwh(slot) for slot in slots),
        price_sources=tuple(sources),
        carbon_sources=tuple(carbon.sources),
        inputs=(*price.inputs, *carbon.inputs, *marginal.inputs),
    )


def load_average_carbon(
    connection: Connection,
    site: Site,
    pricing: Pricing,
    slots: Sequence[Interval],
    as_of: datetime,
) -> list[float | None]:
    """Average intensity of each of ``slots`` in g/kWh, by the rules of ``load_signals``."""
    if not slots:
        return []
    read = _Reader(connection, site, pricing, slots, as_of).read(Quantity.AVERAGE_INTENSITY)
    return [source.value if source else None for source in read.sources]


@dataclass(frozen=True, slots=True)
class _Read:
    sources: Sequence[SlotSource | None]
    inputs: tuple[PlanInput, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reader:
    """One site's stored values over ``slots``, as they were recorded up to ``as_of``."""

    connection: Connection
    site: Site
    pricing: Pricing
    slots: Sequence[Interval]
    as_of: datetime

    @property
    def horizon(self) -> Interval:
        return Interval(self.slots[0].start_at, self.slots[-1].end_at)

    def nothing(self) -> _Read:
        """Return what a signal reads like that nobody gives."""
        return _Read([None] * len(self.slots))

    def read(self, quantity: Quantity) -> _Read:
        chain = chain_of(self._candidates(quantity))
        if chain is None:
            return self.nothing()
        policy = self.site.policy
        sources = resolve_slots(
            chain,
            Sought(
                slots=self.slots,
                now=self.as_of,
                zone=ZoneInfo(policy.timezone),
                unit=f"{policy.currency}/MWh" if quantity is Quantity.PRICE else CARBON_UNIT,
                history=lambda interval: self._measured(chain, interval),
            ),
        )
        inputs = (self._input(item, sources) for item in chain.asked)
        return _Read(sources, tuple(inputs))

    def _candidates(self, quantity: Quantity) -> list[Candidate]:
        found = [
            (feed, health)
            for feed, health in FeedRepository(self.connection).list_with_health(self.site.id)
            if feed.quantity is quantity
        ]
        ids = [feed.id for feed, _ in found]
        known = ObservationRepository(self.connection).load_known(ids, self.horizon, self.as_of)
        return [self._candidate(feed, health, known[feed.id]) for feed, health in found]

    def _candidate(self, feed: Feed, health: FeedHealth, known: Sequence[Observation]) -> Candidate:
        own = [item for item in known if item.kind is not ValueKind.MODELLED]
        usable = [item for item in own if self._is_usable(feed.quantity, item)]
        unusable = [item for item in own if not self._is_usable(feed.quantity, item)]
        modelled = best_values(
            item
            for item in known
            if item.kind is ValueKind.MODELLED and self._is_usable(feed.quantity, item)
        )
        return Candidate(feed, health, best_values(usable), best_values(unusable), modelled)

    def _is_usable(self, quantity: Quantity, item: Observation) -> bool:
        if quantity is not Quantity.PRICE:
            return True
        # An older value is used inside the horizon, by the tariff that holds there.
        return self.pricing.can_price(item.unit, max(item.start_at, self.horizon.start_at))

    def _measured(self, chain: Chain, interval: Interval) -> Sequence[Observation]:
        feed = chain.primary.feed
        values = ObservationRepository(self.connection)
        known = values.load_known([feed.id], interval, self.as_of)[feed.id]
        return best_values(
            item
            for item in known
            if item.kind is ValueKind.MEASURED and self._is_usable(feed.quantity, item)
        )

    def _input(self, candidate: Candidate, sources: Sequence[SlotSource | None]) -> PlanInput:
        feed = candidate.feed
        taken = [
            slot
            for slot, source in zip(self.slots, sources, strict=True)
            if source is not None and source.feed_id == feed.id and source.value_kind is not None
        ]
        values = best_values([*candidate.values, *candidate.modelled])
        used = _touching(values, taken)
        covered_s = sum(cover.covered_s for cover in slot_covers(used, taken))
        return PlanInput(
            feed_id=feed.id,
            feed=feed.name,
            quantity=feed.quantity,
            as_of=self.as_of,
            latest_known_at=max((item.known_at for item in used), default=None),
            values=len(used),
            coverage_ratio=min(1.0, covered_s / self.horizon.duration_s),
            kinds=tuple(sorted({item.kind for item in used})),
        )


def _touching(values: Sequence[Observation], slots: Sequence[Interval]) -> list[Observation]:
    """Those of ``values`` that hold at some time of ``slots``; both ordered and apart."""
    found: list[Observation] = []
    at = 0
    for value in values:
        while at < len(slots) and slots[at].end_at <= value.start_at:
            at += 1
        if at < len(slots) and slots[at].start_at < value.end_at:
            found.append(value)
    return found
