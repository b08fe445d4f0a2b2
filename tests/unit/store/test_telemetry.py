from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.store.tables import (
    ENERGY_COLUMNS,
    engine_hour,
    engine_minute,
    engine_row,
    gpu_row,
    ingest_batch,
)
from pals_grid.store.telemetry import TelemetryRepository
from pals_grid.wire.messages import GpuRow, TelemetryBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

    from pals_grid.store.engine import Database
    from pals_grid.wire.messages import EngineRow

    from .conftest import Fleet, MakeRow

T_NAIVE = datetime.fromisoformat("2026-03-29T11:00")


def _batch(seq: int, rows: Sequence[EngineRow], gpus: Sequence[GpuRow] = ()) -> TelemetryBatch:
    return TelemetryBatch(spool_id="spool", seq=seq, engine_rows=list(rows), gpu_rows=list(gpus))


def _gpu(index: int, start_at: datetime) -> GpuRow:
    return GpuRow(
        gpu_uuid="GPU-0",
        start_at=start_at + timedelta(seconds=5 * index),
        end_at=start_at + timedelta(seconds=5 * index + 5),
        energy_j=10.0,
        power_draw_w=2.0,
        power_limit_w=300.0,
        sm_clock_mhz=1410.0,
    )


def _ingest(
    database: Database, node_id: int, batch: TelemetryBatch, at: datetime
) -> tuple[int, int]:
    with database.begin() as connection:
        return TelemetryRepository(connection).ingest(node_id, batch, at)


def _ingest_and_die(database: Database, node_id: int, batch: TelemetryBatch, at: datetime) -> None:
    with suppress(ConnectionAbortedError), database.begin() as connection:
        TelemetryRepository(connection).ingest(node_id, batch, at)
        raise ConnectionAbortedError


def _totals(database: Database, table: Table) -> dict[str, float]:
    names = (*ENERGY_COLUMNS, "power_limit_j", "duration_s", "rows")
    with database.read() as connection:
        sums = [func.coalesce(func.sum(table.c[n]), 0).label(n) for n in names if n in table.c]
        return dict(connection.execute(select(*sums)).mappings().one())


def _expected(rows: Sequence[EngineRow]) -> dict[str, float]:
    distinct = {(row.engine, row.start_at): row for row in rows}.values()
    sums = {name: float(sum(getattr(r, name) for r in distinct)) for name in ENERGY_COLUMNS}
    return sums | {
        "power_limit_j": sum(r.power_limit_w * 5 for r in distinct),
        "duration_s": 5.0 * len(distinct),
        "rows": len(distinct),
    }


