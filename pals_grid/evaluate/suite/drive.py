"""A simulated node under the production control loop, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.evaluate.suite.metrics import TickSample
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.restore import RestoreFile
from pals_grid.sim.arrivals import ClosedLoop
from pals_grid.sim.clock import SimClock
from pals_grid.sim.meter import SimMeter
from pals_grid.sim.plant import NodeSpec, SimNode
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pals_grid.core.commands import NodeCommand
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.node.report import TickReport
    from pals_grid.node.strategy import Strategy
    from pals_grid.powermodel.overhead import NodeOverhead
    from pals_grid.powermodel.physics import EngineModel
    from pals_grid.sim.arrivals import Request
    from pals_grid.sim.engine import RequestRecord

TICK_S = 0.5
START_AT = datetime(2026, 1, 1, tzinfo=UTC)
UNLIMITED_W = 1e7


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """One engine of a node, its load, and the table that its controller may look at."""

    name: str
    engine: EngineModel
    max_num_seqs: int
    arrivals: Iterable[Request] | ClosedLoop
    table: FrontierTable
    slo: Slo = field(default_factory=Slo)
    max_loss_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """An envelope from ``start_s`` to ``end_s`` at the node's boundary."""

    start_s: float
    end_s: float
    power_max_w: float
    target_tokens_per_s: float = 0.0


class MakeStrategy(Protocol):
    """Makes the strategy of one node."""

    def __call__(self, units: Sequence[EngineUnit], overhead: NodeOverhead, slo: Slo) -> Strategy:
        """Return the strategy of a node with these units."""
        ...


class EngineRun:
    """One engine's plant with what arrived and what was finished."""

    def __init__(
        self, setup: EngineSetup, clock: SimClock, overhead: NodeOverhead, seed: int
    ) -> None:
        self.setup = setup
        self.arrived: list[Request] = []
        self.finished: list[RequestRecord] = []
        spec = NodeSpec(
            name=setup.name,
            gpu_model=setup.engine.gpu_model,
            model=setup.engine.model,
            gpu_count=setup.engine.gpu_count,
            overhead=overhead,
            max_num_seqs=setup.max_num_seqs,
            slo=setup.slo,
            engine=setup.engine,
        )
        source = setup.arrivals
        arrivals = source if isinstance(source, ClosedLoop) else self._noted(source)
        self.sim = SimNode(clock, spec, arrivals, seed, record=self.finished.append)

    @property
    def gpu_j(self) -> float:
        """Energy of its GPUs since the start."""
        return sum(gpu.energy_j for gpu in self.sim.gpus)

    def unit(self) -> EngineUnit:
        """The engine as the control loop sees it."""
        setup = self.setup
        return EngineUnit(
            setup.name,
            self.sim.engine,
            self.sim.gpus,
            setup.table,
            Origin.SIMULATED,
            setup.max_loss_ratio,
        )

    def set(self, command: NodeCommand) -> None:
        """Set limit, batch and clock at once, without a loop."""
        for gpu in self.sim.gpus:
            gpu.apply_power_limit(command.power_limit_w)
            gpu.apply_clock_limit(command.sm_clock_mhz)
        self.sim.engine.apply_max_num_seqs(command.max_num_seqs)

    def _noted(self, arrivals: Iterable[Request]) -> Iterator[Request]:
        for request in arrivals:
            self.arrived.append(request)
            yield request


