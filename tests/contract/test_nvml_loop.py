"""The control loop over NVML: the real binding, the shim, and the simulated plant below it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockReason
from pals_grid.core.site import Slo
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.powermodel.table import BATCHES, build_frontier_table
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, DEMO_SPEC, demo_node
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule
from tests.contract.nvml_plant import NvmlPlant

nvml = pytest.importorskip("pals_grid.node.nvml", reason="nvidia-ml-py is not installed")

if TYPE_CHECKING:
    import ctypes
    from pathlib import Path

    from pals_grid.node.report import TickReport

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
OVERHEAD = DEMO_SPEC.overhead


@dataclass
class Node:
    clock: SimClock
    loop: ControlLoop
    restore: RestoreFile
    plant: NvmlPlant
    lease: Lease
    notes: list[str]

    def run(self, seconds: float) -> TickReport:
        for _ in range(round(seconds / 0.5)):
            self.clock.advance(0.5)
            report = self.loop.tick()
            self.notes += report.notes
        return report

    def grant(self, *power_w: float) -> None:
        """A minute for each, from now."""
        now = self.clock.now()
        self.lease.store(
            EnvelopeSchedule(
                node_id=1,
                version=self.lease.version + 1,
                issued_at=now,
                safe_power_w=3000.0,
                intervals=[
                    EnvelopeInterval(
                        start_at=now + timedelta(minutes=i),
                        end_at=now + timedelta(minutes=i + 1),
                        power_min_w=0.0,
                        power_max_w=watt,
                        target_tokens_per_s=4000.0,
                        reason=Reason.DEMAND,
                    )
                    for i, watt in enumerate(power_w)
                ],
            )
        )


@pytest.fixture
def node(shim: ctypes.CDLL, tmp_path: Path) -> Node:
    clock = SimClock(START_AT, 100.0)
    simulated = demo_node(clock)
    plant = NvmlPlant(shim, simulated.gpus)
    gpus = nvml.open_gpus(monotonic_s=clock.monotonic_s)
    table = build_frontier_table(
        gpus[0].model,
        DEMO_SPEC.model,
        len(gpus),
        DEMO_INPUT_PER_OUTPUT,
        max_num_seqs=[batch for batch in BATCHES if batch <= DEMO_SPEC.max_num_seqs],
    )
    unit = EngineUnit("engine", simulated.engine, gpus, table, Origin.SIMULATED)
    hardware = NodeHardware("shim", Origin.SIMULATED, (unit,), LinearNodeMeter(OVERHEAD), OVERHEAD)
    lease, restore = Lease(None, 3000.0), RestoreFile(tmp_path / "limits.json")
    loop = ControlLoop(hardware, lease, clock, Slo(), restore)
    made = Node(clock, loop, restore, plant, lease, [])
    made.grant(3000.0)
    return made


def limits_w(shim: ctypes.CDLL) -> list[float]:
    return [shim.shim_get_limit(i) / 1000 for i in range(4)]


def test_power_follows_the_envelope_and_the_limits_come_back(node: Node, shim: ctypes.CDLL) -> None:
    before_w = node.run(30).node_power.power_w
    node.grant(1250.0)
    held = node.run(10)
    assert before_w > 1300
    assert held.node_power.power_w <= 1250 * 1.02
    assert max(limits_w(shim)) < 300
    sample = held.engines[0].gpus[0].sample
    assert sample is not None
    assert sample.clock_reasons is not None
    assert ClockReason.POWER_LIMIT in sample.clock_reasons
    assert node.loop.restore() == ()
    assert limits_w(shim) == [400.0] * 4
    assert node.notes == []


def test_a_limit_that_others_lower_is_told_once_and_left(node: Node, shim: ctypes.CDLL) -> None:
    node.run(30)
    node.grant(1250.0)
    node.run(10)
    held = limits_w(shim)
    low = min(held) - 40
    shim.shim_limit(1, round(1000 * low))
    writes = shim.shim_get_writes()
    node.run(0.5)
    assert [note for note in node.notes if "was left at" in note] == node.notes[-1:]
    assert f"limit is {low:g} W, was left at {held[1]:g} W" in node.notes[-1]
    if shim.shim_get_writes() == writes:  # no change of its own was due
        assert limits_w(shim)[1] == low
    assert sum("was left at" in note for note in node.notes) == 1


def test_a_limit_that_others_raise_is_written_again_and_not_fought_over(
    node: Node, shim: ctypes.CDLL
) -> None:
    node.run(30)
    node.grant(1250.0, 1250.0, 1250.0)
    node.run(20)
    node.notes.clear()
    before = shim.shim_get_writes()
    node.run(10)
    own = shim.shim_get_writes() - before
    restored = 0
    before = shim.shim_get_writes()
    for _ in range(40):  # another program insists, every tick
        shim.shim_limit(2, 400000)
        node.run(0.5)
        restored += limits_w(shim)[2] < 399
    assert restored >= 1
    assert shim.shim_get_writes() - before <= 2 * own + 12
    assert any("limit is 400 W, was left at" in note for note in node.notes)


def test_a_lost_gpu_is_left_out_and_held_again_when_it_returns(
    node: Node, shim: ctypes.CDLL
) -> None:
    node.run(30)
    node.grant(1250.0)
    node.run(10)
    shim.shim_lost(3, 1)
    report = node.run(6)
    assert report.engines[0].gpus[3].sample is None
    assert [gpu.sample is not None for gpu in report.engines[0].gpus[:3]] == [True] * 3
    shim.shim_limit(3, 400000)  # a reset brings the default back
    shim.shim_lost(3, 0)
    report = node.run(6)
    assert report.engines[0].gpus[3].sample is not None
    assert limits_w(shim)[3] < 300
    lost = [note for note in node.notes if "GPU-44444444" in note]
    assert "is left out" in lost[0]
    assert "answers again" in lost[1]


def test_indices_that_move_while_the_driver_is_reloaded_change_nothing(
    node: Node, shim: ctypes.CDLL
) -> None:
    node.run(30)
    shim.shim_swap_indices()
    shim.shim_drop_driver()
    node.grant(1250.0)
    report = node.run(10)
    assert [gpu.uuid[4:8] for gpu in report.engines[0].gpus] == ["1111", "2222", "3333", "4444"]
    assert report.node_power.power_w <= 1250 * 1.02
    assert node.loop.restore() == ()
    assert limits_w(shim) == [400.0] * 4


def test_without_the_right_to_write_nothing_changes_and_nothing_has_to_be_restored(
    node: Node, shim: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(4):
        shim.shim_denied(index, 1)
    node.grant(1250.0)
    node.run(10)
    assert limits_w(shim) == [400.0] * 4
    assert sum("Insufficient Permissions" in note for note in node.notes) == 4  # told once each
    with caplog.at_level("INFO"):
        assert node.loop.restore() == ()
    assert caplog.text.count("nothing has to be restored") == 4
    assert node.restore.pending == {}
