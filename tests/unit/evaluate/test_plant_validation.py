from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.plant_anchors import anchor_gates
from pals_grid.evaluate.plant_cross import cross_validate
from pals_grid.evaluate.plant_errors import Gate, RowError, Sample, SetReport, Spread
from pals_grid.evaluate.plant_sets import compare_levels, compare_limits
from pals_grid.evaluate.plant_validation import render_validation, validate_plant
from pals_grid.powermodel import measured
from pals_grid.powermodel.fitted import packaged_fit
from pals_grid.powermodel.measured import LimitRow

if TYPE_CHECKING:
    from pathlib import Path


def _copy(source: Path, target: Path, table: str, keep: int = 1) -> list[dict[str, str]]:
    """Every ``keep``-th row of a table, in a folder of the same names."""
    path = target / table
    path.parent.mkdir(exist_ok=True)
    rows = measured.read_table(source / table)[::keep]
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_statistics_of_errors_are_of_their_sizes() -> None:
    spread = Spread.of([0.1, -0.3, 0.2, 0.0])
    assert spread is not None
    assert spread.rows == 4
    assert spread.mean == pytest.approx(0.15)
    assert spread.median == pytest.approx(0.15)
    assert spread.p90 == pytest.approx(0.3)
    assert Spread.of([]) is None


def test_a_report_groups_by_level_in_the_order_of_numbers() -> None:
    errors = tuple(
        RowError("m", "A100", level, Sample.FITTED, throughput=0.1)
        for level in ("100", "50", "250")
    )
    report = SetReport("set", "what", "GPU", "measured", "limit_w", errors, {"no model": 2})
    assert list(report.by(lambda row: row.level)) == ["50", "100", "250"]
    plain = report.to_json()
    assert (plain["rows"], plain["unknown"]) == (5, 2)
    assert plain["unknown_by_reason"] == {"no model": 2}
    assert "power" not in str(plain["errors"])


def test_a_gate_is_inside_its_bounds() -> None:
    assert Gate("g", "s", "R1", "%", 1.0, 2.0, 1.5, "assumed").inside
    assert not Gate("g", "s", "R1", "%", 1.0, 2.0, 2.5, "assumed").inside


def test_limits_that_were_not_fitted_are_told_apart_and_unknown_models_counted() -> None:
    rows = [
        LimitRow("mixtral", 250.0, 64.0, 372.6, 249.1),
        LimitRow("mixtral", 225.0, 64.0, 350.0, 224.0),
        LimitRow("olmoe", 200.0, 64.0, 1700.0, 199.0),
        LimitRow("another", 200.0, 64.0, 1700.0, 199.0),
    ]
    errors, unknown = compare_limits(packaged_fit(), rows)
    assert [row.sample for row in errors] == [Sample.FITTED, Sample.HELD_OUT, Sample.HELD_OUT]
    assert unknown.total() == 1
    assert errors[0].throughput == pytest.approx(0, abs=0.06)


def test_the_plant_keeps_its_stated_errors_on_the_a100_table(shared_data: Path) -> None:
    rows = measured.read_limits(shared_data / "power-perf" / measured.A100_TABLE)
    errors, unknown = compare_limits(packaged_fit(), rows)
    report = SetReport("a", "", "", "", "limit_w", tuple(errors), unknown)
    spreads = report.spreads(report.errors)
    assert not unknown
    assert spreads["throughput"].mean < 0.02
    assert spreads["power"].mean < 0.012


def test_levels_tell_fitted_held_out_and_new_groups_apart(shared_data: Path) -> None:
    row = measured.read_v3(shared_data / "power-perf" / measured.V3_TABLE)[0]
    rows = [
        row,
        msgspec.structs.replace(row, level=16.0, running=16.0),
        msgspec.structs.replace(row, model="new/model", family="New"),
        msgspec.structs.replace(row, source="elsewhere"),
    ]
    errors, unknown = compare_levels(packaged_fit(), rows)
    assert [e.sample for e in errors] == [Sample.FITTED, Sample.HELD_OUT, Sample.NEW_GROUP]
    assert unknown.total() == 1
    assert errors[0].power == pytest.approx(0, abs=0.05)
    assert errors[0].itl == pytest.approx(0, abs=0.1)


def test_a_folder_with_some_sets_is_judged_on_those(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "power-perf"
    rows = _copy(source, tmp_path, measured.A100_TABLE, keep=3)
    rows += _copy(source, tmp_path, measured.V3_TABLE, keep=20)
    _copy(source, tmp_path, measured.V100_TABLE)
    result = validate_plant(tmp_path, packaged_fit())
    assert [report.name for report in result.sets] == [
        "pals_author_a100", "mlenergy_v3", "gridpilot_v100",
    ]  # fmt: skip
    assert sum(len(report.errors) for report in result.sets[:2]) == len(rows)
    v100 = result.sets[2].spreads(result.sets[2].errors)["throughput"]
    assert v100.mean < 0.02
    text = render_validation(result)
    assert "H100 extrapolated, B200 extrapolated" in text
    assert "limit_w 100" in text


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="must hold one of the measured sets"):
        validate_plant(tmp_path, packaged_fit())


def test_traces_and_collectives_are_judged(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "power-perf"
    _copy(source, tmp_path, measured.TRACE_TABLE)
    _copy(source, tmp_path, measured.NCCL_TABLE, keep=5)
    traces, links = validate_plant(tmp_path, packaged_fit()).sets
    assert {row.sample for row in traces.errors} == {Sample.FITTED, Sample.HELD_OUT}
    assert traces.spreads(traces.errors)["power"].mean < 0.03
    assert links.spreads(links.errors)["itl"].median < 0.2


def test_all_gates_but_the_one_that_is_told_are_inside() -> None:
    outside = [gate.name for gate in anchor_gates() if not gate.inside]
    assert outside == ["A100 dense decode, 250 to 175 W: latency"]


def test_cross_validation_judges_only_rows_that_were_left_out(
    tmp_path: Path, shared_data: Path
) -> None:
    _copy(shared_data / "power-perf", tmp_path, measured.A100_TABLE)
    steps: list[float] = []
    reports = cross_validate(tmp_path, packaged_fit(), steps.append)
    assert steps[-1] == 1.0
    by_name = {report.left_out: report.spreads for report in reports}
    alone = by_name["each model but its 400 W row, all"]
    assert alone["throughput"].rows == 96
    assert alone["throughput"].mean < 0.04
    assert alone["power"].mean < 0.02
    assert by_name["limit 250 W"]["throughput"].mean < 0.03
