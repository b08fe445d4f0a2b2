from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.budget import (
    Constraint,
    PeakCharge,
    PlanRequest,
    PlanSlot,
    Reason,
)
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Fleet, Origin
from pals_grid.core.intervals import Interval, slots
from pals_grid.core.site import ServiceTier
from pals_grid.planner.decode import solve
from pals_grid.planner.linear import plan_power_budget
from pals_grid.planner.problem import problem_of
from tests.unit.planner.cases import (
    HALF_HOUR,
    NOW,
    POLICY,
    TIERS,
    cost_of,
    only,
    powers_w,
    request_of,
)
from tests.unit.planner.enumeration import CURVE, cheapest_by_enumeration

if TYPE_CHECKING:
    from pals_grid.core.budget import PowerBudget


def test_a_peak_charge_flattens_what_may_wait_and_counts_what_was_reached() -> None:
    policy = replace(POLICY, deferrable_ratio=0.5)
    request = request_of([50.0] * 4, [900.0, 500.0, 500.0, 500.0], policy)
    span = Interval(NOW, NOW + HALF_HOUR * 4)
    charged = replace(request, peak_charges=(PeakCharge("month", 10.0, (span,), 1000.0),))
    flat = plan_power_budget(charged)
    assert powers_w(flat) == pytest.approx([CURVE.power_w_at(600.0)] * 4)
    first = flat.intervals[0]
    assert first.reason is Reason.PEAK
    assert "for the charge on the peak 'month'" in first.explanation
    assert first.shadow_price_per_kw_h > 0
    # Beside a peak of 1.8 kW that is paid already, smoothing below it earns nothing more.
    paid = (PeakCharge("month", 10.0, (span,), 1800.0),)
    assert max(powers_w(plan_power_budget(replace(request, peak_charges=paid)))) <= 1800.0 + 1e-6


def test_a_peak_charge_counts_only_in_its_intervals() -> None:
    policy = replace(POLICY, deferrable_ratio=0.5)
    request = request_of([50.0] * 2, [600.0, 600.0], policy)
    charge = PeakCharge("evening", 10.0, (Interval(NOW, NOW + HALF_HOUR),), 600.0)
    budget = plan_power_budget(replace(request, peak_charges=(charge,)))
    assert [item.planned_tokens_per_s for item in budget.intervals] == pytest.approx([300.0, 900.0])


def test_windows_of_a_peak_average_their_slots() -> None:
    tiers = (ServiceTier("may", 1.0, 1.0, 1e-6),)  # worth next to nothing
    policy = replace(POLICY, tiers=tiers)
    five = tuple(
        PlanSlot(interval, 1e-3, 0.0, rate)
        for interval, rate in zip(
            slots(NOW, NOW + timedelta(minutes=15), timedelta(minutes=5)),
            [800.0, 500.0, 0.0],
            strict=True,
        )
    )
    mean_w = (1600 + 1000 + 600) / 3
    span = Interval(NOW, NOW + timedelta(hours=1))
    for reached_w, lost in ((mean_w, False), (mean_w - 50, True)):
        charge = PeakCharge("month", 10.0, (span,), reached_w)
        request = PlanRequest(policy, (Fleet("f", CURVE),), five, (), NOW, peak_charges=(charge,))
        budget = plan_power_budget(request)
        assert sum(powers_w(budget)) / 3 == pytest.approx(reached_w)
        assert any(item.shortfall_tokens_per_s > 1 for item in budget.intervals) is lost


def test_windows_of_a_peak_are_on_the_site_s_clock() -> None:
    span = Interval(NOW, NOW + 4 * HALF_HOUR)
    charge = PeakCharge("month", 10.0, (span,), 0.0, 3600)

    def windows(timezone: str) -> list[tuple[int, ...]]:
        policy = replace(POLICY, timezone=timezone)
        request = replace(request_of([50.0] * 4, [600.0] * 4, policy), peak_charges=(charge,))
        (peak,) = problem_of(request).peaks
        return [window.slots for window in peak.windows]

    assert windows("Europe/Berlin") == [(0, 1), (2, 3)]
    assert windows("Asia/Kolkata") == [(0,), (1, 2), (3,)]


