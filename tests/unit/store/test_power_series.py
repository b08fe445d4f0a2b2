from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import text

from pals_grid.core.intervals import Interval
from pals_grid.store.partitions import drop_partitions_before, ensure_partitions
from pals_grid.store.telemetry import TelemetryRepository
from pals_grid.wire.messages import TelemetryBatch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.store.engine import Database
    from pals_grid.store.telemetry import PowerPoint
    from pals_grid.wire.messages import EngineRow

    from .conftest import Fleet, MakeRow


def _ingest(database: Database, node_id: int, rows: Iterable[EngineRow], seq: int = 1) -> None:
    batch = TelemetryBatch(spool_id="s", seq=seq, engine_rows=list(rows), gpu_rows=[])
    with database.begin() as connection:
        TelemetryRepository(connection).ingest(node_id, batch, batch.engine_rows[-1].end_at)


def _series(
    database: Database, fleet: Fleet, interval: Interval, step_s: float
) -> list[PowerPoint]:
    with database.read() as connection:
        return TelemetryRepository(connection).load_power_series(fleet.site_id, interval, step_s)


def _hours(start_at: datetime, count: float) -> Interval:
    return Interval(start_at, start_at + timedelta(hours=count))


@pytest.mark.parametrize("step_s", [5.0, 10.0, 30.0, 60.0, 120.0])
def test_nodes_at_the_same_time_add_up(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime, step_s: float
) -> None:
    for power_w, node_id in enumerate(fleet.node_ids, start=1):
        _ingest(database, node_id, [make_row(k, power_w=power_w * 1000.0) for k in range(24)])
    points = _series(database, fleet, _hours(start_at, 1), step_s)
    assert len(points) == 120 / step_s
    assert {point.node_power_w for point in points} == {6000.0}
    assert {point.gpu_power_w for point in points} == {4500.0}
    assert {point.power_limit_w for point in points} == {12_000.0}
    assert {point.covered_s for point in points} == {step_s}
    tokens = sum(point.tokens_out_per_s * point.covered_s for point in points)
    assert tokens == pytest.approx(3 * sum(100 + k for k in range(24)))


def test_minute_that_is_still_filling_shows_its_power_so_far(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k) for k in range(14)])
    points = _series(database, fleet, _hours(start_at, 1), 60)
    assert [(p.node_power_w, p.covered_s) for p in points] == [(1000.0, 60.0), (1000.0, 10.0)]


def test_node_that_goes_away_counts_as_nothing_from_then_on(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k) for k in range(24)])
    _ingest(database, fleet.node_ids[1], [make_row(k) for k in range(12)])
    points = _series(database, fleet, _hours(start_at, 1), 60)
    assert [p.node_power_w for p in points] == [2000.0, 1000.0]
    with database.read() as connection:
        mean = TelemetryRepository(connection).mean_site_power_w(fleet.site_id, _hours(start_at, 1))
    assert mean == (1500.0, 120.0)


def test_engine_that_changes_its_model_is_one_engine(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    rows = [make_row(k, model="a" if k < 6 else "b") for k in range(12)]
    _ingest(database, fleet.node_ids[0], rows)
    (point,) = _series(database, fleet, _hours(start_at, 1), 60)
    assert (point.node_power_w, point.covered_s) == (1000.0, 60.0)


def test_hours_come_from_hours(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k, power_w=100.0) for k in range(36)])
    with database.begin() as connection:
        connection.execute(text("DELETE FROM engine_minute"))
    on_the_hour = start_at.replace(minute=0)
    points = _series(database, fleet, _hours(on_the_hour, 3), 3600)
    assert [(p.start_at.hour, p.node_power_w, p.covered_s) for p in points] == [
        (11, 100.0, 120.0),
        (12, 100.0, 60.0),
    ]


def test_minutes_stand_in_where_raw_rows_are_gone(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k) for k in range(24)])
    assert len(_series(database, fleet, _hours(start_at, 1), 10)) == 12
    with database.begin() as connection:
        tomorrow = start_at.date() + timedelta(days=1)
        ensure_partitions(connection, tomorrow, tomorrow)
        drop_partitions_before(connection, tomorrow)
    points = _series(database, fleet, _hours(start_at, 1), 10)
    assert [p.start_at for p in points] == [start_at, start_at + timedelta(minutes=1)]
    with database.read() as connection:
        mean = TelemetryRepository(connection).mean_site_power_w(fleet.site_id, _hours(start_at, 1))
    assert mean == (1000.0, 120.0)


def test_mean_of_an_interval_between_minutes_takes_its_own_rows(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    rows = [make_row(k, power_w=1000.0 if k < 6 else 400.0) for k in range(12)]
    _ingest(database, fleet.node_ids[0], rows)
    half = Interval(start_at + timedelta(seconds=30), start_at + timedelta(seconds=60))
    with database.read() as connection:
        mean = TelemetryRepository(connection).mean_site_power_w(fleet.site_id, half)
    assert mean == (400.0, 30.0)


def test_nothing_is_none_and_not_zero(database: Database, fleet: Fleet, start_at: datetime) -> None:
    with database.read() as connection:
        repository = TelemetryRepository(connection)
        assert repository.mean_site_power_w(fleet.site_id, _hours(start_at, 1)) is None
        assert repository.mean_site_power_w(fleet.site_id, _hours(start_at, 100)) is None
        assert repository.load_power_series(fleet.site_id, _hours(start_at, 1), 5) == []
        assert repository.load_demand_history(fleet.site_id, _hours(start_at, 1), 3600) == []


def _demand(database: Database, fleet: Fleet, start_at: datetime) -> list[tuple[datetime, float]]:
    with database.read() as connection:
        return TelemetryRepository(connection).load_demand_history(
            fleet.site_id, _hours(start_at.replace(minute=0), 1), 1800
        )


def test_demand_is_what_arrives_and_not_what_a_limit_lets_through(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    rows = [make_row(k) for k in range(-60, 0)]
    arriving = [msgspec.structs.replace(row, requests_arrived=6) for row in rows]
    _ingest(database, fleet.node_ids[0], arriving)
    served = sum(100 + k for k in range(-60, 0)) / 300  # by 3 requests finished in each row
    ((at, demand),) = _demand(database, fleet, start_at)
    assert at == start_at.replace(minute=30)
    assert demand == pytest.approx(2 * served)


def test_demand_is_what_was_served_where_no_arrivals_are_told(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k) for k in range(-60, 0)])
    served = sum(100 + k for k in range(-60, 0)) / 300
    assert _demand(database, fleet, start_at) == [(start_at.replace(minute=30), served)]


def test_less_than_five_minutes_are_no_record_of_demand(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet.node_ids[0], [make_row(k) for k in range(-59, 0)])
    assert _demand(database, fleet, start_at) == []
