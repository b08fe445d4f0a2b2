from __future__ import annotations

import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.node.rows import Rows
from pals_grid.node.spool import Spool
from pals_grid.wire.messages import GpuRow

if TYPE_CHECKING:
    import pytest

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def gpu_rows(first: int, count: int) -> Rows:
    return Rows(
        (),
        tuple(
            GpuRow(
                gpu_uuid="g",
                start_at=START_AT + timedelta(seconds=5 * n),
                end_at=START_AT + timedelta(seconds=5 * n + 5),
                energy_j=float(n),
                power_draw_w=1.0,
                power_limit_w=1.0,
            )
            for n in range(first, first + count)
        ),
    )


def test_a_batch_stays_the_same_until_it_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite3"
    spool = Spool(path, batch_rows=3)
    spool.append(gpu_rows(0, 5))
    first = spool.next_batch()
    assert first is not None
    spool.append(gpu_rows(5, 5))
    spool.close()
    spool = Spool(path, batch_rows=3)  # a new process
    assert spool.next_batch() == first
    spool.acknowledge(first.seq)
    second = spool.next_batch()
    assert second is not None
    assert second.seq == first.seq + 1
    assert second.spool_id == first.spool_id
    assert [row.energy_j for row in second.gpu_rows] == [3.0, 4.0, 5.0]
    assert len(spool) == 7
    spool.close()


def test_numbers_never_repeat_even_when_it_was_empty(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite3"
    seen = []
    for n in range(4):
        spool = Spool(path)
        spool.append(gpu_rows(n, 1))
        batch = spool.next_batch()
        assert batch is not None
        seen.append(batch.seq)
        spool.acknowledge(batch.seq)
        assert spool.next_batch() is None
        spool.close()
    assert seen == [1, 2, 3, 4]


def test_a_full_spool_gives_up_its_oldest_and_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.sqlite3"
    spool = Spool(path, max_rows=10, batch_rows=4)
    spool.append(gpu_rows(0, 10))
    assert spool.next_batch() is not None  # rows 0 to 3 are sealed
    spool.append(gpu_rows(10, 2))
    assert (len(spool), spool.dropped_rows) == (8, 4)  # the sealed batch went as a whole
    spool.append(gpu_rows(12, 5))
    assert (len(spool), spool.dropped_rows) == (10, 7)
    batch = spool.next_batch()
    assert batch is not None
    assert [row.energy_j for row in batch.gpu_rows] == [7.0, 8.0, 9.0, 10.0]
    assert "oldest 4 are lost" in caplog.text
    spool.close()
    again = Spool(path)
    assert (len(again), again.dropped_rows) == (10, 7)
    again.close()


def test_a_refused_batch_is_counted_as_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite3")
    spool.append(gpu_rows(0, 3))
    batch = spool.next_batch()
    assert batch is not None
    spool.refuse(batch.seq)
    assert (len(spool), spool.dropped_rows) == (0, 3)
    spool.close()


def test_a_row_that_cannot_be_read_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool.sqlite3")
    spool.append(gpu_rows(0, 3))
    with spool._db:
        spool._db.execute("UPDATE spool_row SET payload = '{}' WHERE id = 2")
    batch = spool.next_batch()
    assert batch is not None
    assert [row.energy_j for row in batch.gpu_rows] == [0.0, 2.0]
    assert (len(spool), spool.dropped_rows) == (2, 1)
    assert spool.next_batch() == batch
    spool.acknowledge(batch.seq)
    assert spool.next_batch() is None
    assert "a spooled gpu row is given up" in caplog.text
    spool.close()


def test_a_damaged_file_is_kept_and_a_new_spool_has_a_new_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.sqlite3"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    spool = Spool(path)
    spool.append(gpu_rows(0, 1))
    assert len(spool) == 1
    spool.close()
    assert (tmp_path / "spool.sqlite3.corrupt-1").exists()
    assert "cannot be read" in caplog.text


def test_it_is_durable(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite3")
    found = [
        spool._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous")
    ]
    assert found == ["wal", 2]
    spool.close()


class FlakyService:
    """Commits a batch once by (spool_id, seq), as the service does; loses calls and answers."""

    def __init__(self) -> None:
        self.batches: set[tuple[str, int]] = set()
        self.values: list[float] = []


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["rows", "deliver", "lost request", "lost answer", "restart"]), max_size=25
    )
)
def test_every_row_arrives_exactly_once(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.sqlite3"
        service = FlakyService()
        spool = Spool(path, batch_rows=4)
        appended = 0
        for step in [*steps, *["deliver"] * (3 * len(steps) + 1)]:
            if step == "rows":
                spool.append(gpu_rows(appended, 3))
                appended += 3
            elif step == "restart":
                spool.close()
                spool = Spool(path, batch_rows=4)
            elif step != "lost request" and (batch := spool.next_batch()) is not None:
                if (batch.spool_id, batch.seq) not in service.batches:
                    service.batches.add((batch.spool_id, batch.seq))
                    service.values += [row.energy_j for row in batch.gpu_rows]
                if step == "deliver":
                    spool.acknowledge(batch.seq)
        spool.close()
        assert service.values == [float(n) for n in range(appended)]


def test_errors_of_the_disk_come_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite3")
    spool.close()
    try:
        spool.append(gpu_rows(0, 1))
    except sqlite3.Error:
        return
    raise AssertionError("a closed spool took a row")
