from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("scipy")

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.profile_csv import load_profile
from pals_grid.powermodel.sampling import Cell
from pals_grid.powermodel.train.fit import Kind
from pals_grid.powermodel.train.scores import Scores, leave_one_out, score

if TYPE_CHECKING:
    from pathlib import Path

PHYSICS = (Kind.PHYSICS,)


def _rows(model: str = "m", factor: float = 1.0) -> list[ProfileRow]:
    """SYNTHETIC: throughput goes with what the limit leaves above 60 W of a draw of 300 W."""
    return [
        ProfileRow(
            "A100-SXM4", 4, model, limit_w, batch,
            factor * 50 * batch * (min(limit_w, 300.0) - 60) / 240, 4 * min(limit_w, 300.0),
        )
        for limit_w in (100.0, 150.0, 250.0, 400.0)
        for batch in (1, 8)
    ]  # fmt: skip


def test_errors_are_relative_to_the_measured_value() -> None:
    twice = [
        replace(row, tokens_per_s=2 * row.tokens_per_s, gpu_power_w=4 * row.gpu_power_w)
        for row in _rows()
    ]
    found = score(_rows(), twice, kinds=PHYSICS)
    assert found.overall(Kind.PHYSICS).n == 8
    assert found.overall(Kind.PHYSICS).throughput_mape_ratio == pytest.approx(0.5, abs=0.03)
    assert found.overall(Kind.PHYSICS).power_mape_ratio == pytest.approx(0.75, abs=0.02)
    assert list(found.by_limit(Kind.PHYSICS)) == [100.0, 150.0, 250.0, 400.0]
    assert {m: s.n for m, s in found.by_model(Kind.PHYSICS).items()} == {"m": 8}


def test_a_model_without_rows_is_told_apart() -> None:
    found = score(_rows(), [*_rows(), *_rows("far", 30.0)], kinds=PHYSICS)
    assert found.overall(Kind.PHYSICS).n == 8
    assert {row.model for row in found.unseen} == {"far"}
    assert min(error.throughput_ratio for error in found.unseen_errors[Kind.PHYSICS]) > 0.5


def test_added_cells_leave_the_test() -> None:
    new = _rows("new", 3.0)
    train = [*_rows(), *(row for row in new if row.power_limit_w == 400)]
    test = [row for row in new if row.power_limit_w < 400]
    found = score(train, test, kinds=PHYSICS, add_cells=2)
    assert set(found.added) == {"new"}
    assert len(found.added["new"]) == 2
    left = {Cell(row.power_limit_w, row.max_num_seqs) for row in found.rows}
    assert left == {Cell(r.power_limit_w, r.max_num_seqs) for r in test} - set(found.added["new"])
    assert found.train_rows == len(train) + 2


def test_a_model_known_at_several_limits_gets_no_cells() -> None:
    train = [row for row in _rows() if row.power_limit_w != 150]
    test = [row for row in _rows() if row.power_limit_w == 150]
    assert score(train, test, kinds=PHYSICS, add_cells=1).added == {}


def test_every_turn_leaves_one_out() -> None:
    rows = [*_rows(), *_rows("other", 2.0)]
    for by, turns in (("limit", 4), ("model", 2), ("batch", 2)):
        found = list(leave_one_out(rows, by, kinds=PHYSICS))
        assert len(found) == turns
        joined = Scores(len(rows))
        for turn in found:
            joined.join(turn)
        expected = {"limit": 16, "model": 12, "batch": 16}[by]
        assert joined.overall(Kind.PHYSICS).n == expected


def test_impossible_comparisons_are_refused() -> None:
    one = _rows()[:1]
    for named, call in (
        ("train", lambda: score([], one)),
        ("test", lambda: score(one, [])),
        ("add_cells", lambda: score(one, [replace(one[0], model="new")], add_cells=1)),
        ("add_cells", lambda: score(one, one, add_cells=-1)),
        ("leave_one", lambda: list(leave_one_out(one, "gpu"))),
        ("more than one limit", lambda: list(leave_one_out(one, "limit"))),
    ):
        with pytest.raises(InvalidValue, match=named):
            call()


@pytest.fixture
def sheet(shared_data: Path) -> list[ProfileRow]:
    path = shared_data / "power-perf/pals_author_a100/moe_summary_tp4.csv"
    with path.open(newline="") as lines:
        return load_profile(lines)


def _joined(rows: list[ProfileRow], by: str, kind: Kind, add_cells: int = 0) -> Scores:
    whole = Scores(len(rows))
    for turn in leave_one_out(rows, by, kinds=(kind,), add_cells=add_cells):
        whole.join(turn)
    return whole


def test_leaving_one_limit_out_of_the_a100_sheet(sheet: list[ProfileRow]) -> None:
    found = _joined(sheet, "limit", Kind.ENSEMBLE)
    overall = found.overall(Kind.ENSEMBLE)
    assert overall.n >= 120
    assert overall.throughput_mape_ratio <= 0.030
    assert overall.power_mape_ratio <= 0.023
    for each in found.by_limit(Kind.ENSEMBLE).values():
        assert each.throughput_mape_ratio <= 0.08
        assert each.power_mape_ratio <= 0.05


@pytest.mark.parametrize(
    ("cells", "throughput", "power"), [(0, 0.12, 0.08), (4, 0.05, 0.04)], ids=["none", "four"]
)
def test_a_model_of_the_a100_sheet_known_by_its_400_w_row(
    sheet: list[ProfileRow], cells: int, throughput: float, power: float
) -> None:
    found = _joined(sheet, "model", Kind.BOOSTING, cells)
    assert all(len(added) == cells for added in found.added.values())
    overall = found.overall(Kind.BOOSTING)
    assert overall.n >= 96 - 4 * cells
    assert overall.throughput_mape_ratio <= throughput
    assert overall.power_mape_ratio <= power
    for each in found.by_model(Kind.BOOSTING).values():
        assert each.throughput_mape_ratio <= throughput
        assert each.power_mape_ratio <= power
