from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pals_grid.node.strategies.pid import ThroughputPid

BASIS = (250.0, 1000.0, 500.0)


def step(
    pid: ThroughputPid, error: float, *, high_w: float = 400.0, base_w: float = 250.0
) -> float:
    basis = (base_w, 1000.0, 500.0)
    return pid.correct(base_w, error, 0.5, basis=basis, low_w=100.0, high_w=high_w)


def test_errors_up_to_5_percent_change_nothing() -> None:
    pid = ThroughputPid()
    assert [step(pid, error) for error in (0.05, -0.05, 0.03)] == [250.0] * 3


def test_a_lasting_shortfall_raises_the_limit_more_and_more_up_to_the_bound() -> None:
    pid = ThroughputPid()
    limits = [step(pid, 0.2) for _ in range(60)]
    assert limits[0] > 250.0
    assert limits == sorted(limits)
    assert limits[-1] == 400.0


def test_a_limit_that_would_move_by_less_than_2_percent_stays() -> None:
    pid = ThroughputPid()
    limits = [step(pid, 0.06) for _ in range(40)]
    moves_w = [b - a for a, b in pairwise([250.0, *limits]) if b != a]
    assert min(moves_w) >= 0.02 * 250.0
    assert limits[-1] > 275.0


def test_it_does_not_wind_up_at_a_bound() -> None:
    pid = ThroughputPid()
    for _ in range(1000):
        assert step(pid, 0.5, high_w=260.0) <= 260.0
    limits = [step(pid, -0.2, high_w=260.0) for _ in range(4)]
    assert limits[0] < 260.0


def test_a_new_target_starts_afresh() -> None:
    pid = ThroughputPid()
    for _ in range(20):
        step(pid, 0.2)
    assert pid.correct(250.0, 0.0, 0.5, basis=(250.0, 1000.0, 900.0), low_w=100, high_w=400) == 250


def test_a_correction_that_reached_its_goal_stays() -> None:
    pid = ThroughputPid()
    for _ in range(5):
        step(pid, 0.2)
    held = step(pid, 0.0)
    assert held > 250.0
    assert step(pid, 0.0) == held


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(100, 400)), max_size=50))
def test_it_never_leaves_its_bounds(steps: list[tuple[float, float]]) -> None:
    pid = ThroughputPid()
    for error, high_w in steps:
        assert 100.0 <= step(pid, error, high_w=high_w) <= high_w
