"""``make bench``: what the hot paths cost on this machine. Figures, never a pass or fail.

CPU time of this process, so that a busy machine changes little; the database's own time is not
in it. Only feeds are by the wall clock, on an embedded database. Devices are simulated and their
own cost is left out of ticks and decisions: a real NVML call adds its own time, about 7 us a GPU
and read.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import click

from pals_grid.allocator.envelopes import allocate_envelopes
from pals_grid.core.budget import Reason
from pals_grid.core.fleet import NodeCapability, Origin
from pals_grid.core.grant import Grant
from pals_grid.core.site import Slo
from pals_grid.evaluate.bench_allocator import live_rounds, show_splits
from pals_grid.evaluate.bench_feeds import measure_feeds
from pals_grid.evaluate.bench_live import show_live
from pals_grid.evaluate.bench_plan import planning
from pals_grid.node.course import Course
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.node.strategies.registry import DEFAULT_STRATEGY, make_strategy
from pals_grid.powermodel.curve import node_power_curve
from pals_grid.powermodel.overhead import EIGHT_H100, FOUR_A100
from pals_grid.powermodel.table import build_frontier_table
from pals_grid.sim.arrivals import poisson
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, DEMO_SPEC
from pals_grid.sim.meter import SimMeter
from pals_grid.sim.plant import NodeSpec, SimNode
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import NodePower
    from pals_grid.node.decision import Decision
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.node.strategy import Strategy

NOW = datetime(2026, 1, 1, 9, tzinfo=UTC)  # the daily shape of the load is at its mean
TICK_S = 0.5
SETTLING_TICKS = 300
_H100, _QWEN = "NVIDIA H100 80GB HBM3", "Qwen/Qwen3-30B-A3B-Instruct-2507"
_H100_CLOCKS_MHZ = (None, 1600.0, 1400.0, 1200.0)
_H100_SEQS = 128
_H100_RATE_PER_S = 10.0  # of 19 that it can serve
#: Site budgets of the node of eight H100: room for all it wants; less than it draws when free.
FREE_W, BINDING_W = 9000.0, 3500.0


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one call, in milliseconds."""

    what: str
    p50_ms: float
    p99_ms: float
    calls: int


