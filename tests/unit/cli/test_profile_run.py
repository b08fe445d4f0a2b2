"""``profile run`` on simulated nodes; on the shim, as far as it is read."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from pals_grid.cli.exits import Commands
from pals_grid.cli.profile_bench import ProfileStopped, StopSignal
from pals_grid.cli.profile_run import command
from pals_grid.node.profile_log import ProfileLog
from pals_grid.powermodel.profile_csv import load_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from pals_grid.powermodel.profile import ProfileRow

    Run = Callable[..., Result]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "profile.csv"


@pytest.fixture
def profile(out: Path) -> Run:
    group = Commands("profile")
    group.add_command(command, "run")

    def invoke(*arguments: str) -> Result:
        given = ["run", "--hardware", "sim", "--out", str(out), *arguments]
        return CliRunner().invoke(group, given)

    return invoke


def rows_of(out: Path) -> list[ProfileRow]:
    with out.open(newline="") as file:
        return load_profile(file)


def test_every_cell_is_measured_once_and_labelled(profile: Run, out: Path) -> None:
    result = profile("--limits", "400,250", "--batches", "4,16", "--clocks", "free,1005")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "Measuring 8 cells" in result.stderr
    assert "8 rows, simulated" in result.stderr
    rows = rows_of(out)
    assert len({(r.power_limit_w, r.max_num_seqs, r.sm_clock_mhz) for r in rows}) == 8
    assert {r.origin.value for r in rows} == {"simulated"}
    assert all(r.tokens_per_s > 0 and r.gpu_power_w > 0 for r in rows)


def test_a_second_start_measures_what_is_missing_and_says_so(profile: Run, out: Path) -> None:
    profile("--limits", "400", "--batches", "4")
    before = out.read_bytes()
    result = profile("--limits", "400,250", "--batches", "4")
    assert "1 of 2 cells are there already" in result.stderr
    assert "Measuring 1 cells" in result.stderr
    assert out.read_bytes().startswith(before)
    assert [row.power_limit_w for row in rows_of(out)] == [400.0, 250.0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_rows_and_the_next_start_goes_on(
    profile: Run, out: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    append = ProfileLog.append

    def interrupted(log: ProfileLog, row: ProfileRow) -> None:
        append(log, row)
        if len(log.rows) == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(ProfileLog, "append", interrupted)
        result = profile("--limits", "400,350,300,250", "--batches", "4")
    assert result.exit_code == 128 + number
    assert "stopped; the same command goes on" in result.stderr
    assert len(rows_of(out)) == 2
    assert profile("--limits", "400,350,300,250", "--batches", "4").exit_code == 0
    assert len(rows_of(out)) == 4


def test_a_signal_ends_a_wait_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignal()
    with stop.installed():
        stop.wait(0.0)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # a second one disturbs nothing
        with pytest.raises(ProfileStopped):
            stop.wait(600.0)
    assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_so_many_cells_are_chosen_and_a_dry_run_names_them(profile: Run, out: Path) -> None:
    result = profile("--cells", "3", "--dry-run")
    assert result.exit_code == 0, result.stderr
    foreseen = result.stdout.splitlines()
    assert len(foreseen) == 3
    assert not out.exists()
    assert profile("--cells", "3").exit_code == 0
    found = [f"{row.power_limit_w:g} W, batch {row.max_num_seqs}" for row in rows_of(out)]
    assert found[0] == foreseen[0]
    assert len(set(found)) == 3


def test_an_objective_leaves_cells_out_and_says_why(profile: Run, out: Path) -> None:
    result = profile("--limits", "400,100", "--batches", "64", "--slo-itl-ms", "1")
    assert "breaks the objective" in result.stderr
    assert "400 W" in result.stderr
    assert "100 W, batch 64: no row: a faster cell broke" in result.stderr
    assert [row.power_limit_w for row in rows_of(out)] == [400.0]


def test_another_known_engine_can_be_simulated_but_not_into_the_same_file(
    profile: Run, out: Path
) -> None:
    profile("--limits", "400", "--batches", "4")
    result = profile("--engine-model", "Qwen/Qwen1.5-MoE-A2.7B", "--limits", "400")
    assert result.exit_code == 3
    assert "error: out: must be a profile of Qwen/Qwen1.5-MoE-A2.7B" in result.stderr
    assert len(rows_of(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limits", "50"], "limits: must be from 100 to 400 W, got 50.0"),
        (["--limits", "a lot"], "limits: must be auto, or numbers"),
        (["--limits", "nan"], "limits: must be auto, or numbers"),
        (["--batches", "0"], "batches: must be whole numbers from 1"),
        (["--batches", "2.5"], "batches: must be whole numbers from 1"),
        (["--batches", "8", "--engine-max-num-seqs", "16"], "batches: must be 16"),
        (["--clocks", "9000"], "clocks: must be from"),
        (["--clocks", "free,"], "clocks: must be auto, or numbers"),
        (["--engine-model", "nobody/knows"], "engine-model: must be one of: "),
        (["--engine-metrics-url", "http://127.0.0.1:9"], "engine-metrics-url: must be left out"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    profile: Run, out: Path, arguments: list[str], message: str
) -> None:
    result = profile(*arguments)
    assert result.exit_code == 3
    assert f"error: {message}" in result.stderr
    assert not out.exists()


def test_a_directory_that_is_not_there_is_told(profile: Run, tmp_path: Path) -> None:
    result = profile("--out", str(tmp_path / "no" / "p.csv"))
    assert result.exit_code == 3
    assert "must be in a directory that exists" in result.stderr


def test_an_engine_with_a_batch_of_its_own_is_measured_there(profile: Run) -> None:
    result = profile("--limits", "400,300", "--engine-max-num-seqs", "16", "--dry-run")
    assert result.stdout.splitlines() == ["400 W, batch 16", "300 W, batch 16"]


def test_automatic_cells_span_what_the_gpus_take(profile: Run) -> None:
    cells = profile("--clocks", "auto", "--dry-run").stdout.splitlines()
    assert len(cells) == 7 * 5 * 5
    assert cells[0] == "400 W, batch 1"
    assert cells[34] == "100 W, batch 256"
    assert sum("MHz" in cell for cell in cells) == 7 * 5 * 4


def test_the_command_is_found_by_its_name() -> None:
    assert isinstance(command, click.Command)
    assert command.name == "run"
