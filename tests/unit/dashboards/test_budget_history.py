from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pals_grid_dashboards.console.budget_history import in_force

from pals_grid.core.budget import BudgetInterval, Plan, PowerBudget, Reason
from pals_grid.core.intervals import Interval

T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _plan(version: int, made_at: datetime, start_at: datetime, limits_w: list[float]) -> Plan:
    intervals = tuple(
        BudgetInterval(
            interval=Interval(start_at + HOUR * k, start_at + HOUR * (k + 1)),
            limit_w=limit_w,
            reason=Reason.DEMAND,
            explanation="",
            price_per_mwh=None,
            carbon_g_per_kwh=None,
            demand_tokens_per_s=0,
            planned_tokens_per_s=0,
            expected_power_w=limit_w,
        )
        for k, limit_w in enumerate(limits_w)
    )
    return Plan(version, 1, version, made_at, "schedule", (), PowerBudget("first", intervals))


def _limits(budget: list[BudgetInterval]) -> list[tuple[float, float, float]]:
    return [
        (
            (item.interval.start_at - T0) / HOUR,
            (item.interval.end_at - T0) / HOUR,
            item.limit_w,
        )
        for item in budget
    ]


def test_each_plan_holds_until_the_next_was_made() -> None:
    old = _plan(1, T0, T0, [5.0, 6.0, 7.0])
    new = _plan(2, T0 + 1.5 * HOUR, T0 + HOUR, [1.0, 2.0, 3.0])
    window = Interval(T0 + 0.5 * HOUR, T0 + 3.5 * HOUR)
    assert _limits(in_force([old, new], window)) == [
        (0.5, 1.0, 5.0),
        (1.0, 1.5, 6.0),
        (1.5, 2.0, 1.0),
        (2.0, 3.0, 2.0),
        (3.0, 3.5, 3.0),
    ]


def test_a_slot_that_the_next_plan_leaves_as_it_was_stays_whole() -> None:
    old = _plan(1, T0, T0, [5.0, 6.0])
    new = _plan(2, T0 + 0.5 * HOUR, T0, [5.0, 8.0])
    window = Interval(T0, T0 + 2 * HOUR)
    assert _limits(in_force([old, new], window)) == [(0.0, 1.0, 5.0), (1.0, 2.0, 8.0)]


def test_a_plan_is_not_shown_before_it_was_made() -> None:
    plan = _plan(1, T0 + 0.25 * HOUR, T0, [5.0])
    assert _limits(in_force([plan], Interval(T0 - HOUR, T0 + HOUR))) == [(0.25, 1.0, 5.0)]


def test_no_plan_gives_nothing() -> None:
    assert in_force([], Interval(T0, T0 + HOUR)) == []
