"""Energy, cost and carbon of a site, from the minute roll-up and the best known signals."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import DateTime, Double, Text, case, column, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on

from pals_grid.core.fallback import feed_order
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.pricing import StepPricing
from pals_grid.core.series import KIND_RANK, Quantity, ValueKind
from pals_grid.core.units import J_PER_KWH, J_PER_MWH
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tables import engine_hour, engine_minute, feed, node, observation
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, RowMapping, Select, TableValuedAlias

    from pals_grid.core.pricing import Pricing

GROUPINGS = frozenset({"node", "model", "hour"})

_SUMMED = (
    "gpu_energy_j",
    "node_energy_j",
    "idle_energy_j",
    "tokens_in",
    "tokens_out",
    "requests_finished",
    "ttft_misses",
    "itl_misses",
)


@dataclass(frozen=True, slots=True)
class EnergyRow:
    """Sums over one group. ``node``, ``model`` and ``start_at`` are None when not grouped by.

    ``cost`` (in the site's currency) and ``carbon_g`` (average intensity) are of the energy at
    node boundary; None where no signal covers any of it. ``priced_ratio`` and ``carbon_ratio``
    are the shares of that energy which a signal covers, 0 to 1; ``price_feeds`` and
    ``carbon_feeds`` are the names of the feeds that gave those values.
    """

    node: str | None
    model: str | None
    start_at: datetime | None
    gpu_energy_j: float
    node_energy_j: float
    idle_energy_j: float
    tokens_in: float
    tokens_out: float
    requests_finished: float
    ttft_misses: float
    itl_misses: float
    cost: float | None
    carbon_g: float | None
    priced_ratio: float
    carbon_ratio: float
    origins: frozenset[Origin]
    price_kinds: frozenset[ValueKind]
    carbon_kinds: frozenset[ValueKind]
    price_feeds: frozenset[str]
    carbon_feeds: frozenset[str]


class ReportRepository:
    """Over an open connection; never writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def energy(self, *, site_id: int, interval: Interval, by: frozenset[str]) -> list[EnergyRow]:
        """Energy of the minutes that start inside ``interval``, by node, model and hour.

        Each minute is priced with the value known best today: measured before forecast before
        synthetic, then of a feed that is still there, then of the feed that planning asks first
        (``core.fallback.feed_order``), then the latest known. A price is what the site pays for
        energy by the tariff that was in force then; demand charges are no part of it. Prices in a
        currency that the tariff does not convert are left out, and so are values of our
        own model and marginal intensity.
        """
        price = self._load_steps(site_id, interval, Quantity.PRICE)
        carbon = self._load_steps(site_id, interval, Quantity.AVERAGE_INTENSITY)
        groups = _groups(by)
        energy_j = engine_minute.c.node_energy_j
        query = (
            select(
                *(groups.get(name, literal(None)).label(name) for name in sorted(GROUPINGS)),
                *(func.sum(engine_minute.c[name]).label(name) for name in _SUMMED),
                func.sum(energy_j * price.value).label("price_energy"),
                func.sum(energy_j * carbon.value).label("carbon_energy"),
                _covered(energy_j, price.value).label("priced_j"),
                _covered(energy_j, carbon.value).label("carboned_j"),
                func.array_agg(engine_minute.c.energy_origin.distinct()).label("gpu_origins"),
                func.array_agg(engine_minute.c.node_energy_origin.distinct()).label("node_origins"),
                func.array_agg(price.kind.distinct()).label("price_kinds"),
                func.array_agg(carbon.kind.distinct()).label("carbon_kinds"),
                func.array_agg(price.feed.distinct()).label("price_feeds"),
                func.array_agg(carbon.feed.distinct()).label("carbon_feeds"),
            )
            .join(node, node.c.id == engine_minute.c.node_id)
            .outerjoin(price.steps, price.at_minute)
            .outerjoin(carbon.steps, carbon.at_minute)
            .where(
                node.c.site_id == site_id,
                engine_minute.c.start_at >= interval.start_at,
                engine_minute.c.start_at < interval.end_at,
            )
            .group_by(*groups.values())
            .having(func.count() > 0)
            .order_by(*groups.values())
        )
        return [_energy_row(row) for row in self._connection.execute(query).mappings()]

    def origins(self, site_id: int, interval: Interval) -> frozenset[Origin]:
        """How the nodes' power of the hours that start inside ``interval`` is known."""
        query = (
            select(engine_hour.c.node_energy_origin)
            .distinct()
            .join(node, node.c.id == engine_hour.c.node_id)
            .where(
                node.c.site_id == site_id,
                engine_hour.c.start_at >= interval.start_at,
                engine_hour.c.start_at < interval.end_at,
            )
        )
        return frozenset(Origin(name) for name in self._connection.execute(query).scalars())

    def _load_steps(self, site_id: int, interval: Interval, quantity: Quantity) -> _Steps:
        """The best known values over ``interval``, as a step function of the minute."""
        query = _select_latest(site_id, interval, quantity)
        worst_first = self._worst_first(
            site_id, quantity, self._connection.execute(query).mappings().all()
        )
        if quantity is not Quantity.PRICE:
            return _Steps.painted(quantity.value, worst_first)
        pricing = TariffRepository(self._connection).load_pricing(
            SiteRepository(self._connection).load_by_id(site_id)
        )
        return _Steps.painted(
            quantity.value,
            [row for row in worst_first if pricing.can_price(row["unit"], row["start_at"])],
            pricing,
        )

    def _worst_first(
        self, site_id: int, quantity: Quantity, found: Sequence[RowMapping]
    ) -> list[RowMapping]:
        feeds = FeedRepository(self._connection).list_all(site_id)
        order = feed_order([item for item in feeds if item.quantity is quantity])
        place = {feed_id: i for i, feed_id in enumerate(order)}

        def worth(row: RowMapping) -> tuple[object, ...]:
            feed_id = row["feed_id"]
            # Feeds that are gone come behind, by their creation.
            behind = place.get(feed_id, len(place) + feed_id)
            return row["rank"], row["present"], -behind, row["known_at"]

        return sorted(found, key=worth)


@dataclass(frozen=True, slots=True)
class _Steps:
    """A signal as a step function: steps count from 1, the first begins at the first edge."""

    steps: TableValuedAlias
    at_minute: ColumnElement[bool]

    @classmethod
    def painted(
        cls, name: str, worst_first: Sequence[RowMapping], pricing: Pricing | None = None
    ) -> _Steps:
        """Lay the values over each other, the best last; gaps have no value.

        With ``pricing`` a value becomes what the site pays, cut where its tariff changes that.
        """
        marks = {row[end] for row in worst_first for end in ("start_at", "end_at")}
        steps_of = None
        if pricing is not None and marks:
            steps_of = StepPricing(pricing, Interval(min(marks), max(marks)))
            marks |= set(steps_of.edges)
        edges = sorted(marks)
        rows: list[RowMapping | None] = [None] * len(edges)
        for row in worst_first:
            first, last = bisect_left(edges, row["start_at"]), bisect_left(edges, row["end_at"])
            rows[first:last] = [row] * (last - first)
        values = [
            None if row is None else _value(row, at, steps_of)
            for at, row in zip(edges, rows, strict=True)
        ]
        kinds, feeds = (
            [None if row is None else row[name] for row in rows] for name in ("kind", "feed")
        )
        steps = (
            func.unnest(
                literal(values, ARRAY(Double)),
                literal(kinds, ARRAY(Text)),
                literal(feeds, ARRAY(Text)),
            )
            .table_valued(
                column("value", Double),
                column("kind", Text),
                column("feed", Text),
                with_ordinality="step",
                name=name,
            )
            .render_derived()
        )
        starts = literal(edges, ARRAY(DateTime(timezone=True)))
        # A binary search by the database; 0, before the first edge, is no step's number.
        number = func.width_bucket(engine_minute.c.start_at, starts)
        return cls(steps, steps.c.step == number)

    @property
    def value(self) -> ColumnElement[float]:
        """The value; NULL in a gap."""
        return self.steps.c.value

    @property
    def kind(self) -> ColumnElement[str]:
        """The value's kind; NULL in a gap."""
        return self.steps.c.kind

    @property
    def feed(self) -> ColumnElement[str]:
        """Name of the feed that gave the value; NULL in a gap."""
        return self.steps.c.feed


def _value(row: RowMapping, at: datetime, pricing: StepPricing | None) -> float | None:
    """Value of the step that begins ``at``; a price by the tariff that was in force then."""
    if pricing is not None:
        return pricing.price_at(at, row["value"], row["unit"])
    value: float = row["value"]
    return value


def _select_latest(
    site_id: int, interval: Interval, quantity: Quantity
) -> Select[tuple[object, ...]]:
    """Of each feed, slot and kind the latest known value; no other of them can win."""
    rank = case(
        {str(kind): rank for kind, rank in KIND_RANK.items()}, value=observation.c.kind, else_=-99
    )
    return (
        select(
            observation.c.feed_id,
            feed.c.name.label("feed"),
            observation.c.start_at,
            observation.c.end_at,
            observation.c.value,
            observation.c.kind,
            observation.c.unit,
            rank.label("rank"),
            feed.c.removed_at.is_(None).label("present"),
            observation.c.known_at,
        )
        .ext(distinct_on(observation.c.feed_id, observation.c.start_at, observation.c.kind))
        .join(feed, feed.c.id == observation.c.feed_id)
        .where(
            feed.c.site_id == site_id,
            feed.c.quantity == quantity.value,
            observation.c.kind != ValueKind.MODELLED.value,
            observation.c.start_at < interval.end_at,
            observation.c.end_at > interval.start_at,
            or_(feed.c.removed_at.is_(None), observation.c.start_at < feed.c.removed_at),
        )
        .order_by(
            observation.c.feed_id,
            observation.c.start_at,
            observation.c.kind,
            observation.c.known_at.desc(),
        )
    )


def _groups(by: frozenset[str]) -> dict[str, ColumnElement[object]]:
    known: dict[str, ColumnElement[object]] = {
        "hour": func.date_trunc("hour", engine_minute.c.start_at),
        "node": node.c.name,
        "model": engine_minute.c.model,
    }
    return {name: column for name, column in known.items() if name in by}


def _covered(energy_j: ColumnElement[float], value: ColumnElement[float]) -> ColumnElement[float]:
    return func.coalesce(func.sum(energy_j).filter(value.is_not(None)), 0.0)


def _energy_row(row: RowMapping) -> EnergyRow:
    total_j = row["node_energy_j"]
    price_energy, carbon_energy = row["price_energy"], row["carbon_energy"]
    origins = {*row["gpu_origins"], *row["node_origins"]}
    return EnergyRow(
        node=row["node"],
        model=row["model"],
        start_at=row["hour"],
        **{name: row[name] for name in _SUMMED},
        cost=None if price_energy is None else price_energy / J_PER_MWH,
        carbon_g=None if carbon_energy is None else carbon_energy / J_PER_KWH,
        priced_ratio=row["priced_j"] / total_j if total_j else 0.0,
        carbon_ratio=row["carboned_j"] / total_j if total_j else 0.0,
        origins=frozenset(Origin(name) for name in origins),
        price_kinds=_kinds(row["price_kinds"]),
        carbon_kinds=_kinds(row["carbon_kinds"]),
        price_feeds=frozenset(name for name in row["price_feeds"] if name is not None),
        carbon_feeds=frozenset(name for name in row["carbon_feeds"] if name is not None),
    )


def _kinds(names: Sequence[str | None]) -> frozenset[ValueKind]:
    return frozenset(ValueKind(name) for name in names if name is not None)
