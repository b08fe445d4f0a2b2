"""Batch work of one name is one queue, as free as its items one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.budget import BatchWork, PlanRequest
from pals_grid.core.site import ServiceTier
from pals_grid.planner.linear import plan_power_budget
from pals_grid.planner.problem import problem_of
from tests.unit.planner.test_linear import FLEETS, HALF_HOUR, NOW, POLICY, make_slots

PRICES: list[float | None] = [90.0, 20.0, 70.0, 10.0, 80.0, 60.0, 5.0, 50.0]
ALONE = replace(POLICY, tiers=(ServiceTier("chat", 1.0),), minimum_w=0.0)


def request(items: tuple[BatchWork, ...]) -> PlanRequest:
    slots = make_slots(PRICES, [300.0] * len(PRICES))
    return PlanRequest(ALONE, FLEETS, slots, (), NOW, batch_work=items)


def cost(plan_request: PlanRequest) -> float:
    budget = plan_power_budget(plan_request)
    return sum((item.price_per_mwh or 0.0) * item.expected_power_w for item in budget.intervals)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 10), st.floats(1e3, 2e5)), min_size=2, max_size=5))
def test_one_name_costs_what_many_do(work: list[tuple[int, float]]) -> None:
    apart = tuple(
        BatchWork(f"w{i}", tokens, NOW + HALF_HOUR * slots)
        for i, (slots, tokens) in enumerate(work)
    )
    together = tuple(replace(item, name="waiting") for item in apart)
    assert len(problem_of(request(together)).work.queues) == 1
    assert cost(request(together)) == pytest.approx(cost(request(apart)), rel=1e-4)


def test_every_deadline_is_kept() -> None:
    items = tuple(BatchWork("waiting", 360_000.0, NOW + HALF_HOUR * last) for last in (1, 3, 8))
    budget = plan_power_budget(request(items))
    extra = [(item.planned_tokens_per_s - 300.0) * 1800.0 for item in budget.intervals]
    assert extra[0] == pytest.approx(360_000.0, rel=1e-3)
    assert sum(extra[:3]) >= 720_000.0 * 0.999
    assert sum(extra) == pytest.approx(1_080_000.0, rel=1e-3)


def test_work_with_a_value_or_a_release_stays_by_itself() -> None:
    items = (
        BatchWork("waiting", 1e5, NOW + HALF_HOUR * 4),
        BatchWork("waiting", 1e5, NOW + HALF_HOUR * 4, value_per_mtoken=1.0),
        BatchWork("waiting", 1e5, NOW + HALF_HOUR * 6, release_at=NOW + timedelta(hours=1)),
        BatchWork("waiting", 1e5, NOW + HALF_HOUR * 6),
    )
    queues = problem_of(request(items)).work.queues
    assert [round(float(queue.arrived[-1])) for queue in queues] == [200_000, 100_000, 100_000]
