"""A clock that goes when told, a small table, and a loop over fake devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.commands import NodeCommand
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.site import Slo
from pals_grid.node.decision import Decision
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pals_grid.core.ports import NodePower
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope, TickReport
    from pals_grid.node.strategy import Strategy

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class StepClock:
    def __init__(self) -> None:
        self.at = START_AT
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.seconds

    def step(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds


def make_table(gpu_count: int = 2) -> FrontierTable:
    """Small batches saturate early and draw little; the largest pays only at high demand."""
    points = tuple(
        OperatingPoint(
            power_limit_w=limit,
            max_num_seqs=batch,
            tokens_per_s=500
            * gpu_count
            * (batch / 4) ** 0.3
            * (1 - 0.5 ** (limit / (50 + 2 * batch))),
            gpu_power_w=gpu_count * min(limit * 0.95, 60 + 5 * batch + 0.1 * limit),
            ttft_s=0.2,
            itl_s=0.01 + batch / 1000,
        )
        for limit in (100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0)
        for batch in (4, 16, 64)
    )
    return FrontierTable("Fake GPU", gpu_count, "fake-model", 5.0, Origin.SIMULATED, points)


def make_schedule(*power_max_w: float, version: int = 1, tokens: float = 0.0) -> EnvelopeSchedule:
    """One minute for each of ``power_max_w``, from the start; then 900 W."""
    return EnvelopeSchedule(
        node_id=1,
        version=version,
        issued_at=START_AT,
        safe_power_w=900.0,
        intervals=[
            EnvelopeInterval(
                start_at=START_AT + timedelta(minutes=i),
                end_at=START_AT + timedelta(minutes=i + 1),
                power_min_w=0.0,
                power_max_w=power_w,
                target_tokens_per_s=tokens,
                reason=Reason.DEMAND,
            )
            for i, power_w in enumerate(power_max_w)
        ],
    )


@dataclass
class Rig:
    """A node of fakes: two engines with two GPUs each unless told otherwise."""

    clock: StepClock
    gpus: list[FakeGpu]
    engines: list[FakeEngine]
    hardware: NodeHardware
    lease: Lease
    restore: RestoreFile
    loop: ControlLoop
    reports: list[TickReport] = field(default_factory=list)

    def run(self, ticks: int = 1, *, tokens_per_s: float = 0.0) -> TickReport:
        for _ in range(ticks):
            self.clock.step(0.5)
            for gpu in self.gpus:
                if not gpu.lost:
                    gpu.run(0.5)
            for engine in self.engines:
                engine.serve(tokens_per_s * 0.5)
            self.reports.append(self.loop.tick())
        return self.reports[-1]


class TargetLaw:
    """Limit and batch in proportion to the envelope's target, up to 2000 tokens/s an engine."""

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        del node_power, dt_s
        share = min(1.0, envelope.target_tokens_per_s / 2000 / len(seen))
        command = NodeCommand(100 + 300 * share, max(1, int(64 * share)), "in proportion")
        return [Decision(2000 * share, None if view.engine is None else command) for view in seen]

    def set_slo(self, slo: Slo) -> None:
        pass

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        pass


def make_rig(
    *,
    engines: int = 1,
    envelope_w: tuple[float, ...] = (2000.0,),
    tokens: float = 0.0,
    dry_run: bool = False,
    restore_path: Path | None = None,
    strategy: Strategy | None = None,
) -> Rig:
    """Under the default strategy unless told otherwise."""
    clock = StepClock()
    overhead = NodeOverhead(100.0, 0.1)
    served = [FakeEngine() for _ in range(engines)]
    gpus = [FakeGpu(f"GPU-{i}") for i in range(2 * engines)]
    units = tuple(
        EngineUnit(f"engine-{i}", engine, (gpus[2 * i], gpus[2 * i + 1]), make_table())
        for i, engine in enumerate(served)
    )
    hardware = NodeHardware("fakes", Origin.SIMULATED, units, LinearNodeMeter(overhead), overhead)
    lease = Lease(None, 900.0)
    lease.store(make_schedule(*envelope_w, tokens=tokens))
    restore = RestoreFile(restore_path)
    loop = ControlLoop(hardware, lease, clock, Slo(), restore, dry_run=dry_run, strategy=strategy)
    return Rig(clock, gpus, served, hardware, lease, restore, loop)


@pytest.fixture
def rig_of() -> Callable[..., Rig]:
    return make_rig


@pytest.fixture
def schedule_of() -> Callable[..., EnvelopeSchedule]:
    return make_schedule


@pytest.fixture
def table() -> FrontierTable:
    return make_table()
