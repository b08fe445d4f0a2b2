from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.intervals import Interval, floor_to
from pals_grid.store.demand import DEMAND_BIN, DemandRepository
from pals_grid.store.telemetry import TelemetryRepository
from pals_grid.wire.messages import TelemetryBatch

if TYPE_CHECKING:
    from pals_grid.store.engine import Database

    from .conftest import Fleet, MakeRow

ROWS = 12 * 40  # forty minutes


def _ingest(database: Database, fleet: Fleet, make_row: MakeRow, *, node: int = 0) -> None:
    rows = [make_row(i) for i in range(ROWS)] + [make_row(i, engine="e1") for i in range(ROWS)]
    batch = TelemetryBatch(spool_id=f"s{node}", seq=1, engine_rows=rows, gpu_rows=[])
    with database.begin() as connection:
        repository = TelemetryRepository(connection)
        repository.ingest(fleet.node_ids[node], batch, rows[-1].end_at)


def _history(
    database: Database, fleet: Fleet, start_at: datetime, step_s: float
) -> list[tuple[datetime, float]]:
    past = Interval(floor_to(start_at, timedelta(hours=1)), start_at + timedelta(hours=2))
    with database.read() as connection:
        return TelemetryRepository(connection).load_demand_history(fleet.site_id, past, step_s)


@pytest.mark.parametrize("step_s", [60.0, 300.0, 900.0, 420.0])
def test_history_is_the_same_with_sums_kept(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime, step_s: float
) -> None:
    for node in range(2):
        _ingest(database, fleet, make_row, node=node)
    fresh = _history(database, fleet, start_at, step_s)
    assert len(fresh) >= 2
    with database.begin() as connection:
        DemandRepository(connection).add_up(floor_to(start_at, DEMAND_BIN))
    kept = _history(database, fleet, start_at, step_s)
    assert [at for at, _ in kept] == [at for at, _ in fresh]
    assert [rate for _, rate in kept] == pytest.approx([rate for _, rate in fresh])


def test_rows_after_the_last_sum_and_late_ones_count(
    database: Database, fleet: Fleet, make_row: MakeRow, start_at: datetime
) -> None:
    _ingest(database, fleet, make_row)
    with database.begin() as connection:
        DemandRepository(connection).add_up(floor_to(start_at, DEMAND_BIN))
    before = _history(database, fleet, start_at, 300.0)
    _ingest(database, fleet, make_row, node=1)  # comes late: seen once it is added up
    late = _history(database, fleet, start_at, 300.0)
    assert [rate for _, rate in late[:-2]] == pytest.approx([rate for _, rate in before[:-2]])
    with database.begin() as connection:
        demand = DemandRepository(connection)
        demand.add_up(floor_to(start_at, DEMAND_BIN))
        assert demand.latest_at() == demand.latest_at(fleet.site_id)
        assert demand.forget(datetime(2030, 1, 1, tzinfo=UTC)) > 0
        assert demand.latest_at() is None
    after = _history(database, fleet, start_at, 300.0)
    assert [rate for _, rate in after] == pytest.approx([2 * rate for _, rate in before])