class NodeRun:
    """A node in simulated time: plant, lease and, with a strategy, the production loop."""

    def __init__(
        self,
        setups: Sequence[EngineSetup],
        overhead: NodeOverhead,
        seed: int,
        make_strategy: MakeStrategy,
        clock: SimClock | None = None,
    ) -> None:
        self.clock = clock or SimClock(START_AT)
        self.overhead = overhead
        self.engines = [
            EngineRun(setup, self.clock, overhead, 1000 * seed + i)
            for i, setup in enumerate(setups)
        ]
        self.hardware = NodeHardware(
            "simulated node",
            Origin.SIMULATED,
            tuple(engine.unit() for engine in self.engines),
            SimMeter(overhead),
            overhead,
        )
        slo = setups[0].slo
        self.lease = Lease(None, UNLIMITED_W)
        self.strategy = make_strategy(self.hardware.units, overhead, slo)
        self._loop = ControlLoop(
            self.hardware,
            self.lease,
            self.clock,
            slo,
            RestoreFile(None),
            period_s=TICK_S,
            strategy=self.strategy,
        )
        self._version = 0
        self.ticks: list[TickSample] = []
        self.engine_tokens: list[list[float]] = [[] for _ in setups]

    def grant(self, slots: Iterable[Slot]) -> None:
        """Hand over a schedule, as the service would."""
        self._version += 1
        self.lease.store(
            EnvelopeSchedule(
                node_id=1,
                version=self._version,
                issued_at=self.clock.now(),
                safe_power_w=UNLIMITED_W,
                intervals=[
                    EnvelopeInterval(
                        start_at=START_AT + timedelta(seconds=slot.start_s),
                        end_at=START_AT + timedelta(seconds=slot.end_s),
                        power_min_w=0.0,
                        power_max_w=slot.power_max_w,
                        target_tokens_per_s=slot.target_tokens_per_s,
                        reason=Reason.DEMAND,
                    )
                    for slot in slots
                ],
            )
        )

    def tick(self) -> TickReport:
        """Run the loop once, now, and note what the plant did since the last time."""
        report = self._loop.tick()
        self._note(report)
        return report

    def run_until(self, end_s: float, each: Callable[[TickReport], None] | None = None) -> None:
        """Tick until the clock stands at ``end_s``."""
        while self.clock.monotonic_s() < end_s - 1e-9:
            if not self.ticks:
                self.tick()
            self.clock.advance(TICK_S)
            report = self.tick()
            if each is not None:
                each(report)

    def _note(self, report: TickReport) -> None:
        at_s = self.clock.monotonic_s()
        gpu_j = sum(engine.gpu_j for engine in self.engines)
        before = self.ticks[-1] if self.ticks else None
        draw_w = 0.0
        if before is not None and at_s > before.at_s:
            draw_w = (gpu_j - before.gpu_j) / (at_s - before.at_s)
        node_w = self.overhead.node_power_w(draw_w)
        tokens = 0.0
        for i, tick in enumerate(report.engines):
            sample = tick.sample
            assert sample is not None  # a simulated engine always answers
            tokens += sample.tokens_out_total
            self.engine_tokens[i].append(sample.tokens_out_total)
        gpus = [gpu for engine in self.engines for gpu in engine.sim.gpus]
        samples = [tick.sample for tick in report.engines if tick.sample is not None]
        node_j = before.node_j + node_w * (at_s - before.at_s) if before else 0.0
        self.ticks.append(
            TickSample(
                at_s=at_s,
                gpu_j=gpu_j,
                node_j=node_j,
                tokens_out=tokens,
                draw_w=draw_w,
                node_w=node_w,
                # What held during the tick: the envelope that the tick before it saw.
                envelope_w=self._envelope_w,
                limit_w=sum(gpu.target_w for gpu in gpus) / len(gpus),
                max_num_seqs=sum(s.max_num_seqs or 0 for s in samples) / len(samples),
                waiting=sum(s.requests_waiting for s in samples),
                running=sum(s.requests_running for s in samples),
            )
        )
        self._envelope_w = report.envelope.power_max_w

    _envelope_w = UNLIMITED_W


def run_fixed(
    setup: EngineSetup,
    overhead: NodeOverhead,
    seed: int,
    command: NodeCommand,
    marks_s: Sequence[float],
) -> tuple[EngineRun, list[TickSample]]:
    """Run one engine under a constant setting, without a loop: the oracle's way.

    Returns the engine and a sample at each of ``marks_s``. The plant is the one that
    ``NodeRun`` makes from the same seed.
    """
    clock = SimClock(START_AT)
    run = EngineRun(setup, clock, overhead, 1000 * seed)
    run.set(command)
    samples = []
    for mark_s in marks_s:
        clock.advance(mark_s - clock.monotonic_s())
        sample = run.sim.engine.observe()
        node_j = overhead.base_w * mark_s + (1 + overhead.per_gpu_w_ratio) * run.gpu_j
        samples.append(
            TickSample(
                at_s=mark_s,
                gpu_j=run.gpu_j,
                node_j=node_j,
                tokens_out=sample.tokens_out_total,
                draw_w=0.0,
                node_w=0.0,
                envelope_w=UNLIMITED_W,
                limit_w=command.power_limit_w,
                max_num_seqs=float(command.max_num_seqs),
                waiting=sample.requests_waiting,
                running=sample.requests_running,
            )
        )
    return run, samples