def test_ramps_bound_the_steps_of_power_and_of_limits() -> None:
    policy = replace(POLICY, ramp_w_per_min=10.0, tiers=(ServiceTier("all", 1.0, 0.5, 5.0),))
    budget = plan_power_budget(request_of([50.0] * 3, [100.0, 800.0, 100.0], policy))
    for values in (powers_w(budget), [item.limit_w for item in budget.intervals]):
        assert all(abs(b - a) <= 300.0 + 1e-6 for a, b in pairwise(values))
    assert budget.intervals[1].expected_power_w == pytest.approx(980.0)
    assert budget.intervals[1].reason is Reason.RAMP
    assert budget.findings == ()


def test_a_ramp_counts_from_the_power_before_and_a_forced_step_is_said() -> None:
    policy = replace(POLICY, ramp_w_per_min=10.0)
    request = replace(request_of([50.0], [600.0], policy), power_before_w=700.0)
    rising = plan_power_budget(request)
    assert powers_w(rising) == pytest.approx([850.0])
    assert only(rising).reason is Reason.RAMP
    assert "the ramp lets the power rise no faster" in rising.findings[0].explanation
    # 680 W is all that the demand needs; 850 W the least that the ramp allows.
    falling = replace(request_of([50.0], [100.0], policy), power_before_w=1000.0)
    budget = plan_power_budget(falling)
    (finding,) = budget.findings
    assert finding.constraint is Constraint.RAMP
    assert finding.amount == pytest.approx(170.0)
    assert powers_w(budget) == pytest.approx([680.0])


def test_power_comes_down_in_time_for_an_event() -> None:
    policy = replace(POLICY, ramp_w_per_min=10.0, tiers=(ServiceTier("all", 1.0, 1.0, 5.0),))
    request = request_of([50.0] * 3, [800.0] * 3, policy)
    order = EventRequest("DFS", NOW + HALF_HOUR * 2, NOW + HALF_HOUR * 3, limit_w=800.0)
    event = DemandResponseEvent(7, 1, 1, EventStatus.SCHEDULED, order, 1600.0, Origin.MODELLED, NOW)
    budget = plan_power_budget(replace(request, events=(event,)))
    assert powers_w(budget) == pytest.approx([1400.0, 1100.0, 800.0])
    assert [item.limit_w for item in budget.intervals] == pytest.approx([1400.0, 1100.0, 800.0])
    assert budget.findings == ()


def test_a_carbon_cap_moves_then_sheds_but_keeps_the_floors() -> None:
    policy = replace(POLICY, tiers=TIERS, carbon_cap_kg_per_day=0.2)
    carbon: list[float | None] = [400.0, 100.0]
    free = plan_power_budget(
        request_of(
            [50.0] * 2, [500.0] * 2, replace(policy, carbon_cap_kg_per_day=None), carbon=carbon
        )
    )
    held = plan_power_budget(request_of([50.0] * 2, [500.0] * 2, policy, carbon=carbon))
    assert powers_w(free) == pytest.approx([1000.0, 1000.0])
    # 0.25 kg without the cap. In the dirty half hour 13 % may be lost: 65 tokens/s, 52 W, 10.4 g;
    # in the clean one 2.6 g.
    assert held.intervals[0].reason is Reason.CARBON_CAP
    assert powers_w(held) == pytest.approx([948.0, 948.0])
    (finding,) = held.findings
    assert finding.constraint is Constraint.CARBON_CAP
    assert finding.amount == pytest.approx(0.250 - 0.0104 - 0.0026 - 0.2)
    spent = replace(request_of([50.0] * 2, [500.0] * 2, policy, carbon=carbon), carbon_spent_kg=0.1)
    assert plan_power_budget(spent).findings[0].amount == pytest.approx(finding.amount + 0.1)


