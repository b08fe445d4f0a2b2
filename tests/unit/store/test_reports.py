from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, update

from pals_grid.core.fallback import FromFeed
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.series import ValueKind
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.reports import ReportRepository
from pals_grid.store.tables import feed, observation
from pals_grid.store.telemetry import TelemetryRepository
from pals_grid.wire.messages import TelemetryBatch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.store.engine import Database
    from pals_grid.store.reports import EnergyRow
    from pals_grid.wire.messages import EngineRow

    from .conftest import Fleet, MakeRow

MINUTE_J = 60_000.0  # 1 kW for a minute


class Desk:
    """Fills a database and asks it for reports."""

    def __init__(self, database: Database, fleet: Fleet, start_at: datetime) -> None:
        self.database = database
        self.fleet = fleet
        self.start_at = start_at
        self._seq = 0

    def ingest(self, node: int, rows: Iterable[EngineRow]) -> None:
        self._seq += 1
        batch = TelemetryBatch(spool_id="s", seq=self._seq, engine_rows=list(rows), gpu_rows=[])
        with self.database.begin() as connection:
            TelemetryRepository(connection).ingest(self.fleet.node_ids[node], batch, self.start_at)

    def add_feed(self, name: str, quantity: str = "price") -> int:
        with self.database.begin() as connection:
            found: int = connection.execute(
                insert(feed)
                .values(
                    site_id=self.fleet.site_id,
                    name=name,
                    connector="file",
                    quantity=quantity,
                    options={},
                    poll_s=60.0,
                    stale_after_s=600.0,
                    created_at=self.start_at,
                )
                .returning(feed.c.id)
            ).scalar_one()
        return found

    def observe(
        self,
        feed_id: int,
        value: float,
        *,
        minutes: tuple[float, float] = (0, 60),
        kind: str = "measured",
        known: float = 0,
        unit: str = "EUR/MWh",
    ) -> None:
        """Store a value over ``minutes`` after the start, known ``known`` minutes after it."""
        row = {
            "feed_id": feed_id,
            "start_at": self.start_at + timedelta(minutes=minutes[0]),
            "end_at": self.start_at + timedelta(minutes=minutes[1]),
            "known_at": self.start_at + timedelta(minutes=known),
            "recorded_at": self.start_at + timedelta(minutes=known),
            "kind": kind,
            "value": value,
            "unit": unit,
        }
        with self.database.begin() as connection:
            connection.execute(insert(observation).values(row))

    def energy(self, *by: str, minutes: float = 60) -> list[EnergyRow]:
        interval = Interval(self.start_at, self.start_at + timedelta(minutes=minutes))
        with self.database.read() as connection:
            return ReportRepository(connection).energy(
                site_id=self.fleet.site_id, interval=interval, by=frozenset(by)
            )


@pytest.fixture
def desk(database: Database, fleet: Fleet, start_at: datetime) -> Desk:
    return Desk(database, fleet, start_at)


@pytest.fixture
def minute_rows(make_row: MakeRow) -> list[EngineRow]:
    return [make_row(k) for k in range(12)]


def test_sums_over_everything(desk: Desk, minute_rows: list[EngineRow]) -> None:
    desk.ingest(0, minute_rows)
    desk.ingest(1, minute_rows)
    (row,) = desk.energy()
    assert (row.node, row.model, row.start_at) == (None, None, None)
    assert row.node_energy_j == 2 * MINUTE_J
    assert row.gpu_energy_j == 1.5 * MINUTE_J
    assert row.idle_energy_j == 0.5 * MINUTE_J
    assert row.tokens_in == 12_000
    assert row.tokens_out == 2 * sum(100 + k for k in range(12))
    assert (row.requests_finished, row.ttft_misses, row.itl_misses) == (72, 24, 0)
    assert (row.cost, row.carbon_g, row.priced_ratio, row.carbon_ratio) == (None, None, 0.0, 0.0)
    assert row.origins == {Origin.MEASURED}


def test_groups_by_node_model_and_hour(desk: Desk, make_row: MakeRow) -> None:
    desk.ingest(0, [make_row(k, model="a" if k < 18 else "b") for k in range(36)])
    desk.ingest(1, [make_row(k, model="a") for k in range(12)])
    rows = desk.energy("hour", "node", "model")
    keys = [(r.start_at and r.start_at.hour, r.node, r.model, r.node_energy_j) for r in rows]
    assert keys == [
        (11, "n0", "a", 1.5 * MINUTE_J),
        (11, "n0", "b", 0.5 * MINUTE_J),
        (11, "n1", "a", 1.0 * MINUTE_J),
        (12, "n0", "b", 1.0 * MINUTE_J),
    ]
    assert [(r.node, r.node_energy_j) for r in desk.energy("node")] == [
        ("n0", 3 * MINUTE_J),
        ("n1", MINUTE_J),
    ]
    assert [r.model for r in desk.energy("model")] == ["a", "b"]


def test_nothing_gives_no_rows(desk: Desk) -> None:
    assert desk.energy() == []
    assert desk.energy("node", "hour") == []


