from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.clock import SystemClock
from pals_grid.core.commands import Outcome
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.null_engine import NullEngine
from pals_grid.node.report import Mode
from pals_grid.node.restore import RestoreFile
from pals_grid.node.strategies.registry import make_strategy
from pals_grid.node.strategies.unit import CHEAPEST
from pals_grid.node.unit_io import RESTORE_TRIES
from pals_grid.powermodel.overhead import NodeOverhead
from tests.unit.node.conftest import TargetLaw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pals_grid.core.commands import ActuationResult
    from tests.unit.node.conftest import Rig


def test_a_tick_reports_what_it_saw_decided_and_did(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0, strategy=TargetLaw())
    report = rig.run()
    engine = report.engines[0]
    assert report.mode is Mode.FOLLOWING
    assert report.gpu_power_w == 600.0
    assert report.node_power.power_w == pytest.approx(100 + 1.1 * 600)
    assert engine.target_tokens_per_s == 1200.0
    assert engine.command is not None
    assert [gpu.actuation.outcome for gpu in engine.gpus if gpu.actuation] == [Outcome.APPLIED] * 2
    assert engine.actuation is not None
    assert rig.gpus[0].limit_w == engine.command.power_limit_w
    assert rig.engines[0].max_num_seqs == engine.command.max_num_seqs


def test_nothing_is_written_twice(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0, strategy=TargetLaw())
    rig.run(50, tokens_per_s=950.0)
    assert [len(gpu.writes) for gpu in rig.gpus] == [1, 1]
    assert len(rig.engines[0].writes) == 1


