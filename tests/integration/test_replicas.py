"""Several processes of the service over one database: what one begins and dies with, others do."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.evaluate.bench_cluster import replicas
from pals_grid.evaluate.cluster_world import ClusterSize, fill_cluster
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

    from pals_grid.store.engine import Database

SITES = 12
PATIENCE_S = 300.0


def long_slot_s() -> float:
    """A length of slots whose present one does not end while the test runs."""
    now_s = datetime.now(UTC).timestamp()
    return max(map(float, range(1800, 3601, 60)), key=lambda slot_s: slot_s - now_s % slot_s)


def load_runs(database: Database) -> list[Row[tuple[str, str, bool, str | None]]]:
    query = text(
        "SELECT job_id, claimed_by, finished_at IS NOT NULL AS finished, error FROM job_run"
        " WHERE job_id LIKE 'replan:%' ORDER BY job_id"
    )
    with database.read() as connection:
        return list(connection.execute(query))


@contextmanager
def held_up(database: Database, site_id: int) -> Iterator[None]:
    """Let whoever plans this site wait."""
    with database.begin() as connection:
        SiteRepository(connection).lock(site_id)
        yield


def wait_for(database: Database, what: str, **values: object) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        with database.read() as connection:
            if connection.execute(text(what), values).scalar():
                return
        time.sleep(0.1)
    raise AssertionError(what)


def test_what_a_killed_replica_had_begun_is_done_by_the_others_once(database: Database) -> None:
    size = ClusterSize(SITES, 2, history_days=0.1, slot_s=long_slot_s(), horizon_s=6 * 3600.0)
    ids = fill_cluster(database, size)
    stuck = f"replan:{ids[3]}"
    with (
        tempfile.TemporaryDirectory(prefix="pals-grid-test-") as folder,
        replicas(database.url, 3, Path(folder)),
    ):
        with held_up(database, ids[3]):
            wait_for(
                database,
                "SELECT (SELECT count(*) FROM job_run WHERE job_id LIKE 'replan:%'"
                " AND finished_at IS NOT NULL) = :others"
                " AND EXISTS (SELECT FROM job_run WHERE job_id = :stuck)"
                " AND (SELECT count(*) FROM replica) = 3",
                others=SITES - 1,
                stuck=stuck,
            )
            (dead,) = [run.claimed_by for run in load_runs(database) if run.job_id == stuck]
            os.kill(int(dead.split(":")[1]), signal.SIGKILL)
        wait_for(database, "SELECT finished_at FROM job_run WHERE job_id = :stuck", stuck=stuck)
    runs = load_runs(database)
    assert [(run.finished, run.error) for run in runs] == [(True, None)] * SITES
    assert {run.job_id: run.claimed_by for run in runs}[stuck] != dead
    with database.read() as connection:
        made = connection.execute(
            text("SELECT site_id, count(*) FROM plan WHERE trigger = 'schedule' GROUP BY 1")
        )
        assert {row[0]: row[1] for row in made} == dict.fromkeys(ids, 1)
