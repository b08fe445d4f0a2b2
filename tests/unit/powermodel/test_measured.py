from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel import measured
from pals_grid.powermodel.measured import parameters_b, read_limits, read_v2, read_v3

if TYPE_CHECKING:
    from pathlib import Path

_LIMITS = "model,tp,cap_w,batch,avg_Tokens_per_s,avg_gpu_power\n"


def test_the_a100_table_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(_LIMITS + "mixtral,4,250,8,210.4,245.5\n")
    (row,) = read_limits(path)
    assert row == ("mixtral", 250.0, 8.0, 210.4, 245.5)


@pytest.mark.parametrize("value", ["", "nan", "-1", "0", "inf", "many"])
def test_a_value_that_cannot_be_is_refused_with_its_column(tmp_path: Path, value: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(_LIMITS + f"mixtral,4,250,8,{value},245.5\n")
    with pytest.raises(InvalidValue, match="avg_Tokens_per_s"):
        read_limits(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidValue, match="must have the column model"):
        read_limits(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidValue, match="UTF-8"):
        read_limits(path)


def test_power_of_the_third_benchmark_is_per_gpu(shared_data: Path) -> None:
    rows = read_v3(shared_data / "power-perf" / measured.V3_TABLE)
    assert len(rows) > 500
    assert {row.gpu_model for row in rows} == {"H100", "B200"}
    assert all(150 < row.power_w < 1000 for row in rows)


def test_power_of_the_second_benchmark_is_energy_over_time(shared_data: Path) -> None:
    rows = read_v2(shared_data / "power-perf" / measured.V2_TABLE)
    assert all(60 < row.power_w < 700 for row in rows)
    assert {row.architecture for row in rows} == {"MoE", "Dense Transformer"}


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", (46.7, 12.9)),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", (70.0, 70.0)),
        ("google/gemma-2-27b-it", (27.0, 27.0)),
        ("microsoft/Phi-3-medium-4k-instruct", (14.0, 14.0)),
        ("mistralai/Mistral-Large-Instruct-2407", (123.0, 123.0)),
        ("someone/unknown", (8.0, 8.0)),
    ],
)
def test_parameters_come_from_a_models_name(model: str, sizes: tuple[float, float]) -> None:
    assert parameters_b(model) == sizes