def test_carbon_counts_by_the_local_day() -> None:
    policy = replace(
        POLICY, timezone="America/New_York", deferrable_ratio=0.5, carbon_cap_kg_per_day=0.55
    )
    # Local midnight is 05:00 UTC: two half hours of the old day, two of the new.
    demand = [600.0, 600.0, 400.0, 400.0]
    start_at = datetime(2026, 3, 3, 4, 0, tzinfo=UTC)
    wanted = tuple(
        PlanSlot(interval, price, 500.0, rate)
        for interval, price, rate in zip(
            slots(start_at, start_at + HALF_HOUR * 4, HALF_HOUR),
            [10.0, 10.0, 99.0, 99.0],
            demand,
            strict=True,
        )
    )
    budget = plan_power_budget(PlanRequest(policy, (Fleet("f", CURVE),), wanted, (), start_at))
    by_day = [sum(powers_w(budget)[i : i + 2]) * 0.5 * 500 / 1e6 for i in (0, 2)]
    assert by_day[0] == pytest.approx(0.55)
    assert by_day[1] > 0.46
    assert budget.findings == ()
    (finding,) = plan_power_budget(
        PlanRequest(policy, (Fleet("f", CURVE),), wanted, (), start_at, carbon_spent_kg=0.2)
    ).findings
    assert (finding.constraint, finding.interval.end_at) == (
        Constraint.CARBON_CAP,
        datetime(2026, 3, 3, 5, 0, tzinfo=UTC),
    )


def test_marginal_intensity_steers_in_the_policys_ratio() -> None:
    policy = replace(
        POLICY, deferrable_ratio=0.5, carbon_price_per_tonne=100.0, marginal_carbon_ratio=1.0
    )
    request = request_of([50.0] * 2, [300.0] * 2, policy, carbon=[100.0, 300.0])
    wanted = tuple(
        replace(slot, marginal_carbon_g_per_kwh=value)
        for slot, value in zip(request.slots, [700.0, 200.0], strict=True)
    )
    moved = plan_power_budget(replace(request, slots=wanted))
    assert [i.planned_tokens_per_s for i in moved.intervals] == pytest.approx([150.0, 450.0])
    average = replace(policy, marginal_carbon_ratio=0.0)
    kept = plan_power_budget(replace(request, slots=wanted, policy=average))
    assert [i.planned_tokens_per_s for i in kept.intervals] == pytest.approx([300.0, 300.0])
    blind = plan_power_budget(request)
    assert {item.reason for item in blind.intervals} == {Reason.NO_SIGNAL}


@settings(max_examples=30, deadline=None)
@given(
    prices=st.lists(st.integers(0, 300), min_size=4, max_size=4),
    demand=st.lists(st.integers(100, 700), min_size=4, max_size=4),
    slot=st.integers(0, 3),
)
def test_the_shadow_price_is_what_a_little_more_power_saves(
    prices: list[int], demand: list[int], slot: int
) -> None:
    policy = replace(
        POLICY,
        grid_connection_w=1300.0,
        tiers=(
            ServiceTier("now", 0.6, 1.0, 1.0),
            ServiceTier("later", 0.4, 1.0, 0.5, deferral_s=5400.0),
        ),
    )
    tokens = {"now": 1.0, "later": 0.5}
    request = request_of(
        [float(price) for price in prices], [float(rate) for rate in demand], policy
    )

    def worth(reserved_w: float) -> tuple[float, PowerBudget]:
        changed = tuple(
            replace(item, reserved_w=reserved_w if i == slot else 0.0)
            for i, item in enumerate(request.slots)
        )
        budget = plan_power_budget(replace(request, slots=changed))
        # What is reserved costs its energy too: taken off again.
        price = prices[slot] / 3.6e9 * 1800 * reserved_w
        return cost_of(budget) - price + _value_lost(
            replace(request, slots=changed), tokens
        ), budget

    less, budget = worth(1.0)
    none, _ = worth(0.0)
    saved_per_kwh = (less - none) / (0.001 * 0.5)
    shadow = budget.intervals[slot].shadow_price_per_kw_h
    assert shadow == pytest.approx(saved_per_kwh, rel=0.02, abs=0.002)


def _value_lost(request: PlanRequest, values: dict[str, float]) -> float:
    problem = problem_of(request)
    outcome = solve(problem, 10.0)
    lost = float(outcome.lost[:, 0] @ problem.duration_s) * values["now"]
    return (lost + float(outcome.late[:, 0] @ problem.duration_s) * values["later"]) / 1e6


