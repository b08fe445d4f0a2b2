from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.profile_log import ProfileLog
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.profile_csv import load_profile
from pals_grid.powermodel.sampling import Cell

if TYPE_CHECKING:
    from pathlib import Path

UNIT = EngineUnit("e", FakeEngine(), (FakeGpu("a"), FakeGpu("b")), None, Origin.SIMULATED)


def row(limit_w: float, batch: int, clock_mhz: float | None = None) -> ProfileRow:
    return ProfileRow(
        gpu_model="Fake GPU",
        gpu_count=2,
        model="fake-model",
        power_limit_w=limit_w,
        max_num_seqs=batch,
        tokens_per_s=100.0 + limit_w,
        gpu_power_w=2 * limit_w,
        tensor_parallel=2,
        sm_clock_mhz=clock_mhz,
        input_per_output=5.0,
        itl_s=0.02,
        origin=Origin.SIMULATED,
    )


def test_rows_are_in_the_file_as_they_come_and_known_to_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    log = ProfileLog(path, UNIT, 5.0)
    assert not path.exists()
    for count, new in enumerate((row(300.0, 8), row(300.0, 8, 900.0)), start=1):
        log.append(new)
        with path.open(newline="") as file:
            assert len(load_profile(file)) == count
    again = ProfileLog(path, UNIT, 5.0)
    assert again.rows == log.rows == (row(300.0, 8), row(300.0, 8, 900.0))
    assert again.has(Cell(300.0, 8))
    assert again.has(Cell(300.0, 8, 900.0))
    for cell in (Cell(301.0, 8), Cell(300.0, 9), Cell(300.0, 8, 915.0)):
        assert not again.has(cell)


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_row_that_a_kill_cut_off_is_measured_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "profile.csv"
    log = ProfileLog(path, UNIT, 5.0)
    log.append(row(300.0, 8))
    whole = path.read_text()
    log.append(row(200.0, 8))
    path.write_text(path.read_text()[: len(whole) + cut] if cut > 0 else path.read_text()[:cut])
    again = ProfileLog(path, UNIT, 5.0)
    assert again.rows == (row(300.0, 8),)
    again.append(row(200.0, 8))
    assert ProfileLog(path, UNIT, 5.0).rows == log.rows


@pytest.mark.parametrize("length", [0, 5])
def test_a_head_that_a_kill_cut_off_is_written_again(tmp_path: Path, length: int) -> None:
    path = tmp_path / "profile.csv"
    ProfileLog(path, UNIT, 5.0).append(row(300.0, 8))
    path.write_text(path.read_text()[:length])
    ProfileLog(path, UNIT, 5.0).append(row(200.0, 8))
    assert ProfileLog(path, UNIT, 5.0).rows == (row(200.0, 8),)


def test_another_engine_in_the_file_is_an_error_that_names_both(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    ProfileLog(path, UNIT, None).append(row(300.0, 8))
    other = EngineUnit("e", FakeEngine("other"), UNIT.gpus, None, Origin.SIMULATED)
    with pytest.raises(InvalidValue, match=r"profile of other on 2 x Fake GPU.*fake-model on 2 x"):
        ProfileLog(path, other, None)
    measured = EngineUnit("e", UNIT.engine, UNIT.gpus, None, Origin.MEASURED)
    with pytest.raises(InvalidValue, match="measured"):
        ProfileLog(path, measured, None)


def test_another_mix_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    ProfileLog(path, UNIT, 5.0).append(row(300.0, 8))
    with pytest.raises(InvalidValue, match=r"rows of 2 prompt tokens per output token.* with 5"):
        ProfileLog(path, UNIT, 2.0)
    assert len(ProfileLog(path, UNIT, None).rows) == 1


def test_some_other_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(InvalidValue, match="must be a profile that this command began"):
        ProfileLog(path, UNIT, None)
    assert path.read_text() == "dear diary\n"
