from __future__ import annotations

from click.testing import CliRunner

from pals_grid.evaluate.bench_allocator import live_rounds, split_costs
from pals_grid.evaluate.bench_grants import main


def test_splits_are_timed_and_compared_with_their_bound() -> None:
    costs = split_costs(count=600, calls=3)
    assert len(costs) == 9
    assert all(0 < item.p50_ms <= item.p99_ms for item in costs)
    assert all(-1e-9 <= item.lost_ratio < 0.005 for item in costs)
    assert all(item.lost_ratio < 1e-9 for item in costs if "levels" not in item.what)


def test_live_rounds_go_on() -> None:
    go = live_rounds(20)
    for _ in range(3):
        go()


def test_a_run_under_faults_is_printed() -> None:
    found = CliRunner().invoke(main, ["--nodes", "6", "--hours", "0.1", "--seed", "3"])
    assert found.exit_code == 0, found.output
    assert "simulated: 6 nodes, 0.1 h, seed 3" in found.output
    assert "of 360" in found.output