def test_cost_and_carbon_are_of_the_energy_at_node_boundary(
    desk: Desk, minute_rows: list[EngineRow]
) -> None:
    desk.ingest(0, minute_rows)
    desk.observe(desk.add_feed("price"), 90.0)
    desk.observe(desk.add_feed("carbon", "average_intensity"), 30.0, unit="gCO2eq/kWh")
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 90)
    assert row.carbon_g == pytest.approx(MINUTE_J / 3.6e6 * 30)
    assert (row.priced_ratio, row.carbon_ratio) == (1.0, 1.0)
    assert row.price_kinds == {ValueKind.MEASURED}


def test_marginal_intensity_is_not_mixed_in(desk: Desk, minute_rows: list[EngineRow]) -> None:
    desk.ingest(0, minute_rows)
    desk.observe(desk.add_feed("moer", "marginal_intensity"), 500.0, unit="gCO2eq/kWh")
    (row,) = desk.energy()
    assert (row.carbon_g, row.carbon_ratio, row.carbon_kinds) == (None, 0.0, frozenset())


def test_gap_in_the_prices_shows_in_the_ratio(desk: Desk, make_row: MakeRow) -> None:
    desk.ingest(0, [make_row(k) for k in range(48)])
    price = desk.add_feed("price")
    desk.observe(price, 100.0, minutes=(0, 1))
    desk.observe(price, 200.0, minutes=(2, 3))
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 300)
    assert row.priced_ratio == 0.5


def test_negative_prices_earn(desk: Desk, minute_rows: list[EngineRow]) -> None:
    desk.ingest(0, minute_rows)
    desk.observe(desk.add_feed("price"), -36.0)
    (row,) = desk.energy()
    assert row.cost == pytest.approx(-MINUTE_J / 1e8)


def test_best_known_value_wins(desk: Desk, minute_rows: list[EngineRow]) -> None:
    desk.ingest(0, minute_rows)
    price = desk.add_feed("price")
    steps = [
        ("synthetic", 9, 1.0),
        ("forecast", 5, 2.0),
        ("forecast", 6, 3.0),
        ("measured", 1, 4.0),
    ]
    for kind, known, value in steps:
        desk.observe(price, value, kind=kind, known=known)
        (row,) = desk.energy()
        assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * value), kind
        assert row.price_kinds == {ValueKind(kind)}
    desk.observe(price, 5.0, known=0.5)  # measured, but known earlier than the one held
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 4)


def test_of_two_feeds_the_first_made_prices_as_in_planning(
    desk: Desk, minute_rows: list[EngineRow]
) -> None:
    desk.ingest(0, minute_rows)
    first, second = desk.add_feed("first"), desk.add_feed("second")
    desk.observe(second, 70.0, known=9)
    desk.observe(first, 50.0, known=1)
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 50)
    assert row.price_feeds == {"first"}
    assert row.carbon_feeds == set()


def test_feed_with_a_chain_prices_before_the_one_that_stands_in(
    desk: Desk, minute_rows: list[EngineRow]
) -> None:
    desk.ingest(0, minute_rows)
    backup, chosen = desk.add_feed("backup"), desk.add_feed("chosen")
    with desk.database.begin() as connection:
        FeedRepository(connection).set_fallbacks(chosen, [FromFeed("backup")])
    desk.observe(backup, 70.0)
    desk.observe(chosen, 50.0)
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 50)
    assert row.price_feeds == {"chosen"}


def test_slots_of_several_lengths_overlay(desk: Desk, make_row: MakeRow) -> None:
    desk.ingest(0, [make_row(k) for k in range(48)])
    desk.observe(desk.add_feed("hourly"), 10.0, minutes=(-58, 62), kind="forecast")
    desk.observe(desk.add_feed("exact"), 100.0, minutes=(1, 2))
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 130)
    assert row.price_kinds == {ValueKind.FORECAST, ValueKind.MEASURED}


def test_prices_in_another_currency_are_left_out(desk: Desk, minute_rows: list[EngineRow]) -> None:
    desk.ingest(0, minute_rows)
    desk.observe(desk.add_feed("price"), 90.0, unit="GBP/MWh")
    (row,) = desk.energy()
    assert (row.cost, row.priced_ratio) == (None, 0.0)


def test_removed_feed_prices_its_own_time_behind_its_successor(
    desk: Desk, make_row: MakeRow
) -> None:
    desk.ingest(0, [make_row(k) for k in range(36)])
    old = desk.add_feed("price")
    for minute in range(3):
        desk.observe(old, 100.0, minutes=(minute, minute + 1), known=9)
    with desk.database.begin() as connection:
        removed_at = desk.start_at + timedelta(minutes=2)
        connection.execute(update(feed).values(removed_at=removed_at))
    desk.observe(desk.add_feed("price"), 7.0, minutes=(1, 2))
    (row,) = desk.energy()
    assert row.cost == pytest.approx(MINUTE_J / 3.6e9 * 107)
    assert row.priced_ratio == pytest.approx(2 / 3)


def test_origins_of_gpu_and_node_energy_are_both_told(desk: Desk, make_row: MakeRow) -> None:
    desk.ingest(0, [make_row(k, origin=Origin.SIMULATED) for k in range(12)])
    desk.ingest(1, [make_row(k, origin=Origin.MODELLED) for k in range(12)])
    assert desk.energy()[0].origins == {Origin.SIMULATED, Origin.MODELLED}
    assert [row.origins for row in desk.energy("node")] == [
        {Origin.SIMULATED},
        {Origin.MODELLED},
    ]
