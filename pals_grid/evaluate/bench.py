"""``make bench``: what the hot paths cost on this machine. Figures, never a pass or fail.

CPU time of this process, so that a busy machine changes little; the database's own time is not
in it. Devices are fakes: a real NVML call adds its own time, about 7 us a GPU and read.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import TYPE_CHECKING

import click

from pals_grid.allocator.share import allocate_envelopes
from pals_grid.core.budget import PlanRequest, PlanSlot
from pals_grid.core.fleet import NodeCapability, Origin, PowerCurve
from pals_grid.core.intervals import slots
from pals_grid.core.site import SitePolicy, Slo
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.planner.first import plan_power_budget
from pals_grid.powermodel.curve import node_power_curve
from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.powermodel.table import build_frontier_table
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, DEMO_SPEC, demo_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.budget import PowerBudget
    from pals_grid.core.fleet import FrontierTable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GPUS = 8


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
    times_ms = []
    for _ in range(calls):
        start_ns = time.process_time_ns()
        call()
        times_ms.append((time.process_time_ns() - start_ns) / 1e6)
    cuts = quantiles(times_ms, n=100)
    return Cost(what, cuts[49], cuts[98], calls)


def demo_table() -> FrontierTable:
    """Build the demo engine's table (modelled)."""
    return build_frontier_table(
        DEMO_SPEC.gpu_model, DEMO_SPEC.model, DEMO_SPEC.gpu_count, DEMO_INPUT_PER_OUTPUT
    )


def ticking(engines: int) -> Callable[[], object]:
    """Tick a node of eight fake GPUs under ``engines`` engines, rows included."""
    clock = SimClock(NOW)
    per_engine = GPUS // engines
    table = demo_table()
    fakes = [[FakeGpu(f"{i}-{k}") for k in range(per_engine)] for i in range(engines)]
    units = tuple(
        EngineUnit(f"e{i}", FakeEngine(), tuple(gpus), table, Origin.SIMULATED)
        for i, gpus in enumerate(fakes)
    )
    hardware = NodeHardware("fakes", Origin.SIMULATED, units, LinearNodeMeter(FOUR_A100), FOUR_A100)
    loop = ControlLoop(hardware, Lease(None, 4000.0), clock, Slo(), RestoreFile(None))
    meter = RowMeter()

    def tick() -> None:
        clock.advance(0.5)
        for unit, gpus in zip(units, fakes, strict=True):
            assert isinstance(unit.engine, FakeEngine)
            unit.engine.running = 16
            unit.engine.serve(150.0, finished=1, tokens_in=500.0)
            for gpu in gpus:
                gpu.run(0.5)
        meter.add(loop.tick())

    return tick


def planning(hours: int, minutes: int) -> Callable[[], PowerBudget]:
    """Plan a horizon for a fleet of twenty nodes, a third of the work deferrable."""
    curve = node_power_curve(demo_table(), FOUR_A100, Slo())
    policy = SitePolicy(
        slug="bench",
        name="Bench",
        grid_connection_w=40_000.0,
        minimum_w=0.0,
        safe_limit_w=0.0,
        deferrable_ratio=0.3,
    )
    grid = slots(NOW, NOW + timedelta(hours=hours), timedelta(minutes=minutes))
    request = PlanRequest(
        policy=policy,
        curve=PowerCurve.combined([curve] * 20),
        slots=tuple(
            PlanSlot(interval, 50.0 + (i * 37) % 101, 200.0, 0.5 * 20 * curve.max_tokens_per_s)
            for i, interval in enumerate(grid)
        ),
        events=(),
        planned_at=NOW,
    )
    return lambda: plan_power_budget(request)


def allocating(nodes: int) -> Callable[[], object]:
    """Split one interval's budget among ``nodes`` nodes."""
    curve = node_power_curve(demo_table(), FOUR_A100, Slo())
    fleet = [
        NodeCapability(i, f"n{i}", curve.floor_w, curve.max_power_w, curve) for i in range(nodes)
    ]
    interval = planning(1, 60)().intervals[0]
    return lambda: allocate_envelopes(interval, fleet)


def simulating() -> Callable[[], object]:
    """Advance the demo's plant by one tick."""
    clock = SimClock(NOW)
    node = demo_node(clock)

    def advance() -> None:
        clock.advance(0.5)
        node.advance()

    return advance


def main() -> None:
    """Print the table."""
    costs = [
        measure("tick, 8 GPUs, 1 engine, rows included", ticking(1), 4000),
        measure("tick, 8 GPUs, 4 engines, rows included", ticking(4), 2000),
        measure("simulated node, 500 ms", simulating(), 4000),
        measure("plan, 36 h at 30 min, 20 nodes", planning(36, 30), 30),
        measure("plan, 48 h at 5 min, 20 nodes", planning(48, 5), 5),
        measure("allocate one interval, 100 nodes", allocating(100), 200),
    ]
    click.echo(f"{'CPU time of':42} {'p50 ms':>9} {'p99 ms':>9} {'calls':>6}")
    for cost in costs:
        click.echo(f"{cost.what:42} {cost.p50_ms:9.3f} {cost.p99_ms:9.3f} {cost.calls:6d}")


if __name__ == "__main__":
    main()