def test_a_smaller_envelope_is_obeyed_within_two_ticks(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(envelope_w=(2000.0, 500.0), tokens=1500.0)
    for gpu in rig.gpus:
        gpu.demand_w = 390.0
    rig.run(119, tokens_per_s=1500.0)
    assert rig.reports[-1].node_power.power_w > 500.0
    rig.run(3, tokens_per_s=1500.0)
    over = [r.node_power.power_w > r.envelope.power_max_w for r in rig.reports[-3:]]
    assert rig.reports[-2].envelope.power_max_w == 500.0
    assert not over[-1]


def test_a_table_that_is_wrong_cannot_break_the_envelope(rig_of: Callable[..., Rig]) -> None:
    """The GPUs draw their whole limit, more than the table says: measured power is held."""
    rig = rig_of(envelope_w=(500.0,), tokens=5000.0)
    for gpu in rig.gpus:
        gpu.demand_w = 400.0
    rig.run(100, tokens_per_s=800.0)
    over = [r for r in rig.reports[2:] if r.node_power.power_w > 500.0 * 1.005]
    assert len(over) <= 3


def test_after_the_schedule_the_safe_limit_holds(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(envelope_w=(2000.0,))
    assert rig.run(121).mode is Mode.SAFE
    assert rig.reports[-1].envelope.power_max_w == 900.0


def test_a_lost_gpu_is_left_out_and_the_other_engine_goes_on(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(engines=2, tokens=800.0)
    rig.gpus[0].lost = True
    report = rig.run(2)
    assert rig.reports[0].notes[0].startswith("GPU GPU-0 is left out")
    assert not report.notes
    assert report.engines[0].gpus[0].sample is None
    assert report.engines[1].command is not None
    assert rig.gpus[1].writes
    assert rig.gpus[2].writes
    rig.gpus[0].lost = False
    assert "GPU GPU-0 answers again" in rig.run().notes


def test_a_dead_engine_is_left_out_and_its_power_still_counts(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(engines=2, tokens=800.0, envelope_w=(1200.0,))
    rig.engines[0].dead = True
    report = rig.run(4, tokens_per_s=400.0)
    assert report.engines[0].command is None
    assert report.engines[1].command is not None
    assert not rig.gpus[0].writes
    assert rig.gpus[0].observe().power_draw_w == 300.0
    assert report.node_power.power_w <= 1200.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_leaves_the_device_out(
    rig_of: Callable[..., Rig], value: float
) -> None:
    rig = rig_of(engines=2, tokens=800.0)
    rig.gpus[0].energy_j = value
    rig.engines[1].tokens_out = value
    report = rig.run(2)
    assert rig.reports[0].notes == (
        f"GPU GPU-0 is left out: energy_j: must be finite, got {value}",
        f"engine engine-1 is left out: tokens_out_total: must be finite, got {value}",
    )
    assert report.engines[0].gpus[0].sample is None
    assert report.engines[1].sample is None
    assert math.isfinite(report.node_power.power_w)


def test_deferrable_work_is_let_go_on_restore(rig_of: Callable[..., Rig]) -> None:
    class Deferring(FakeEngine):
        slots = -1

        def apply_deferrable_seqs(self, deferrable_seqs: int) -> None:
            self.slots = deferrable_seqs

    rig = rig_of(tokens=200.0)
    engine = Deferring()
    unit = replace(rig.hardware.units[0], engine=engine)
    hardware = replace(rig.hardware, units=(unit,))
    loop = ControlLoop(hardware, rig.lease, rig.clock, Slo(), rig.restore)
    loop.tick()
    assert engine.slots <= 1
    loop.restore()
    assert engine.slots == 64


def test_dry_run_writes_nothing_and_says_what_it_would(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0, dry_run=True)
    report = rig.run(5)
    assert report.mode is Mode.OBSERVING
    assert report.engines[0].command is not None
    assert rig.loop.restore() == ()
    assert not any(gpu.writes for gpu in rig.gpus)
    assert not rig.engines[0].writes


def test_originals_are_on_disk_before_the_first_write(
    rig_of: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = rig_of(restore_path=tmp_path / "missing" / "limits.json", tokens=1200.0)
    report = rig.run()
    assert "original limits cannot be stored" in report.notes[0]
    assert rig.run().notes == ()  # told once
    assert not any(gpu.writes for gpu in rig.gpus)
    (tmp_path / "missing").mkdir()
    rig.run()
    assert rig.restore.pending == {"GPU-0": 400.0, "GPU-1": 400.0}
    assert all(gpu.writes for gpu in rig.gpus)


def test_restore_gives_limits_and_batch_back(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=200.0, strategy=TargetLaw())
    rig.run(3)
    assert rig.gpus[0].limit_w < 400.0
    assert rig.engines[0].max_num_seqs != 64
    assert rig.loop.restore() == ()
    assert [gpu.limit_w for gpu in rig.gpus] == [400.0, 400.0]
    assert rig.engines[0].max_num_seqs == 64


@pytest.mark.parametrize(("silent", "failures"), [(3, 0), (1000, 1)])
def test_an_engine_in_a_long_step_is_asked_again_at_the_end(
    rig_of: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, silent: int, failures: int
) -> None:
    rig = rig_of(tokens=200.0, strategy=TargetLaw())
    rig.run(3)
    engine, asked = rig.engines[0], []
    apply = engine.apply_max_num_seqs

    def answer_late(max_num_seqs: int) -> ActuationResult:
        asked.append(max_num_seqs)
        done = apply(max_num_seqs)
        return done if len(asked) > silent else replace(done, outcome=Outcome.PARTIAL)

    monkeypatch.setattr(engine, "apply_max_num_seqs", answer_late)
    assert len(rig.loop.restore()) == failures
    assert set(asked) == {64}
    assert len(asked) == min(silent + 1, RESTORE_TRIES)


def test_an_engine_that_is_gone_has_no_batch_to_give_back(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=200.0)
    rig.run(3)
    rig.engines[0].dead = rig.engines[0].refuses = True
    assert rig.loop.restore() == ()
    assert [gpu.limit_w for gpu in rig.gpus] == [400.0, 400.0]


def test_a_limit_raised_by_someone_else_is_told_and_written_again(
    rig_of: Callable[..., Rig],
) -> None:
    rig = rig_of(tokens=1200.0)
    ours = rig.run().engines[0].command
    assert ours is not None
    rig.gpus[0].limit_w = 400.0
    report = rig.run()
    assert f"limit is 400 W, was left at {ours.power_limit_w:g} W" in report.notes[0]
    assert rig.gpus[0].limit_w == ours.power_limit_w
    assert len(rig.gpus[1].writes) == 1


def test_a_limit_lowered_by_someone_else_is_told_once_and_left(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0)
    rig.run()
    rig.gpus[0].limit_w = 110.0
    rig.run(3)
    assert [len(report.notes) for report in rig.reports] == [0, 1, 0, 0]
    assert rig.gpus[0].limit_w == 110.0


def test_a_refused_limit_is_told_and_tried_again_after_a_minute(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0, envelope_w=(2000.0,) * 3)
    rig.gpus[0].refuses = True
    rig.run(10)
    assert len(rig.gpus[0].writes) == 1
    assert "refused" in rig.reports[0].notes[0]
    rig.gpus[0].refuses = False
    rig.run(115)
    assert len(rig.gpus[0].writes) == 2
    assert rig.gpus[0].limit_w < 400.0


def test_an_engine_without_batch_control_is_steered_by_power_alone(
    rig_of: Callable[..., Rig],
) -> None:
    rig = rig_of(tokens=200.0)
    rig.engines[0].refuses = True
    rig.engines[0].max_num_seqs = 20
    command = rig.run(3).engines[0].command
    assert command is not None
    assert command.max_num_seqs == 20
    assert len(rig.engines[0].writes) == 1
    assert rig.gpus[0].limit_w < 400.0


def test_a_batch_that_was_refused_for_a_while_is_free_again_afterwards(
    rig_of: Callable[..., Rig],
) -> None:
    rig = rig_of(tokens=200.0, envelope_w=(2000.0,) * 3)
    rig.engines[0].refuses = True
    rig.engines[0].max_num_seqs = 20
    rig.run(10)
    rig.engines[0].refuses = False
    rig.run(120)
    assert rig.engines[0].max_num_seqs == 64


def test_a_restarted_engine_gets_its_batch_again(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=200.0, strategy=TargetLaw())
    rig.run(2)
    wanted = rig.engines[0].max_num_seqs
    rig.engines[0].max_num_seqs = 64
    rig.run()
    assert rig.engines[0].max_num_seqs == wanted != 64


def test_a_queue_raises_throughput_at_once(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=200.0)
    low = rig.run(3).engines[0]
    rig.engines[0].waiting = 30
    high = rig.run().engines[0]
    assert high.target_tokens_per_s > low.target_tokens_per_s
    assert high.command is not None
    assert low.command is not None
    assert high.command.power_limit_w == 400.0 > low.command.power_limit_w


def test_engines_share_one_envelope(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(engines=3, envelope_w=(1000.0,), tokens=6000.0)
    report = rig.run(3)
    commands = [engine.command for engine in report.engines]
    assert all(command is not None for command in commands)
    assert report.node_power.power_w <= 1000.0


def test_an_envelope_below_everything_gets_the_lowest_limit(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(envelope_w=(110.0,), tokens=1200.0)
    command = rig.run(3).engines[0].command
    assert command is not None
    assert (command.power_limit_w, command.max_num_seqs) == (100.0, 4)
    assert command.reason.startswith(CHEAPEST)


def test_lag_is_reported_and_ticks_are_skipped(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of()
    rig.run()
    rig.clock.step(1.7)
    report = rig.run()
    assert report.lag_s == pytest.approx(1.7)
    assert report.skipped == 3
    assert rig.loop.seconds_until_next() == pytest.approx(0.3)


def test_all_figures_are_finite(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(engines=2, tokens=0.0)
    for waiting in (0, 5, 0):
        rig.engines[0].waiting = waiting
        for engine in rig.run(3).engines:
            assert math.isfinite(engine.target_tokens_per_s)
            assert math.isfinite(engine.power_limit_w)


@pytest.mark.parametrize("strategy", ["pals-grid", "pals"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_node_of_observed_gpus_alone_ticks(strategy: str, count: int) -> None:
    gpus = [FakeGpu(f"GPU-{i}") for i in range(count)]
    units = tuple(EngineUnit(f"gpu-{i}", NullEngine(), (gpu,)) for i, gpu in enumerate(gpus))
    overhead = NodeOverhead(100.0, 0.1)
    hardware = NodeHardware("fakes", Origin.SIMULATED, units, LinearNodeMeter(overhead), overhead)
    law = make_strategy(strategy, units, overhead, Slo())
    clock = SystemClock()
    loop = ControlLoop(hardware, Lease(None, 50.0), clock, Slo(), RestoreFile(None), strategy=law)
    for _ in range(3):
        report = loop.tick()
    assert report.gpu_power_w == 300.0 * count
    assert [tick.command for tick in report.engines] == [None] * count
    assert [gpu.writes for gpu in gpus] == [[]] * count
    assert loop.restore() == ()
