from __future__ import annotations

import subprocess
import sys

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.sampling import MAX_CANDIDATES, Cell, choose_cells

BATCHES = (1, 4, 16, 64)
GRID = [Cell(limit_w, batch) for limit_w in (100.0, 150.0, 250.0, 400.0) for batch in BATCHES]


def _row(limit_w: float, batch: int, power_w: float) -> ProfileRow:
    return ProfileRow("A100", 4, "m", limit_w, batch, 100.0, 4 * power_w)


AT_400_W = [_row(400.0, batch, 180.0 + 2.5 * batch) for batch in BATCHES]


def test_an_engine_without_rows_shows_its_free_draw_first() -> None:
    assert choose_cells([], GRID, 2) == [Cell(400.0, 64), Cell(400.0, 1)]


def test_an_engine_known_at_its_highest_limit_gets_low_limits_at_different_batches() -> None:
    chosen = choose_cells(AT_400_W, GRID, 4)
    assert all(cell.power_limit_w <= 150 for cell in chosen)
    assert len({cell.max_num_seqs for cell in chosen}) >= 3
    assert chosen[0].power_limit_w == 100.0


def test_known_cells_are_not_asked_again_and_all_others_are_in_the_end() -> None:
    chosen = choose_cells(AT_400_W, [*GRID, *GRID], 100)
    assert sorted(chosen, key=repr) == sorted(
        (cell for cell in GRID if cell.power_limit_w < 400), key=repr
    )
    assert choose_cells(AT_400_W, GRID[-4:], 3) == []
    assert choose_cells([], GRID, 0) == []


def test_later_choices_follow_from_earlier_ones() -> None:
    whole = choose_cells(AT_400_W, GRID, 3)
    step = choose_cells(AT_400_W, GRID, 1)
    measured = [*AT_400_W, _row(step[0].power_limit_w, step[0].max_num_seqs, 99.0)]
    assert [*step, *choose_cells(measured, GRID, 2)] == whole


def test_clocks_are_cells_of_their_own() -> None:
    cells = [Cell(400.0, 8, clock) for clock in (None, 600.0, 900.0)]
    assert choose_cells([], cells, 1) == [Cell(400.0, 8)]
    assert set(choose_cells([], cells, 3)) == set(cells)


@pytest.mark.parametrize(
    ("cells", "count", "named"),
    [
        (GRID, -1, "count: must be 0 or more"),
        ([Cell(0.0, 1)], 1, "power_limit_w"),
        ([Cell(100.0, 0)], 1, "max_num_seqs"),
        ([Cell(100.0, 1, float("inf"))], 1, "sm_clock_mhz"),
        ([Cell(100.0, 1)] * (MAX_CANDIDATES + 1), 1, "candidates"),
    ],
)
def test_impossible_cells_are_refused(cells: list[Cell], count: int, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        choose_cells([], cells, count)


def test_a_node_can_choose_without_the_training_packages() -> None:
    code = (
        "import sys, pals_grid.powermodel.sampling, pals_grid.powermodel.frontier_file, "
        "pals_grid.powermodel.profile_csv; "
        "sys.exit(bool({'numpy', 'scipy', 'lightgbm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0
