"""Profiles down to the NVML shim: what is written, what is read, what is put back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pals_grid.cli.exits import Commands
from pals_grid.cli.profile_run import command
from pals_grid.core.fleet import Origin
from pals_grid.node.fake import FakeEngine
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.profiling import profile_unit
from pals_grid.node.restore import RestoreFile
from pals_grid.node.vllm.batch_control import BatchControl
from pals_grid.node.vllm.channel import RankFile
from pals_grid.powermodel.sampling import Cell
from pals_grid.sim.clock import SimClock
from tests.contract.test_devices import START_AT, serve_metrics
from tests.unit.node.vllm.fake_scheduler import FakeScheduler

nvml = pytest.importorskip("pals_grid.node.nvml", reason="nvidia-ml-py is not installed")

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def metrics_url() -> Iterator[str]:
    with serve_metrics() as url:
        yield url


def run(tmp_path: Path, *arguments: str) -> Result:
    group = Commands("profile")
    group.add_command(command, "run")
    given = ["run", "--hardware", "nvml", "--out", str(tmp_path / "p.csv"), *arguments]
    return CliRunner().invoke(group, given)


def test_power_comes_from_the_counters_and_everything_is_put_back(
    shim: ctypes.CDLL, tmp_path: Path
) -> None:
    clock, engine, path = SimClock(START_AT), FakeEngine(max_num_seqs=8), tmp_path / "limits.json"
    unit = EngineUnit("e", engine, nvml.open_gpus(), None, Origin.MEASURED)
    engine.running = 8
    joules = 0.0
    seen: list[tuple[int, int, object]] = []

    def wait(seconds: float) -> None:
        nonlocal joules
        clock.advance(seconds)
        engine.serve(100.0 * seconds)
        joules += 300.0 * seconds
        shim.shim_energy(0, round(1000 * joules))
        shim.shim_energy(1, round(1100 * joules))
        record = json.loads(path.read_bytes())["clocks_locked"]
        seen.append((shim.shim_get_limit(1), shim.shim_get_lock_high(1), record))

    cells = [Cell(500.0, 8), Cell(400.0, 8, 1200.0)]
    rows = list(
        profile_unit(
            unit, cells, clock=clock, wait=wait, input_per_output=None, restore=RestoreFile(path)
        )
    )
    assert [row.gpu_power_w for row in rows] == pytest.approx([630.0, 630.0])
    assert [row.tokens_per_s for row in rows] == pytest.approx([100.0, 100.0])
    assert [row.sm_clock_mhz for row in rows] == [None, 1200.0]
    both = sorted(gpu.uuid for gpu in unit.gpus)
    assert sorted({state[:2] for state in seen}) == [(400000, 1200), (500000, 0)]
    assert {tuple(record) for _, lock, record in seen if lock} == {tuple(both)}  # type: ignore[arg-type]
    assert [shim.shim_get_limit(i) for i in (0, 1)] == [700000, 700000]
    assert [shim.shim_get_lock_high(i) for i in (0, 1)] == [0, 0]
    assert not path.exists()


def test_a_dry_run_names_the_cells_and_writes_nothing(
    shim: ctypes.CDLL, tmp_path: Path, metrics_url: str
) -> None:
    engine = ["--engine-metrics-url", metrics_url, "--engine-model", "m"]
    result = run(tmp_path, *engine, "--engine-max-num-seqs", "64", "--clocks", "auto", "--dry-run")
    assert result.exit_code == 0, result.stderr
    cells = result.stdout.splitlines()
    assert (cells[0], len(cells)) == ("700 W, batch 64", 35)
    assert cells[-1] == "200 W, batch 64, 792 MHz"
    assert [shim.shim_get_limit(i) for i in (0, 1)] == [700000, 700000]
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_is_put_back_first(
    shim: ctypes.CDLL, tmp_path: Path, metrics_url: str
) -> None:
    gpu = nvml.open_gpus()[0]
    state = tmp_path / "state"
    state.mkdir()
    RestoreFile(state / "original-limits.json").remember({gpu.uuid: 650.0}, [gpu.uuid])
    gpu.apply_power_limit(300.0)
    gpu.apply_clock_limit(900.0)
    shim.shim_denied(1, 1)  # so that no cell is measured, for that takes its time
    engine = ["--engine-metrics-url", metrics_url, "--engine-model", "m"]
    result = run(
        tmp_path,
        *engine,
        "--engine-max-num-seqs",
        "64",
        "--limits",
        "500",
        "--state-dir",
        str(state),
    )
    assert "500 W refused" in result.stderr
    assert (shim.shim_get_limit(0), shim.shim_get_lock_high(0)) == (650000, 0)
    assert not (state / "original-limits.json").exists()
    assert result.exit_code == 0


def test_real_gpus_need_an_engine(shim: ctypes.CDLL, tmp_path: Path) -> None:
    assert shim.shim_get_limit(0) == 700000
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "engine-metrics-url or engine-channel, engine-model: must be given" in result.stderr
    result = run(tmp_path, "--gpu-model", "H100")
    assert "must be left out with real GPUs" in result.stderr


def test_an_engine_that_does_not_answer_ends_it_with_nothing_written(
    shim: ctypes.CDLL, tmp_path: Path
) -> None:
    result = run(tmp_path, "--engine-metrics-url", "http://127.0.0.1:9", "--engine-model", "m")
    assert result.exit_code == 5
    assert shim.shim_get_limit(0) == 700000


def test_through_the_channel_the_batch_is_one_more_knob(shim: ctypes.CDLL, tmp_path: Path) -> None:
    assert shim.shim_get_limit(0) == 700000
    directory = tmp_path / "channel"
    engine = ["--engine-channel", str(directory), "--engine-model", "m"]
    missing = run(tmp_path, *engine, "--dry-run")
    assert missing.exit_code == 5
    assert str(directory) in missing.stderr
    with RankFile.create_rank(directory, 0) as rank:
        BatchControl(rank).announce(FakeScheduler(limit=64))
        result = run(tmp_path, *engine, "--limits", "500", "--batches", "16,64", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == ["500 W, batch 16", "500 W, batch 64"]
