from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.fleet import OperatingPoint
from pals_grid.node.select import CALM_RATIO, KEEP_RATIO, PointChooser, efficiency, split_budget

SLO_S = 0.1

points = st.builds(
    OperatingPoint,
    power_limit_w=st.sampled_from([100.0, 200.0, 300.0, 400.0]),
    max_num_seqs=st.sampled_from([1, 8, 64]),
    tokens_per_s=st.floats(1, 5000),
    gpu_power_w=st.floats(50, 3000),
    ttft_s=st.just(0.2),
    itl_s=st.floats(0.01, 0.2),
)
tables = st.lists(points, min_size=1, max_size=30)


def brute_force(
    table: list[OperatingPoint], budget_w: float, target: float
) -> tuple[str, float] | None:
    """The paper's steps word for word: which rule chose, and the figure that it maximises."""
    inside = [p for p in table if p.gpu_power_w <= budget_w]
    inside = [p for p in inside if p.itl_s <= SLO_S] or inside
    if not inside:
        return None
    meeting = [p for p in inside if p.tokens_per_s >= target]
    if meeting:
        return "efficiency", max(p.tokens_per_s / p.gpu_power_w for p in meeting)
    return "throughput", max(p.tokens_per_s for p in inside)


@given(tables, st.floats(0, 3500), st.floats(0, 6000))
def test_choice_equals_brute_force(
    table: list[OperatingPoint], budget_w: float, target: float
) -> None:
    chosen = PointChooser(table, SLO_S).choose(budget_w, target)
    expected = brute_force(table, budget_w, target)
    if expected is None:
        assert chosen is None
        return
    assert chosen is not None
    assert chosen.gpu_power_w <= budget_w
    rule, best = expected
    assert (efficiency(chosen) if rule == "efficiency" else chosen.tokens_per_s) == best


@given(tables, st.floats(0, 3500), st.floats(0, 6000), st.data())
def test_a_kept_point_is_allowed_and_nearly_as_efficient(
    table: list[OperatingPoint], budget_w: float, target: float, data: st.DataObject
) -> None:
    current = data.draw(st.sampled_from(table))
    chooser = PointChooser(table, SLO_S)
    best = chooser.choose(budget_w, target)
    kept = chooser.choose(budget_w, target, current)
    if best is None or kept is None:
        assert kept is best
        return
    if kept != best:
        assert kept.gpu_power_w <= budget_w
        assert kept.tokens_per_s >= target
        assert current.tokens_per_s >= target
        calm = chooser.choose(budget_w, min(current.tokens_per_s, target * (1 + CALM_RATIO)))
        assert calm is not None
        assert kept in (current, calm)
        assert efficiency(kept) >= (1 - KEEP_RATIO) * efficiency(calm)


def test_a_target_that_swings_about_a_point_changes_nothing() -> None:
    low = OperatingPoint(100.0, 8, 1000.0, 400.0, 0.1, 0.05)
    high = OperatingPoint(200.0, 8, 1500.0, 800.0, 0.1, 0.05)
    chooser = PointChooser([low, high], SLO_S)
    current, chosen = low, []
    for target in (990.0, 1001.0, 999.0, 1003.0, 960.0, 952.0, 999.0):
        current = chooser.choose(900.0, target, current) or low
        chosen.append(current)
    assert chosen == [low, high, high, high, high, low, low]


@given(
    st.floats(0, 5000),
    st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_shares_stay_inside_the_budget_and_cover_needs_that_fit(
    budget_w: float, units: list[tuple[float, float]]
) -> None:
    needs = [need for need, _ in units]
    floors = [need * part for need, part in units]
    shares = split_budget(budget_w, needs, floors)
    assert sum(shares) <= budget_w + 1e-6
    if sum(needs) <= budget_w:
        assert all(share >= need - 1e-6 for share, need in zip(shares, needs, strict=True))
    elif sum(floors) <= budget_w:
        assert all(share >= floor - 1e-6 for share, floor in zip(shares, floors, strict=True))


def test_a_negative_budget_gives_nothing() -> None:
    assert split_budget(-5.0, [100.0, 50.0], [40.0, 20.0]) == [0.0, 0.0]


def test_a_decision_over_150_points_is_fast() -> None:
    rng = random.Random(1)
    table = [
        OperatingPoint(
            100.0 + i, 1 + i % 8, rng.uniform(10, 5000), rng.uniform(100, 3000), 0.2, 0.05
        )
        for i in range(150)
    ]
    chooser = PointChooser(table, SLO_S)
    begun = time.process_time()
    for i in range(2000):
        chooser.choose(100 + i % 2900, 4000.0)
    assert (time.process_time() - begun) / 2000 < 50e-6
