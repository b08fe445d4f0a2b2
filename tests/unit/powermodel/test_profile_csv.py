from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.profile_csv import (
    AUTHORS,
    OPTIONAL,
    REQUIRED,
    load_profile,
    write_profile,
)

if TYPE_CHECKING:
    from pathlib import Path

ROW = ProfileRow(
    gpu_model='NVIDIA H100, 80GB "HBM3"',
    gpu_count=4,
    model="Qwen/Qwen3-30B-A3B",
    power_limit_w=412.5,
    max_num_seqs=48,
    tokens_per_s=1234.567890123,
    gpu_power_w=1111.1,
    tensor_parallel=4,
    sm_clock_mhz=1305.0,
    input_per_output=5.473933649289099,
    ttft_s=0.123,
    itl_s=0.0198,
    origin=Origin.SIMULATED,
)
HEAD = (
    "gpu_model,gpu_count,model,power_limit_w,max_num_seqs,tokens_per_s,gpu_power_w,origin,"
    "ttft_s,input_per_output\n"
)
GOOD = "A100,4,m,200,8,100,700,measured,,\n"
SHEET = ",".join(AUTHORS) + ",avg_gpu_util\n"


def _written(*rows: ProfileRow) -> str:
    stream = io.StringIO(newline="")
    write_profile(rows, stream)
    return stream.getvalue()


def test_rows_come_back_as_they_were() -> None:
    unknown = replace(
        ROW, sm_clock_mhz=None, input_per_output=None, ttft_s=None, itl_s=None,
        origin=Origin.MEASURED,
    )  # fmt: skip
    text = _written(ROW, unknown)
    assert load_profile(text.splitlines(keepends=True)) == [ROW, unknown]
    assert load_profile(text.replace("\n", "\r\n").splitlines(keepends=True)) == [ROW, unknown]


def test_every_field_of_a_row_has_a_column() -> None:
    assert {field.name for field in fields(ProfileRow)} == {*REQUIRED, *OPTIONAL}


def test_a_profile_without_rows_is_a_head() -> None:
    assert load_profile(_written().splitlines()) == []


def test_columns_that_may_be_unknown_may_be_missing() -> None:
    (row,) = load_profile([HEAD, GOOD])
    assert (row.tensor_parallel, row.sm_clock_mhz, row.ttft_s, row.input_per_output) == (
        1, None, None, None,
    )  # fmt: skip


def test_the_authors_sheet_is_read_as_it_is() -> None:
    (row,) = load_profile(["\ufeff" + SHEET, "mixtral,4,250,16,281.2,248.25,95.1\n"])
    assert row == ProfileRow(
        "A100-SXM4", 4, "mixtral", 250.0, 16, 281.2, 4 * 248.25, tensor_parallel=4
    )


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("200", "", "line 2, power_limit_w: must be a finite number, got ''"),
        ("200", "nan", "line 2, power_limit_w: must be a finite number, got 'nan'"),
        ("200", "0", "line 2, power_limit_w: must be above 0 and up to 100000, got '0'"),
        (",8,", ",8.5,", "line 2, max_num_seqs: must be a whole number, got '8.5'"),
        (",8,", ",0,", "line 2, max_num_seqs: must be from 1 to 1e\\+06, got '0'"),
        ("700", "-1", "line 2, gpu_power_w: must be above 0 and up to 1e\\+08, got '-1'"),
        ("measured", "guessed", "line 2, origin: must be one of measured, modelled, simulated"),
        ("A100,", ",", "line 2, gpu_model: must have 1 to 200 characters"),
        (",,\n", ",inf,\n", "line 2, ttft_s: must be a finite number"),
        (",,\n", ",,-2\n", "line 2, input_per_output: must be from 0 to 100000"),
        (",,\n", ",\n", "line 2: must have 10 columns, got 9"),
        ("A100", '"A100', "line 2: must be CSV"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(old: str, new: str, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        load_profile([HEAD, GOOD.replace(old, new, 1)])


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ("", "line 1: must have the columns gpu_model"),
        (HEAD.replace("ttft_s", "ttft_ms"), "line 1: must have no columns but"),
        (HEAD.replace("ttft_s", "model"), "line 1: must name each column once, got 'model'"),
        ("model,tp,cap_w,batch\n", "line 1: must have the columns gpu_model"),
    ],
)
def test_a_head_of_something_else_is_refused(head: str, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        load_profile([head, GOOD])


def test_the_shared_sheet_has_all_its_rows(shared_data: Path) -> None:
    path = shared_data / "power-perf/pals_author_a100/moe_summary_tp4.csv"
    with path.open(newline="") as lines:
        rows = load_profile(lines)
    assert len(rows) >= 126
    assert {row.model for row in rows} == {"deepseek", "microsoft", "mixtral", "olmoe", "qwen"}
    assert {row.max_num_seqs for row in rows} == {1, 4, 8, 16, 32, 64}
    assert all(90 <= row.gpu_power_w / row.gpu_count <= 400 for row in rows)
