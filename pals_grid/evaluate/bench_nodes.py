"""``make bench-nodes``: what one process of the service takes from nodes. Synthetic load.

A real ``pals-grid serve`` over a real database, raw HTTP/1.1 on kept connections from this
process, closed loops: as many requests as are answered. Figures, never a pass or fail. The load
takes CPU of the same machine, and more so than nodes would: figures are a lower bound.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import click

from pals_grid.core.fleet import Origin
from pals_grid.evaluate.bench_cluster import cpu_s, replicas
from pals_grid.evaluate.cluster_world import ClusterSize, fill_cluster, node_token
from pals_grid.evaluate.scratch import scratch_database
from pals_grid.wire.messages import (
    EngineRow,
    EngineStatus,
    GpuStatus,
    NodeStatus,
    TelemetryBatch,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@dataclass(slots=True)
class Tally:
    """What came of requests: seconds of each, and answers that were refusals."""

    times_s: list[float] = field(default_factory=list)
    refused: int = 0


@dataclass
class Client:
    """One node's kept connection."""

    port: int
    node_id: int
    token: str
    tally: Tally

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, method: str, path: str, body: bytes = b"") -> None:
        """Ask, and read the answer."""
        head = (
            f"{method} /api/v1/nodes/{self.node_id}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        started_s = time.perf_counter()
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "content-length:" in answer:
            length = int(answer.split("content-length:")[1].split("\r\n")[0])
            await self._reader.readexactly(length)
        self.tally.times_s.append(time.perf_counter() - started_s)
        self.tally.refused += not answer.startswith(("http/1.1 20",))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def status_of(node_id: int) -> bytes:
    """A status as a node of eight GPUs sends it."""
    message = NodeStatus(
        at=datetime.now(UTC),
        mode="following",
        envelope_version=1,
        power_envelope_w=5000.0,
        node_power_w=4000.0 + node_id % 100,
        node_power_origin=Origin.SIMULATED,
        gpu_power_w=3200.0,
        tick_lag_ms=0.1,
        engines=[
            EngineStatus(
                engine="e0",
                model="llama",
                power_limit_w=500.0,
                power_draw_w=3200.0,
                max_num_seqs=128,
                requests_running=60,
                requests_waiting=2,
                tokens_out_per_s=4000.0,
                gpu_energy_j_per_token=0.8,
                reason="following",
            )
        ],
        gpus=[
            GpuStatus(gpu_uuid=f"GPU-{i}", power_draw_w=400.0, power_limit_w=500.0)
            for i in range(8)
        ],
    )
    return encode(message)


def batches(node_id: int, rows: int) -> Iterator[bytes]:
    """Batches of ``rows`` rows of 5 s, each new, until an hour ago is reached from a day ago."""
    start_at = datetime.now(UTC) - timedelta(hours=23)
    for number in itertools.count():
        made = [_row(start_at + timedelta(seconds=5 * (number * rows + i))) for i in range(rows)]
        batch = TelemetryBatch(spool_id=f"b{node_id}", seq=number, engine_rows=made, gpu_rows=[])
        yield encode(batch)


def _row(start_at: datetime) -> EngineRow:
    return EngineRow(
        engine="e0",
        model="llama",
        start_at=start_at,
        end_at=start_at + timedelta(seconds=5),
        ticks=10,
        gpu_energy_j=16_000.0,
        node_energy_j=20_000.0,
        idle_energy_j=0.0,
        energy_origin=Origin.SIMULATED,
        node_energy_origin=Origin.SIMULATED,
        power_draw_w=3200.0,
        power_draw_max_w=3300.0,
        power_limit_w=4000.0,
        power_envelope_w=5000.0,
        ticks_over_envelope=0,
        max_num_seqs=128,
        requests_running=60.0,
        requests_waiting=2.0,
        tokens_in=50_000.0,
        tokens_out=20_000.0,
        requests_finished=60,
        ttft_misses=0,
        itl_misses=0,
    )


async def drive(
    clients: list[Client], seconds: float, ask: Callable[[Client], Awaitable[None]]
) -> float:
    """Let every client ask again and again; returns how long that took in seconds."""
    started_s = time.perf_counter()

    async def loop(client: Client) -> None:
        await client.open()
        while time.perf_counter() - started_s < seconds:
            await ask(client)
        client.close()

    await asyncio.gather(*(loop(client) for client in clients))
    return time.perf_counter() - started_s


async def _waits(clients: list[Client]) -> None:
    """Every client waits for a schedule that does not come, 10 s, once."""

    async def wait(client: Client) -> None:
        await client.open()
        await client.send("GET", "envelopes?after_version=1000000&wait_s=10")
        client.close()

    await asyncio.gather(*(wait(client) for client in clients))


def report(what: str, tally: Tally, took_s: float, spent_s: float, each: int = 1) -> None:
    """Print one line."""
    cuts = quantiles(tally.times_s, n=100)
    rate = len(tally.times_s) / took_s
    click.echo(
        f"{what:44} {rate * each:8.0f}/s {cuts[49] * 1e3:8.1f} {cuts[98] * 1e3:8.1f}"
        f" {spent_s / len(tally.times_s) * 1e3:9.2f} {spent_s / took_s:6.2f} {tally.refused:5d}"
    )


async def _ready(port: int) -> None:
    for _ in range(300):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if b" 200 " in answer[:20]:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(port)


@click.command()
@click.option("--database-url", default=None, help="a server that may make databases")
@click.option("--nodes", default=100, help="connections that ask at a time")
@click.option("--waiting", default=1000, help="schedules waited for at a time")
@click.option("--seconds", default=15.0, help="of each kind of load")
def main(database_url: str | None, nodes: int, waiting: int, seconds: float) -> None:
    """Measure what one process takes."""
    # No slot begins meanwhile: plans are measured by bench_cluster.
    size = ClusterSize(1, max(nodes, waiting), history_days=0.1, minutes=0.0, slot_s=3600.0)
    with ExitStack() as stack:
        database = stack.enter_context(scratch_database(database_url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pals-grid-bench-")))
        fill_cluster(database, size)
        (replica,) = stack.enter_context(replicas(database.url, 1, folder))
        asyncio.run(_ready(replica.port))
        time.sleep(20)  # the first plan
        click.echo(f"one process, {os.cpu_count()} cores, {nodes} connections; synthetic")
        click.echo(
            f"{'':44} {'':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>9} {'cores':>6} {'bad':>5}"
        )
        tally = Tally()
        clients = [Client(replica.port, i + 1, node_token(0, i), tally) for i in range(nodes)]
        before_s = cpu_s(replica.process.pid)
        took_s = asyncio.run(
            drive(clients, seconds, lambda one: one.send("POST", "status", status_of(one.node_id)))
        )
        report("statuses", tally, took_s, cpu_s(replica.process.pid) - before_s)
        for rows in (1, 12):
            _telemetry(replica.port, replica.process.pid, nodes, seconds, rows)
        tally = Tally()
        clients = [Client(replica.port, i + 1, node_token(0, i), tally) for i in range(nodes)]
        before_s = cpu_s(replica.process.pid)
        took_s = asyncio.run(drive(clients, seconds, lambda one: one.send("GET", "envelopes")))
        report(
            "schedules of 48 h by the hour", tally, took_s, cpu_s(replica.process.pid) - before_s
        )
        tally = Tally()
        clients = [Client(replica.port, i + 1, node_token(0, i), tally) for i in range(waiting)]
        before_s, started_s = cpu_s(replica.process.pid), time.perf_counter()
        asyncio.run(_waits(clients))
        took_s = time.perf_counter() - started_s
        report(f"{waiting} waits of 10 s", tally, took_s, cpu_s(replica.process.pid) - before_s)


def _telemetry(port: int, pid: int, nodes: int, seconds: float, rows: int) -> None:
    tally = Tally()
    clients = [Client(port, i + 1, node_token(0, i), tally) for i in range(nodes)]
    # A new spool for each size, further back, so that every row is new.
    feeds = {client.node_id: batches(client.node_id * 1000 + rows, rows) for client in clients}
    before_s = cpu_s(pid)
    took_s = asyncio.run(
        drive(clients, seconds, lambda one: one.send("POST", "telemetry", next(feeds[one.node_id])))
    )
    report(f"telemetry rows, {rows} a batch", tally, took_s, cpu_s(pid) - before_s, rows)


if __name__ == "__main__":
    main()