def test_power_that_nothing_withholds_has_no_shadow_price() -> None:
    budget = plan_power_budget(request_of([50.0, 60.0], [300.0, 400.0]))
    assert [item.shadow_price_per_kw_h for item in budget.intervals] == [0.0, 0.0]


def test_without_an_optimum_work_is_planned_as_it_comes_inside_every_cap() -> None:
    policy = replace(POLICY, deferrable_ratio=0.5, tiers=())
    request = request_of([90.0, 10.0, 50.0], [400.0, 1500.0, 100.0], policy)
    budget = plan_power_budget(request, time_limit_s=0.0)
    (finding, *others) = budget.findings
    assert finding.constraint is Constraint.SOLVER
    assert "time limit" in finding.explanation
    assert [item.planned_tokens_per_s for item in budget.intervals] == pytest.approx(
        [400.0, 1000.0, 600.0]
    )
    assert [item.reason for item in budget.intervals] == [
        Reason.FALLBACK,
        Reason.GRID_CONNECTION,
        Reason.FALLBACK,
    ]
    assert others == []
    dark = plan_power_budget(request_of([90.0], [400.0], event_w=100.0), time_limit_s=0.0)
    assert only(dark).shortfall_tokens_per_s == pytest.approx(400.0)


def test_a_later_plan_keeps_what_an_earlier_one_decided() -> None:
    policy = replace(POLICY, deferrable_ratio=0.3, deferral_s=7200.0)
    prices: list[float | None] = [80.0, 80.0, 20.0, 20.0, 20.0, 20.0, 80.0, 20.0]
    demand = [500.0, 400.0, 450.0, 500.0, 400.0, 450.0, 500.0, 400.0]
    first = plan_power_budget(request_of(prices, demand, policy)).intervals
    served = [item.planned_tokens_per_s for item in first]
    waits = (demand[0] - served[0]) * 1800
    request = request_of(prices, demand, policy)
    later = replace(
        request, slots=request.slots[1:], planned_at=NOW + HALF_HOUR, backlog_tokens=waits
    )
    again = [item.planned_tokens_per_s for item in plan_power_budget(later).intervals]
    assert again == pytest.approx(served[1:], abs=1e-3)


def test_work_that_waits_already_is_not_put_off_anew() -> None:
    policy = replace(POLICY, deferrable_ratio=0.2, deferral_s=7200.0)
    request = request_of([80.0, 60.0, 40.0, 20.0], [500.0] * 4, policy)
    # 100 tokens/s that may wait: what waits came over the last hour and is due within the next.
    hour = replace(request, backlog_tokens=100.0 * 3600)
    planned = [item.planned_tokens_per_s for item in plan_power_budget(hour).intervals]
    assert sum(planned[:2]) >= 2 * 400.0 + 100.0 - 1e-6
    older = replace(request, backlog_tokens=100.0 * 7200)
    first = plan_power_budget(older).intervals[0]
    assert first.planned_tokens_per_s >= 400.0 + 100.0 - 1e-6
    fresh = replace(request, backlog_tokens=1.0)
    assert plan_power_budget(fresh).intervals[0].planned_tokens_per_s == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("prices", "demand"),
    [
        ([-60.0, 10.0, -60.0], [700.0, 400.0, 400.0]),
        ([-20.0, -60.0, -20.0], [300.0, 300.0, 700.0]),
        ([20.0, -5.0, 40.0], [400.0, 600.0, 300.0]),
    ],
)
def test_under_negative_prices_the_plan_is_near_the_best_of_all_ways(
    prices: list[float], demand: list[float]
) -> None:
    policy = replace(POLICY, deferrable_ratio=0.4, deferral_s=5400.0)
    budget = plan_power_budget(request_of([*prices], demand, policy))
    full_power = sum(abs(price) for price in prices) / 3.6e9 * CURVE.max_power_w * 1800
    assert cost_of(budget) <= cheapest_by_enumeration(prices, demand, 0.4) + 0.04 * full_power
