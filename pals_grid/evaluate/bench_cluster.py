"""``make bench-cluster``: replicas of the service over one Postgres plan a large, made-up cluster.

Real processes (``pals-grid serve``), a real database, synthetic sites. In the last slot one
replica is killed by SIGKILL in the middle of its work. Figures, never a pass or fail.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from sqlalchemy import text

from pals_grid.core.intervals import floor_to
from pals_grid.evaluate.cluster_world import ClusterSize, fill_cluster
from pals_grid.evaluate.scratch import scratch_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.store.engine import Database

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# Whoever reports is online; the nodes' own traffic is measured apart (bench_nodes).
_ALL_SEEN = text("UPDATE node SET last_seen_at = clock_timestamp()")

_RUNS = text("""
    SELECT claimed_by, count(*) AS runs, count(*) FILTER (WHERE error IS NOT NULL) AS failed,
           count(*) FILTER (WHERE finished_at IS NULL) AS open,
           max(extract(epoch FROM finished_at - scheduled_for)) AS latest_s,
           percentile_cont(0.5) WITHIN GROUP (
               ORDER BY extract(epoch FROM finished_at - started_at)) AS run_p50_s,
           percentile_cont(0.95) WITHIN GROUP (
               ORDER BY extract(epoch FROM finished_at - started_at)) AS run_p95_s
    FROM job_run WHERE job_id LIKE 'replan:%' AND scheduled_for = :slot_at GROUP BY 1 ORDER BY 1
""")

_PLANS = text("""
    SELECT site.id, count(plan.id) AS plans FROM site LEFT JOIN plan
        ON plan.site_id = site.id AND plan.trigger = 'schedule'
       AND plan.created_at >= :slot_at AND plan.created_at < :end_at
    GROUP BY site.id
""")

_SIZES = text("""
    SELECT relname, pg_total_relation_size(oid) / 1e6 AS mb, (SELECT count(*) FROM plan) AS plans
    FROM pg_class WHERE relname IN ('plan', 'plan_interval', 'plan_share', 'plan_input', 'job_run')
    ORDER BY relname
""")


@dataclass(slots=True)
class Replica:
    """One ``pals-grid serve``."""

    number: int
    process: subprocess.Popen[bytes]
    port: int

    @property
    def cpu_s(self) -> float:
        """CPU time so far; 0 when it has ended."""
        return cpu_s(self.process.pid)


def cpu_s(pid: int) -> float:
    """User and system time of a process in seconds; 0 where it is not to be had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def replicas(url: str, count: int, folder: Path) -> Iterator[list[Replica]]:
    """``count`` services over one database, until the end of the block."""
    started: list[Replica] = []
    try:
        started.extend(start_replica(url, number, folder) for number in range(count))
        yield started
    finally:
        for replica in started:
            if replica.process.poll() is None:
                replica.process.terminate()
        for replica in started:
            replica.process.wait(30)


def start_replica(url: str, number: int, folder: Path) -> Replica:
    """Start one; what it says is in a file of the folder."""
    own = folder / f"replica-{number}"
    own.mkdir()
    port = _free_port()
    environ = {
        **os.environ,
        "PALS_GRID_DATABASE_URL": url,
        "PALS_GRID_DATA_DIR": str(own),
        "PALS_GRID_PORT": str(port),
        "PALS_GRID_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "pals_grid.cli.main", "serve"]
    with (own / "out").open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)  # noqa: S603 # ours
    return Replica(number, process, port)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def keep_seen(database: Database, every_s: float = 20.0) -> Iterator[None]:
    """Let all nodes seem to report."""
    stopping = threading.Event()

    def keep() -> None:
        while not stopping.wait(every_s):
            with database.begin() as connection:
                connection.execute(_ALL_SEEN)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class SlotResult:
    """What came of one slot: runs by replica, and sites with none or several plans."""

    slot_at: datetime
    runs: dict[str, int]
    failed: int
    open: int
    latest_s: float
    run_p50_s: float
    run_p95_s: float
    missed: int
    doubled: int


def judge_slot(database: Database, slot_at: datetime, slot_s: float) -> SlotResult:
    """Count what the database has of a slot."""
    with database.read() as connection:
        runs = connection.execute(_RUNS, {"slot_at": slot_at}).all()
        end_at = slot_at + timedelta(seconds=slot_s)
        plans = connection.execute(_PLANS, {"slot_at": slot_at, "end_at": end_at}).all()
    return SlotResult(
        slot_at,
        {row.claimed_by: row.runs for row in runs},
        sum(row.failed for row in runs),
        sum(row.open for row in runs),
        max((float(row.latest_s or 0) for row in runs), default=0.0),
        max((row.run_p50_s or 0.0 for row in runs), default=0.0),
        max((row.run_p95_s or 0.0 for row in runs), default=0.0),
        sum(row.plans == 0 for row in plans),
        sum(row.plans > 1 for row in plans),
    )