def measure(what: str, call: Callable[[], object], calls: int) -> Cost:
    """Time ``call`` after a tenth of the calls to warm up; garbage is collected between."""
    for _ in range(max(1, calls // 10)):
        call()
    gc.collect()
    times_ns = []
    for _ in range(calls):
        start_ns = time.process_time_ns()
        call()
        times_ns.append(time.process_time_ns() - start_ns)
    return cost(what, times_ns)


def cost(what: str, times_ns: Sequence[int]) -> Cost:
    """Quantiles of CPU times."""
    cuts = quantiles((spent_ns / 1e6 for spent_ns in times_ns), n=100)
    return Cost(what, cuts[49], cuts[98], len(times_ns))


def demo_table() -> FrontierTable:
    """Build the demo engine's table (modelled)."""
    return build_frontier_table(
        DEMO_SPEC.gpu_model, DEMO_SPEC.model, DEMO_SPEC.gpu_count, DEMO_INPUT_PER_OUTPUT
    )


class Timed:
    """A strategy whose decisions are timed."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.times_ns: list[int] = []

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Decide, and note the CPU time."""
        start_ns = time.process_time_ns()
        decisions = self._strategy.decide(seen, envelope, node_power, dt_s)
        self.times_ns.append(time.process_time_ns() - start_ns)
        return decisions

    def set_slo(self, slo: Slo) -> None:
        """Pass on."""
        self._strategy.set_slo(slo)

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Pass on."""
        self._strategy.hold_batch(index, max_num_seqs, refused=refused)


@dataclass
class Rig:
    """A simulated node under the production loop, with a budget to follow."""

    clock: SimClock
    plants: Sequence[SimNode]
    loop: ControlLoop
    strategy: Timed
    meter: RowMeter

    def measure(self, what: str, ticks: int) -> list[Cost]:
        """Time ticks with their rows, less what the plant takes, and their decisions."""
        self._run(SETTLING_TICKS)
        self.strategy.times_ns.clear()
        gc.collect()
        times_ns = self._run(ticks)
        decisions = cost(f"  its decision, engines: {len(self.plants)}", self.strategy.times_ns)
        return [cost(what, times_ns), decisions]

    def _run(self, ticks: int) -> list[int]:
        times_ns = []
        for _ in range(ticks):
            self.clock.advance(TICK_S)
            for plant in self.plants:
                plant.engine.observe()  # brings the plant up to now, and finds its quantiles
            start_ns = time.process_time_ns()
            self.meter.add(self.loop.tick())
            times_ns.append(time.process_time_ns() - start_ns)
        return times_ns


def h100_rig(engines: int, power_w: float) -> Rig:
    """Two H100 for each engine, at part load, with limits, batches and clock locks to choose.

    A live grant is in force, as it is at most times.
    """
    clock = SimClock(NOW)
    table = build_frontier_table(
        _H100, _QWEN, 2, DEMO_INPUT_PER_OUTPUT, sm_clocks_mhz=_H100_CLOCKS_MHZ
    )
    plants = [
        SimNode(
            clock,
            NodeSpec(f"n{i}", _H100, _QWEN, 2, EIGHT_H100, _H100_SEQS),
            poisson(_H100_RATE_PER_S, NOW, seed=i, burst_ratio=1.5),
            i,
        )
        for i in range(engines)
    ]
    units = tuple(
        EngineUnit(f"e{i}", plant.engine, plant.gpus, table, Origin.SIMULATED)
        for i, plant in enumerate(plants)
    )
    hardware = NodeHardware("8 x H100", Origin.SIMULATED, units, SimMeter(EIGHT_H100), EIGHT_H100)
    lease = Lease(None, power_w)
    lease.store(_schedule(power_w))
    slo = Slo()
    strategy = Timed(make_strategy(DEFAULT_STRATEGY, units, EIGHT_H100, slo))
    grants = LiveGrants(GrantFile(None), clock)
    grants.take(Grant(1, 1, power_w, 86_400.0), clock.monotonic_s())
    course = Course(lease, clock, grants, power_w)
    loop = ControlLoop(hardware, course, clock, slo, RestoreFile(None), strategy=strategy)
    return Rig(clock, plants, loop, strategy, RowMeter())


def _schedule(power_w: float) -> EnvelopeSchedule:
    interval = EnvelopeInterval(
        start_at=NOW,
        end_at=NOW + timedelta(days=1),
        power_min_w=0.0,
        power_max_w=power_w,
        target_tokens_per_s=0.0,
        reason=Reason.SHIFTED_OUT,
    )
    return EnvelopeSchedule(
        node_id=1, version=1, issued_at=NOW, safe_power_w=power_w, intervals=[interval]
    )


def allocating(nodes: int) -> Callable[[], object]:
    """Split one interval's budget among ``nodes`` nodes."""
    curve = node_power_curve(demo_table(), FOUR_A100, Slo())
    fleet = [
        NodeCapability(i, f"n{i}", curve.floor_w, curve.max_power_w, curve) for i in range(nodes)
    ]
    interval = planning(curve, fleets=nodes, hours=1, minutes=60)().intervals[0]
    return lambda: allocate_envelopes(interval, fleet)


def _demo_like(rate_per_s: float, tokens_in: float, tokens_out: float) -> tuple[SimClock, SimNode]:
    """Make the demo's plant under a steady mean load."""
    clock = SimClock(NOW)
    arrivals = poisson(rate_per_s, NOW, seed=1, tokens_in=tokens_in, tokens_out=tokens_out)
    return clock, SimNode(clock, DEMO_SPEC, arrivals, 1)


def simulating(rate_per_s: float, tokens_in: float, tokens_out: float) -> Callable[[], object]:
    """Advance the demo's plant by one tick, at its highest limit and batch."""
    clock, node = _demo_like(rate_per_s, tokens_in, tokens_out)

    def advance() -> None:
        clock.advance(TICK_S)
        node.advance()

    return advance


def controlling(rate_per_s: float, tokens_in: float, tokens_out: float) -> Callable[[], object]:
    """Tick the demo's plant under its control loop and strategy, rows included."""
    clock, node = _demo_like(rate_per_s, tokens_in, tokens_out)
    unit = EngineUnit("e", node.engine, node.gpus, demo_table(), Origin.SIMULATED)
    hardware = NodeHardware("sim", Origin.SIMULATED, (unit,), node.meter, FOUR_A100)
    loop = ControlLoop(hardware, Lease(None, 4000.0), clock, Slo(), RestoreFile(None))
    meter = RowMeter()

    def tick() -> None:
        clock.advance(TICK_S)
        meter.add(loop.tick())

    return tick


def speed(call: Callable[[], object], ticks: int, repeats: int = 10) -> tuple[float, float]:
    """Simulated time over CPU time of ticks: in the best of the repeats, and in all of them."""
    for _ in range(ticks):
        call()
    times_s = []
    for _ in range(repeats):
        start_ns = time.process_time_ns()
        for _ in range(ticks):
            call()
        times_s.append((time.process_time_ns() - start_ns) / 1e9)
    return ticks * TICK_S / min(times_s), ticks * TICK_S * repeats / sum(times_s)


def agent_peak_mb(seconds: float = 10.0) -> float | None:
    """Most memory that a `pals-grid agent` of its own holds (RSS, MB); None where /proc is not.

    With the demo's simulated node, whose plant counts in, and no service to talk to.
    """
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text("bench")
        token.chmod(0o600)
        command = [
            sys.executable, "-m", "pals_grid.cli.main", "agent", "--hardware", "sim",
            "--url", "http://127.0.0.1:9", "--token-file", str(token),
            "--state-dir", folder, "--log-level", "error",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as agent:  # noqa: S603  # ours
            time.sleep(seconds)
            status = ""
            with suppress(OSError):
                status = Path(f"/proc/{agent.pid}/status").read_text()
            agent.terminate()
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return float(peaks[0]) * 1024 / 1e6 if peaks else None


LOADS = ((6.0, 1155.0, 211.0), (200.0, 200.0, 5.0))
"""The demo's, and a heavy one: requests/s, prompt and output tokens."""


def main() -> None:
    """Print the tables."""
    curve = node_power_curve(demo_table(), FOUR_A100, Slo())
    costs = [
        *h100_rig(1, FREE_W).measure("tick, 2 GPUs, 1 engine, budget not binding", 3000),
        *h100_rig(4, FREE_W).measure("tick, 8 GPUs, 4 engines, budget not binding", 3000),
        *h100_rig(4, BINDING_W).measure("tick, 8 GPUs, 4 engines, budget binding", 3000),
        measure(
            "plan, 36 h at 30 min, 6 tiers, 20 fleets",
            planning(curve, fleets=20, hours=36, minutes=30),
            20,
        ),
        measure(
            "plan, 48 h at 5 min, 6 tiers, 50 fleets",
            planning(curve, fleets=50, hours=48, minutes=5),
            10,
        ),
        measure("allocate one interval, 100 nodes", allocating(100), 200),
        measure("live round, 10 000 nodes", live_rounds(10_000), 20),
    ]
    click.echo(f"{'CPU time of':44} {'p50 ms':>9} {'p99 ms':>9} {'calls':>6}")
    for item in costs:
        click.echo(f"{item.what:44} {item.p50_ms:9.3f} {item.p99_ms:9.3f} {item.calls:6d}")
    click.echo("Ticks and decisions: pals-grid at part load; rows included, devices left out.")
    show_splits()
    click.echo("\none node of 4 GPUs in ticks of 500 ms: x real time of CPU (best of 10, all)")
    for load in LOADS:
        rate_per_s, tokens_in, tokens_out = load
        name = f"{rate_per_s:g} requests/s of {tokens_in:g}/{tokens_out:g} tokens"
        for part, call in (("plant alone", simulating), ("with loop and rows", controlling)):
            best, mean = speed(call(*load), 400)
            click.echo(f"{name + ', ' + part:54} {best:9.0f} {mean:9.0f}")
    show_live()
    feeds = measure_feeds(NOW)
    click.echo("\nfeeds, a year of 5 min on an embedded Postgres, by the wall clock")
    click.echo(f"backfill of {feeds.values} values: {feeds.backfill_s:.1f} s")
    click.echo(
        f"query of {feeds.slots} quarter-hours as JSON: first {feeds.first_query_ms:.0f} ms, "
        f"then p50 {feeds.query_p50_ms:.0f} ms, most {feeds.query_max_ms:.0f} ms"
    )
    peak_mb = agent_peak_mb()
    shown = "unknown: no /proc here" if peak_mb is None else f"{peak_mb:.0f} MB"
    click.echo(f"\nmemory of a node's agent (peak RSS, simulated devices): {shown}")


if __name__ == "__main__":
    main()
