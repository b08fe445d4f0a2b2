from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.site import Slo
from pals_grid.node.strategies.latency import (
    FIRST_SLOWDOWN_RATIO,
    MOST_SLOWDOWN_RATIO,
    LatencyPlan,
)
from tests.unit.node.strategies.world import engine_sample

SLO = Slo(ttft_s=2.0, itl_s=0.1)


def learn(
    plan: LatencyPlan, ticks: int, *, itl_p99_s: float | None = None, missed: bool = False
) -> list[float]:
    """Two requests a tick; the slowdown after each tick."""
    found = []
    for k in range(ticks):
        sample = engine_sample(running=8, tokens=200.0 * k, finished=2 * k)
        plan.learn(
            replace(sample, itl_p99_s=itl_p99_s, itl_misses_total=2 * k if missed else 0), 0.5
        )
        found.append(plan.slowdown_ratio)
    return found


def test_a_tail_above_the_objective_takes_the_slowdown_down_to_nothing() -> None:
    found = learn(LatencyPlan(SLO, itl_tail=True), 400, itl_p99_s=0.11)
    assert found[0] == FIRST_SLOWDOWN_RATIO
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0.0


def test_a_tail_below_the_objective_lets_it_grow_up_to_the_bound() -> None:
    found = learn(LatencyPlan(SLO, itl_tail=True), 4000, itl_p99_s=0.09)
    assert found == sorted(found)
    assert found[-1] == MOST_SLOWDOWN_RATIO
    bounded = learn(LatencyPlan(SLO, itl_tail=True, max_slowdown_ratio=0.06), 4000, itl_p99_s=0.09)
    assert bounded[-1] == 0.06
    strict = LatencyPlan(SLO, itl_tail=True, max_slowdown_ratio=0.02)
    assert strict.slowdown_ratio == 0.02


def test_a_tail_at_the_objective_or_unknown_leaves_it() -> None:
    for itl_p99_s in (0.1, None):
        assert set(learn(LatencyPlan(SLO, itl_tail=True), 50, itl_p99_s=itl_p99_s)) == {
            FIRST_SLOWDOWN_RATIO
        }


def test_without_the_tail_only_the_option_bounds_the_slowdown() -> None:
    assert set(learn(LatencyPlan(SLO), 50, itl_p99_s=0.5)) == {math.inf}
    assert set(learn(LatencyPlan(SLO, max_slowdown_ratio=0.1), 50, itl_p99_s=0.5)) == {0.1}
    fixed = LatencyPlan(SLO, adaptive=False, itl_tail=True, max_slowdown_ratio=0.1)
    assert set(learn(fixed, 50, itl_p99_s=0.5)) == {0.1}


@given(
    st.lists(st.floats(0.001, 10.0), max_size=40),
    st.one_of(st.floats(0, 2), st.just(math.inf)),
)
def test_the_slowdown_never_leaves_its_bounds(tails_s: list[float], bound: float) -> None:
    plan = LatencyPlan(SLO, itl_tail=True, max_slowdown_ratio=bound)
    for k, tail_s in enumerate(tails_s):
        plan.learn(replace(engine_sample(running=1, tokens=k), itl_p99_s=tail_s), 30.0)
        assert 0.0 <= plan.slowdown_ratio <= min(MOST_SLOWDOWN_RATIO, bound)


def test_new_objectives_begin_afresh() -> None:
    plan = LatencyPlan(SLO, itl_tail=True)
    learn(plan, 400, itl_p99_s=0.2, missed=True)
    assert plan.slowdown_ratio == 0.0
    plan.set_slo(Slo(1.0, 0.2))
    assert plan.slowdown_ratio == FIRST_SLOWDOWN_RATIO
    assert plan.itl_s == pytest.approx(0.85 * 0.2)


def test_misses_tighten_what_is_planned_with_but_not_what_overload_may_use() -> None:
    plan = LatencyPlan(SLO)
    assert (plan.itl_s, plan.overload_itl_s) == pytest.approx((0.085, 0.095))
    learn(plan, 400, missed=True)
    assert (plan.itl_s, plan.overload_itl_s) == pytest.approx((0.05, 0.095))


def test_overload_of_a_plan_that_does_not_adapt_or_holds_no_itl() -> None:
    assert LatencyPlan(SLO, adaptive=False).overload_itl_s == 0.1
    assert LatencyPlan(SLO, itl=False).overload_itl_s == math.inf