def wait_for_slot(
    database: Database, slot_at: datetime, sites: int, until_s: float
) -> float | None:
    """Wait until all sites of a slot are planned; seconds after its begin, None: they were not."""
    query = text(
        "SELECT count(*) FROM job_run WHERE job_id LIKE 'replan:%' AND scheduled_for = :slot_at"
        " AND finished_at IS NOT NULL AND error IS NULL"
    )
    while (now := datetime.now(UTC)).timestamp() < until_s:
        with database.read() as connection:
            done = connection.execute(query, {"slot_at": slot_at}).scalar_one()
        if done == sites:
            return (now - slot_at).total_seconds()
        time.sleep(0.5)
    return None


def show(result: SlotResult, took_s: float | None) -> None:
    """Print a slot's line and its replicas' shares."""
    took = "NOT within the slot" if took_s is None else f"after {took_s:.0f} s"
    click.echo(
        f"slot {result.slot_at:%H:%M:%S}: all planned {took}; missed {result.missed}, "
        f"doubled {result.doubled}, failed {result.failed}; a run p50 {result.run_p50_s:.2f} s, "
        f"p95 {result.run_p95_s:.2f} s; by replica {sorted(result.runs.values())}"
    )


@click.command()
@click.option("--database-url", default=None, help="a server that may make databases")
@click.option("--sites", default=300)
@click.option("--nodes", default=33, help="of each site")
@click.option("--replicas", "count", default=3)
@click.option("--slot-s", default=300.0)
@click.option("--slots", default=3, help="whole slots; in the last one a replica is killed")
def main(
    database_url: str | None, sites: int, nodes: int, count: int, slot_s: float, slots: int
) -> None:
    """Plan a made-up cluster by several replicas, and print what came of it."""
    size = ClusterSize(sites, nodes, slot_s=slot_s)
    with ExitStack() as stack:
        database = stack.enter_context(scratch_database(database_url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pals-grid-bench-")))
        began_s = time.monotonic()
        fill_cluster(database, size)
        _analyze(database)
        click.echo(
            f"{sites} sites of {nodes} nodes (synthetic), slots of {slot_s:g} s over 48 h, "
            f"{count} replicas, {os.cpu_count()} cores; made in {time.monotonic() - began_s:.0f} s"
        )
        stack.enter_context(keep_seen(database))
        running = stack.enter_context(replicas(database.url, count, folder))
        _run_slots(database, size, running, slots)
        for row in _sizes(database):
            click.echo(f"{row[0]}: {row[1]:.0f} MB after {row[2]} plans")


def _run_slots(database: Database, size: ClusterSize, running: list[Replica], slots: int) -> None:
    step = timedelta(seconds=size.slot_s)
    # The first slot is begun late: replicas start, and what they plan then is not judged.
    slot_at = floor_to(datetime.now(UTC), step) + step
    for number in range(slots):
        time.sleep(max(0.0, slot_at.timestamp() - time.time()))
        before = [replica.cpu_s for replica in running]
        is_last = number == slots - 1
        if is_last and len(running) > 1:
            _kill_in_the_middle(database, slot_at, size.sites, running[0])
        until_s = slot_at.timestamp() + size.slot_s
        took_s = wait_for_slot(database, slot_at, size.sites, until_s)
        spent = [
            f"{replica.cpu_s - cpu_before_s:.0f}" if replica.process.poll() is None else "killed"
            for replica, cpu_before_s in zip(running, before, strict=True)
        ]
        show(judge_slot(database, slot_at, size.slot_s), took_s)
        click.echo(f"  CPU seconds of the replicas until then: {', '.join(spent)}")
        slot_at += step


def _kill_in_the_middle(
    database: Database, slot_at: datetime, sites: int, replica: Replica
) -> None:
    """Kill a replica when a third of the slot's runs have begun."""
    query = text(
        "SELECT count(*) FROM job_run WHERE job_id LIKE 'replan:%' AND scheduled_for = :at"
    )
    begun = 0
    while begun < sites / 3:
        time.sleep(0.05)
        with database.read() as connection:
            begun = connection.execute(query, {"at": slot_at}).scalar_one()
    replica.process.send_signal(signal.SIGKILL)
    replica.process.wait()
    click.echo(f"killed replica {replica.number} with {begun} of {sites} runs begun")


def _sizes(database: Database) -> list[tuple[str, float, int]]:
    with database.read() as connection:
        return [(row[0], float(row[1]), row[2]) for row in connection.execute(_SIZES)]


def _analyze(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("ANALYZE"))


if __name__ == "__main__":
    main()
