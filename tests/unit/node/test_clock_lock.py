"""The SM-clock lock, from the command to the device and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand, Outcome
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node import restore
from pals_grid.node.actuate import ClockActuator
from pals_grid.node.decision import Decision
from pals_grid.node.fake import FakeClockGpu, FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.node.status import StatusBoard
from pals_grid.powermodel.overhead import NodeOverhead
from tests.unit.node.conftest import StepClock

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pals_grid.node.report import TickReport


class Asking:
    """A strategy that asks for what the test wants."""

    def __init__(self) -> None:
        self.clock_mhz: float | None = None

    def decide(self, seen: object, *_: object) -> list[Decision]:
        command = NodeCommand(300.0, 64, "test", sm_clock_mhz=self.clock_mhz)
        return [Decision(0.0, command)] * len(seen)  # type: ignore[arg-type]

    def set_slo(self, slo: Slo) -> None:
        pass

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        pass


class Rig:
    def __init__(self, *gpus: FakeGpu, path: Path | None = None, dry_run: bool = False) -> None:
        overhead = NodeOverhead(100.0, 0.1)
        unit = EngineUnit("e", FakeEngine(), gpus, None, Origin.SIMULATED)
        hardware = NodeHardware(
            "fakes", Origin.SIMULATED, (unit,), LinearNodeMeter(overhead), overhead
        )
        self.clock = StepClock()
        self.asking = Asking()
        self.loop = ControlLoop(
            hardware,
            Lease(None, 2000.0),
            self.clock,
            Slo(),
            RestoreFile(path),
            dry_run=dry_run,
            strategy=self.asking,
        )

    def tick(self, clock_mhz: float | None, *, after_s: float = 0.5) -> TickReport:
        self.asking.clock_mhz = clock_mhz
        self.clock.step(after_s)
        return self.loop.tick()


def test_a_clock_is_written_on_a_change_only_and_released() -> None:
    gpus = FakeClockGpu("a"), FakeClockGpu("b")
    rig = Rig(*gpus)
    for clock_mhz in (None, 900.0, 900.0, 1200.0, 1200.0, None, None):
        report = rig.tick(clock_mhz)
    assert [gpu.clock_writes for gpu in gpus] == [[900.0, 1200.0, None]] * 2
    assert report.engines[0].gpus[0].clock_actuation is None


def test_a_tick_tells_the_decided_and_the_actual_clock() -> None:
    rig = Rig(FakeClockGpu("a"))
    (engine,) = rig.tick(900.0).engines
    assert engine.command is not None
    assert engine.command.sm_clock_mhz == 900.0
    done = engine.gpus[0].clock_actuation
    assert done is not None
    assert (done.outcome, done.read_back) == (Outcome.APPLIED, 900.0)
    sample = rig.tick(900.0).engines[0].gpus[0].sample
    assert sample is not None
    assert sample.sm_clock_mhz == 900.0


def test_the_status_shows_both_clocks() -> None:
    rig = Rig(FakeClockGpu("a"))
    board = StatusBoard()
    board.add(rig.tick(None))
    assert board.add(rig.tick(900.0)).engines[0].sm_clock_limit_mhz == 900.0
    status = board.add(rig.tick(None))
    assert status.engines[0].sm_clock_limit_mhz is None
    assert status.gpus[0].sm_clock_mhz == 900.0  # as the tick found it, before it was released


def test_a_gpu_without_the_lock_is_told_once_and_limited_all_the_same() -> None:
    plain, lockable = FakeGpu("a"), FakeClockGpu("b")
    rig = Rig(plain, lockable)
    notes = [note for _ in range(3) for note in rig.tick(900.0).notes]
    assert notes == ["GPU a: its SM clock cannot be locked and stays free"]
    assert (plain.limit_w, lockable.lock_mhz) == (300.0, 900.0)


def test_a_refused_lock_is_told_and_tried_again_after_a_minute() -> None:
    gpu = FakeClockGpu("a")
    gpu.clock_refuses = True
    rig = Rig(gpu)
    assert "SM clock 900 refused" in rig.tick(900.0).notes[0]
    assert rig.tick(900.0).notes == ()
    gpu.clock_refuses = False
    rig.tick(900.0, after_s=60.0)
    assert gpu.clock_writes == [900.0, 900.0]
    assert gpu.lock_mhz == 900.0


def test_a_lock_that_was_always_refused_needs_no_release(tmp_path: Path) -> None:
    gpu = FakeClockGpu("a")
    gpu.clock_refuses = True
    rig = Rig(gpu, path=tmp_path / "limits.json")
    rig.tick(900.0)
    assert rig.loop.restore() == ()
    assert gpu.clock_writes == [900.0]
    assert not (tmp_path / "limits.json").exists()


def test_a_refused_release_is_tried_again() -> None:
    gpu = FakeClockGpu("a")
    rig = Rig(gpu)
    rig.tick(900.0)
    gpu.clock_refuses = True
    rig.tick(None)
    gpu.clock_refuses = False
    rig.tick(None, after_s=61.0)
    assert gpu.lock_mhz is None


def test_a_lock_that_someone_else_released_is_told_and_locked_again_once_a_minute() -> None:
    gpu = FakeClockGpu("a")
    rig = Rig(gpu)
    rig.tick(900.0)
    gpu.apply_clock_limit(None)
    assert rig.tick(900.0).notes == ("GPU a: SM clock is 1410 MHz, was locked at 900 MHz",)
    assert gpu.lock_mhz == 900.0
    gpu.apply_clock_limit(None)
    rig.tick(900.0)
    assert len(gpu.clock_writes) == 4  # no fight with whoever it is
    rig.tick(900.0, after_s=60.0)
    assert gpu.lock_mhz == 900.0


def test_a_clamped_lock_is_no_lost_one() -> None:
    gpu = FakeClockGpu("a")
    rig = Rig(gpu)
    assert "clamped, reads back 210" in rig.tick(100.0).notes[0]
    assert rig.tick(100.0).notes == ()
    assert gpu.clock_writes == [100.0]


def test_a_lock_not_seen_to_hold_yet_is_judged_at_the_next_look() -> None:
    actuator = ClockActuator(FakeClockGpu("a"))
    actuator.write(900.0, 0.0)
    assert not actuator.due(900.0, 915.0, 0.5)  # within a step of the board's
    assert not actuator.due(900.0, None, 0.5)
    assert actuator.due(900.0, 1200.0, 0.5)


def test_the_lock_is_on_the_disk_before_it_is_written_and_released_at_the_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "limits.json"
    seen: list[frozenset[str]] = []

    class Watched(FakeClockGpu):
        def apply_clock_limit(self, sm_clock_mhz: float | None):  # type: ignore[no-untyped-def] # noqa: ANN202
            seen.append(RestoreFile(path).pending_clocks)
            return super().apply_clock_limit(sm_clock_mhz)

    gpu = Watched("a")
    rig = Rig(gpu, path=path)
    rig.tick(None)
    assert RestoreFile(path).pending_clocks == frozenset()
    rig.tick(900.0)
    assert seen == [{"a"}]
    assert rig.loop.restore() == ()
    assert (gpu.lock_mhz, gpu.limit_w, path.exists()) == (None, 400.0, False)


def test_without_a_disk_for_the_record_no_clock_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeClockGpu("a")
    rig = Rig(gpu, path=tmp_path / "limits.json")
    rig.tick(None)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(restore, "write_durably", full)
    assert "cannot be stored" in rig.tick(900.0).notes[0]
    assert gpu.clock_writes == []


def test_a_dry_run_locks_nothing() -> None:
    gpu = FakeClockGpu("a")
    rig = Rig(gpu, dry_run=True)
    rig.tick(900.0)
    rig.loop.restore()
    assert gpu.clock_writes == []
