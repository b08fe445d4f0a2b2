"""A table to work out by hand, and simulated nodes under a strategy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.core.commands import NodeCommand
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.ports import EngineSample, GpuSample, NodePower
from pals_grid.core.site import Slo
from pals_grid.node.decision import Decision
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.observation import UnitObservation
from pals_grid.node.report import ActiveEnvelope
from pals_grid.node.restore import RestoreFile
from pals_grid.node.strategies.registry import make_strategy
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.powermodel.table import operating_point
from pals_grid.sim.clock import SimClock
from pals_grid.sim.meter import SimMeter
from pals_grid.sim.plant import NodeSpec, SimNode
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pals_grid.core.ports import Engine
    from pals_grid.node.report import TickReport
    from pals_grid.node.strategy import Strategy
    from pals_grid.powermodel.physics import EngineModel
    from pals_grid.sim.arrivals import ClosedLoop, Request
    from pals_grid.sim.engine import SimEngine

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TICK_S = 0.5
SEQS = 64
A100 = "NVIDIA A100-SXM4-80GB"
DEEPSEEK = "deepseek-ai/deepseek-moe-16b-base"


def point(limit_w: float, batch: int, tokens_per_s: float, power_w: float) -> OperatingPoint:
    """A point of the hand-made table."""
    return OperatingPoint(limit_w, batch, tokens_per_s, power_w, 0.2, 0.01 + batch / 1000)


def hand_table() -> FrontierTable:
    """Two GPUs. Tokens/J: 2.5 and 4 at 100 W, 2.4 and 5 at 200 W, 2 and 4 at 300 W."""
    points = (
        point(100.0, 8, 500.0, 200.0),
        point(100.0, 64, 800.0, 200.0),
        point(200.0, 8, 600.0, 250.0),
        point(200.0, 64, 2000.0, 400.0),
        point(300.0, 8, 600.0, 300.0),
        point(300.0, 64, 2400.0, 600.0),
    )
    return FrontierTable("Fake GPU", 2, "fake-model", 5.0, Origin.SIMULATED, points)


def engine_sample(
    *, running: int = 0, waiting: int = 0, tokens: float = 0.0, finished: int = 0, seqs: int = 64
) -> EngineSample:
    """What an engine shows; 100 tokens a request where ``finished`` is tokens / 100."""
    return EngineSample(running, waiting, 5 * tokens, tokens, finished, 0, 0, seqs)


def gpu_sample(power_w: float, limit_w: float = 300.0) -> GpuSample:
    """A GPU whose energy counter stands still: its reading counts."""
    return GpuSample(power_w, 0.0, limit_w)


def seen(engine: EngineSample | None, *powers_w: float | None) -> UnitObservation:
    """A unit with GPUs that draw ``powers_w``; None for one that does not answer."""
    gpus = tuple(None if power_w is None else gpu_sample(power_w) for power_w in powers_w)
    return UnitObservation(gpus, engine)


def envelope(power_w: float, target: float = 0.0, *, safe: bool = False) -> ActiveEnvelope:
    """An envelope of the schedule, or the safe limit."""
    return ActiveEnvelope(1, 0.0, power_w, target, None if safe else Reason.DEMAND)


def node_power(power_w: float = 0.0) -> NodePower:
    """What the meter shows."""
    return NodePower(power_w, Origin.SIMULATED)


def deepseek() -> EngineModel:
    """The demo's engine."""
    return engine_model(A100, DEEPSEEK, 4)


def model_table(
    engine: EngineModel,
    tokens_in: float,
    tokens_out: float,
    *,
    distortion_ratio: float = 0.0,
    bias_ratio: float = 0.0,
    seed: int = 1,
) -> FrontierTable:
    """The plant's own table in steps of 25 W, each cell moved by up to ``distortion_ratio``.

    ``bias_ratio`` is added to all throughputs and taken from all powers.
    """
    draw = Random(seed)  # no secret
    low_w, high_w = engine.limit_range.min_w, engine.limit_range.max_w
    points = []
    for k in range(13):
        for batch in (1, 2, 4, 8, 16, 32, SEQS):
            true = operating_point(
                engine, low_w + (high_w - low_w) * k / 12, batch, tokens_in, tokens_out
            )
            tokens = 1 + bias_ratio + draw.uniform(-distortion_ratio, distortion_ratio)
            power = 1 - bias_ratio + draw.uniform(-distortion_ratio, distortion_ratio) / 2
            points.append(
                replace(
                    true,
                    tokens_per_s=true.tokens_per_s * tokens,
                    gpu_power_w=true.gpu_power_w * power,
                )
            )
    return FrontierTable(
        A100, engine.gpu_count, engine.model, tokens_in / tokens_out, Origin.MODELLED, tuple(points)
    )