def test_rows_come_back_as_sent(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    sent = [make_row(k, engine=e) for k in range(3) for e in ("e0", "e1")]
    gpus = [_gpu(k, start_at) for k in range(4)]
    assert _ingest(database, fleet.node_ids[0], _batch(1, sent, gpus), start_at) == (6, 4)
    interval = Interval(start_at, start_at + timedelta(minutes=1))
    with database.read() as connection:
        found = TelemetryRepository(connection).load_engine_rows(
            site_id=fleet.site_id, interval=interval, limit=100
        )
        clocks = connection.execute(select(gpu_row.c.sm_clock_mhz)).scalars().all()
    assert [item.row for item in found] == sent
    assert {(item.node_id, item.node) for item in found} == {(fleet.node_ids[0], "n0")}
    assert clocks == [1410.0] * 4


def test_rollups_hold_sums_maxima_and_the_weaker_origin(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    rows = [make_row(k, power_w=100.0) for k in range(26)]  # 11:58:00 to 12:00:10
    rows[5] = msgspec.structs.replace(rows[5], node_energy_origin=Origin.MODELLED)
    _ingest(database, fleet.node_ids[0], _batch(1, rows[:13]), start_at)
    _ingest(database, fleet.node_ids[0], _batch(2, rows[13:]), start_at)
    with database.read() as connection:
        query = select(engine_minute).order_by(engine_minute.c.start_at)
        minutes = connection.execute(query).mappings().all()
        query = select(engine_hour).order_by(engine_hour.c.start_at)
        hours = connection.execute(query).mappings().all()
    assert [row["start_at"] - start_at for row in minutes] == [
        timedelta(minutes=k) for k in range(3)
    ]
    assert [row["rows"] for row in minutes] == [12, 12, 2]
    assert [row["node_energy_j"] for row in minutes] == [6000.0, 6000.0, 1000.0]
    assert [row["power_draw_max_w"] for row in minutes] == [111.0, 123.0, 125.0]
    assert [row["duration_s"] for row in minutes] == [60.0, 60.0, 10.0]
    assert [row["power_limit_j"] for row in minutes] == [12_000.0, 12_000.0, 2000.0]
    assert [row["node_energy_origin"] for row in minutes] == ["modelled", "measured", "measured"]
    assert {row["energy_origin"] for row in minutes} == {"measured"}
    assert [row["rows"] for row in hours] == [24, 2]
    assert [row["node_energy_origin"] for row in hours] == ["modelled", "measured"]


@pytest.mark.parametrize("first", list(Origin))
@pytest.mark.parametrize("second", list(Origin))
def test_of_two_origins_the_weaker_holds(
    database: Database, fleet: Fleet, make_row: MakeRow, first: Origin, second: Origin
) -> None:
    rows = [make_row(0, origin=first), make_row(1, origin=second)]
    for seq, row in enumerate(rows):
        _ingest(database, fleet.node_ids[0], _batch(seq, [row]), rows[0].end_at)
    weakest = max(first, second, key=[*Origin].index)
    with database.read() as connection:
        found = connection.execute(select(engine_hour.c.energy_origin)).scalars().all()
    assert found == [weakest.value]


def test_batch_sent_twice_changes_nothing(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    batch = _batch(1, [make_row(0)], [_gpu(0, start_at)])
    assert _ingest(database, fleet.node_ids[0], batch, start_at) == (1, 1)
    before = _totals(database, engine_minute)
    assert _ingest(database, fleet.node_ids[0], batch, start_at) == (0, 0)
    assert _totals(database, engine_minute) == before
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(ingest_batch)).scalar_one() == 1


def test_row_in_two_batches_is_counted_once_and_the_first_stays(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    other = make_row(1, power_w=5000.0)
    first = _batch(1, [make_row(0), make_row(1)], [_gpu(0, start_at)])
    second = _batch(2, [other, make_row(2), make_row(2)], [_gpu(0, start_at), _gpu(1, start_at)])
    assert _ingest(database, fleet.node_ids[0], first, start_at) == (2, 1)
    assert _ingest(database, fleet.node_ids[0], second, start_at) == (1, 1)
    expected = _expected([make_row(k) for k in range(3)])
    assert _totals(database, engine_minute) == expected
    assert _totals(database, engine_hour) == expected


def test_two_batches_in_one_transaction(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    with database.begin() as connection:
        repository = TelemetryRepository(connection)
        node_id = fleet.node_ids[0]
        assert repository.ingest(node_id, _batch(1, [make_row(0)]), start_at) == (1, 0)
        assert repository.ingest(node_id, _batch(2, [make_row(1)]), start_at) == (1, 0)
    assert _totals(database, engine_hour)["rows"] == 2


def test_same_times_on_other_nodes_and_engines_are_other_rows(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    rows = [make_row(0), make_row(0, engine="e1")]
    for node_id in fleet.node_ids:
        assert _ingest(database, node_id, _batch(1, rows), start_at) == (2, 0)
    assert _totals(database, engine_minute)["rows"] == 6


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_any_delivery_sums_to_the_distinct_rows(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime, seed: int
) -> None:
    """Out of order, overlapping, twice, and killed in the middle: nothing lost or counted twice."""
    order = random.Random(seed)
    with database.begin() as connection:
        for table in (engine_row, gpu_row, engine_minute, engine_hour, ingest_batch):
            connection.execute(text(f"DELETE FROM {table.name}"))
    rows = [make_row(k, engine=f"e{k % 2}") for k in range(120)]
    gpus = [_gpu(k, start_at) for k in range(40)]
    batches = []
    for seq in range(20):
        first = order.randrange(120)
        batches.append(_batch(seq, rows[first : first + order.randrange(40)], gpus[seq : seq + 9]))
    deliveries = batches * 2
    order.shuffle(deliveries)
    for batch in deliveries:
        if order.random() < 0.4:
            _ingest_and_die(database, fleet.node_ids[0], batch, start_at)
        if order.random() < 0.7:
            _ingest(database, fleet.node_ids[0], batch, start_at)
    for batch in batches:  # the spool sends what was not acknowledged until it is
        _ingest(database, fleet.node_ids[0], batch, start_at)
    expected = _expected([row for batch in batches for row in batch.engine_rows])
    assert _totals(database, engine_minute) == expected
    assert _totals(database, engine_hour) == expected
    raw = _totals(database, engine_row)
    assert raw == {name: expected[name] for name in raw}
    assert raw["ticks"] == 10 * expected["rows"]


def test_nodes_that_send_at_the_same_time(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    """Overlapping batches of one node in opposite order, beside another node: no deadlock."""
    rows = [make_row(k) for k in range(300)]
    jobs = [
        (fleet.node_ids[0], _batch(1, rows[:200])),
        (fleet.node_ids[0], _batch(2, rows[:99:-1])),
        (fleet.node_ids[0], _batch(1, rows[:200])),
        (fleet.node_ids[1], _batch(1, rows)),
    ]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda job: _ingest(database, job[0], job[1], start_at), jobs))
    assert sum(inserted for inserted, _ in done) == 600
    assert _totals(database, engine_hour)["rows"] == 600


def test_batch_over_midnight_makes_both_days(
    database: Database, fleet: Fleet, make_row: MakeRow
) -> None:
    midnight = datetime(2026, 4, 1, tzinfo=UTC)
    rows = [
        msgspec.structs.replace(
            make_row(0),
            start_at=midnight + timedelta(seconds=5 * k),
            end_at=midnight + timedelta(seconds=5 * k + 5),
        )
        for k in (-1, 0)
    ]
    in_oslo = timezone(timedelta(hours=2))
    rows[0] = msgspec.structs.replace(rows[0], start_at=rows[0].start_at.astimezone(in_oslo))
    assert _ingest(database, fleet.node_ids[0], _batch(1, rows), midnight) == (2, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_at": T_NAIVE}, r"engine_rows\[1\].start_at: must carry"),
        ({"end_at": T_NAIVE}, r"engine_rows\[1\].end_at: must carry"),
        ({"start_at": timedelta(days=-31)}, r"engine_rows\[1\].start_at: must not be older"),
        ({"end_at": timedelta(days=1, minutes=1)}, r"engine_rows\[1\].end_at: must not be more"),
        ({"end_at": timedelta(days=-1)}, r"engine_rows\[1\].end_at: must be after"),
        ({"max_num_seqs": 2**31}, r"engine_rows\[1\].max_num_seqs: must be <= 2147483647"),
        ({"engine": "a\0b"}, r"engine_rows\[1\].engine: must not contain"),
        ({"model": "a\0b"}, r"engine_rows\[1\].model: must not contain"),
    ],
)
def test_row_at_fault_is_named_and_nothing_is_written(
    database: Database,
    fleet: Fleet,
    make_row: MakeRow,
    start_at: datetime,
    change: dict[str, object],
    message: str,
) -> None:
    given = {k: start_at + v if isinstance(v, timedelta) else v for k, v in change.items()}
    bad = msgspec.structs.replace(make_row(1), **given)
    with database.begin() as connection:
        repository = TelemetryRepository(connection)
        with pytest.raises(InvalidValue, match=message):
            repository.ingest(fleet.node_ids[0], _batch(1, [make_row(0), bad]), start_at)
        # The caller commits nonetheless: still nothing is there.
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(ingest_batch)).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM pg_inherits")).scalar_one() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu_uuid": "\0"}, r"gpu_rows\[0\].gpu_uuid"),
        ({"start_at": T_NAIVE}, r"gpu_rows\[0\].start_at: must carry"),
    ],
)
def test_gpu_row_at_fault_is_named(
    database: Database,
    fleet: Fleet,
    start_at: datetime,
    change: dict[str, object],
    message: str,
) -> None:
    bad = msgspec.structs.replace(_gpu(0, start_at), **change)
    with pytest.raises(InvalidValue, match=message):
        _ingest(database, fleet.node_ids[0], _batch(1, [], [bad]), start_at)


def test_node_that_is_unknown_is_refused(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    with pytest.raises(IntegrityError):
        _ingest(database, max(fleet.node_ids) + 1, _batch(1, [make_row(0)]), start_at)


def test_listing_continues_after_a_key(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    for node_id in fleet.node_ids:
        _ingest(database, node_id, _batch(1, [make_row(k) for k in range(5)]), start_at)
    interval = Interval(start_at, start_at + timedelta(seconds=20))  # the fifth starts at its end
    with database.read() as connection:
        repository = TelemetryRepository(connection)
        pages = []
        after = None
        while page := repository.load_engine_rows(
            site_id=fleet.site_id, interval=interval, limit=5, after=after
        ):
            pages.append(page)
            after = page[-1].key
        one = repository.load_engine_rows(
            site_id=fleet.site_id, interval=interval, node_id=fleet.node_ids[1], limit=100
        )
        elsewhere = repository.load_engine_rows(
            site_id=fleet.site_id + 1, interval=interval, limit=100
        )
    assert [len(page) for page in pages] == [5, 5, 2]
    keys = [item.key for page in pages for item in page]
    assert keys == sorted(set(keys))
    assert {item.node for item in one} == {"n1"}
    assert len(one) == 4
    assert elsewhere == []
