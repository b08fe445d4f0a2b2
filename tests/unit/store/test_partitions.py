from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pals_grid.store.ingest import MAX_AGE
from pals_grid.store.partitions import (
    RAW_KEPT_DAYS,
    drop_partitions_before,
    ensure_partitions,
    oldest_partition_day,
)
from pals_grid.store.telemetry import TelemetryRepository
from pals_grid.wire.messages import TelemetryBatch

if TYPE_CHECKING:
    from pals_grid.store.engine import Database

    from .conftest import Fleet, MakeRow

FIRST = date(2026, 12, 30)


def _names(database: Database) -> list[str]:
    with database.read() as connection:
        query = "SELECT inhrelid::regclass::text FROM pg_inherits ORDER BY 1"
        names = connection.execute(text(query)).scalars().all()
    return [
        name for name in names if "ix" not in name and "pkey" not in name and "_idx" not in name
    ]


def test_days_are_made_once_over_the_turn_of_the_year(database: Database) -> None:
    with database.begin() as connection:
        assert ensure_partitions(connection, FIRST, FIRST + timedelta(days=2)) == 6
        assert ensure_partitions(connection, FIRST, FIRST + timedelta(days=2)) == 0
        assert oldest_partition_day(connection) == FIRST
    assert _names(database) == [
        f"{table}_{day}"
        for table in ("engine_row", "gpu_row")
        for day in ("20261230", "20261231", "20270101")
    ]


def test_partition_holds_its_utc_day(database: Database) -> None:
    with database.begin() as connection:
        ensure_partitions(connection, FIRST, FIRST)
        bound = connection.execute(
            text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = :name"),
            {"name": "gpu_row_20261230"},
        ).scalar_one()
    assert bound == "FOR VALUES FROM ('2026-12-30 00:00:00+00') TO ('2026-12-31 00:00:00+00')"


def test_makers_at_the_same_time_agree(database: Database) -> None:
    made: list[int] = []

    def make() -> None:
        with database.begin() as connection:
            made.append(ensure_partitions(connection, FIRST, FIRST + timedelta(days=3)))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 0, 0, 8]


def test_making_waits_for_no_writer(database: Database, fleet: Fleet, make_row: MakeRow) -> None:
    batch = TelemetryBatch(spool_id="s", seq=1, engine_rows=[make_row(0)], gpu_rows=[])
    with database.begin() as writer:
        TelemetryRepository(writer).ingest(fleet.node_ids[0], batch, make_row(0).end_at)
    again = TelemetryBatch(spool_id="s", seq=2, engine_rows=[make_row(1)], gpu_rows=[])
    with database.begin() as writer:
        TelemetryRepository(writer).ingest(fleet.node_ids[0], again, make_row(0).end_at)
        with database.begin() as maker:
            maker.execute(text("SET LOCAL lock_timeout = '20s'"))
            assert ensure_partitions(maker, FIRST, FIRST) == 2


def test_old_days_are_dropped_and_others_kept(database: Database) -> None:
    with database.begin() as connection:
        ensure_partitions(connection, FIRST, FIRST + timedelta(days=2))
        assert drop_partitions_before(connection, FIRST + timedelta(days=1)) == 2
        assert oldest_partition_day(connection) == FIRST + timedelta(days=1)
        assert drop_partitions_before(connection, FIRST + timedelta(days=1)) == 0


def test_dropping_gives_way_to_a_reader(database: Database) -> None:
    with database.begin() as connection:
        ensure_partitions(connection, FIRST, FIRST)
    with database.read() as reader:
        reader.execute(text("SELECT * FROM engine_row")).all()
        with pytest.raises(OperationalError, match="lock timeout"), database.begin() as dropper:
            drop_partitions_before(dropper, FIRST + timedelta(days=1))
    assert "engine_row_20261230" in _names(database)


def test_raw_rows_are_kept_longer_than_rows_are_accepted() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert now - timedelta(days=RAW_KEPT_DAYS) < now - MAX_AGE - timedelta(days=1)