@dataclass(frozen=True)
class Load:
    """One engine of a simulated node: its arrivals, its table and its tier."""

    arrivals: Iterable[Request] | ClosedLoop
    table: FrontierTable
    max_loss_ratio: float = 0.0


class Always:
    """A strategy that always asks for the same."""

    def __init__(self, limit_w: float, batch: int = SEQS) -> None:
        self._command = NodeCommand(limit_w, batch, "always")

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """The same."""
        del envelope, node_power, dt_s
        return [Decision(0.0, self._command) for _ in seen]

    def set_slo(self, slo: Slo) -> None:
        """Nothing depends on it."""

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """The same, whatever the engine says."""


@dataclass
class Closed:
    """A simulated node under the production loop."""

    clock: SimClock
    nodes: list[SimNode]
    loop: ControlLoop
    lease: Lease
    reports: list[TickReport] = field(default_factory=list)
    draws_w: list[float] = field(default_factory=list)
    version: int = 0

    def grant(self, *slots: tuple[float, float, float]) -> None:
        """Envelopes of (seconds, watts at the node, target) one after the other from now."""
        self.version += 1
        intervals, at = [], self.clock.now()
        for seconds, power_w, target in slots:
            end_at = at + timedelta(seconds=seconds)
            intervals.append(
                EnvelopeInterval(
                    start_at=at,
                    end_at=end_at,
                    power_min_w=0.0,
                    power_max_w=power_w,
                    target_tokens_per_s=target,
                    reason=Reason.DEMAND,
                )
            )
            at = end_at
        self.lease.store(
            EnvelopeSchedule(
                node_id=1,
                version=self.version,
                issued_at=self.clock.now(),
                safe_power_w=1e6,
                intervals=intervals,
            )
        )

    def run(self, seconds: float) -> list[TickReport]:
        """Tick; the reports of these ticks. ``draws_w`` has the node's mean draw of each."""
        first = len(self.reports)
        for _ in range(round(seconds / TICK_S)):
            before_j = self.gpu_j
            self.clock.advance(TICK_S)
            self.reports.append(self.loop.tick())
            self.draws_w.append(FOUR_A100.node_power_w((self.gpu_j - before_j) / TICK_S))
        return self.reports[first:]

    @property
    def gpu_j(self) -> float:
        """Energy of all GPUs."""
        return sum(gpu.energy_j for node in self.nodes for gpu in node.gpus)

    @property
    def tokens(self) -> float:
        """Output tokens of all engines."""
        return sum(node.engine.observe().tokens_out_total for node in self.nodes)

    def tokens_per_j(self, seconds: float) -> tuple[float, float]:
        """Run; tokens/J of the GPUs and tokens/s meanwhile."""
        tokens, energy_j = self.tokens, self.gpu_j
        self.run(seconds)
        served = self.tokens - tokens
        return served / (self.gpu_j - energy_j), served / seconds


def closed(
    strategy: str | Strategy,
    *loads: Load,
    slo: Slo | None = None,
    options: Mapping[str, object] | None = None,
    max_num_seqs: int = SEQS,
    as_seen: Callable[[SimEngine], Engine] = lambda engine: engine,
) -> Closed:
    """A node with one simulated DeepSeek engine per load under a strategy.

    Its engines take ``max_num_seqs`` at most; the loop sees them through ``as_seen``.
    """
    slo = slo or Slo()
    clock = SimClock(START_AT)
    nodes = [
        SimNode(
            clock,
            NodeSpec(f"n{i}", A100, DEEPSEEK, 4, FOUR_A100, max_num_seqs, slo),
            load.arrivals,
            1000 + i,
        )
        for i, load in enumerate(loads)
    ]
    units = tuple(
        EngineUnit(
            node.spec.name,
            as_seen(node.engine),
            node.gpus,
            load.table,
            Origin.SIMULATED,
            load.max_loss_ratio,
        )
        for node, load in zip(nodes, loads, strict=True)
    )
    hardware = NodeHardware("sim", Origin.SIMULATED, units, SimMeter(FOUR_A100), FOUR_A100)
    lease = Lease(None, 1e6)
    if isinstance(strategy, str):
        strategy = make_strategy(strategy, units, FOUR_A100, slo, **(options or {}))
    loop = ControlLoop(hardware, lease, clock, slo, RestoreFile(None), strategy=strategy)
    return Closed(clock, nodes, loop, lease)
