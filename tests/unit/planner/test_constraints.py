from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pals_grid.core.budget import (
    BatchWork,
    Constraint,
    Reason,
)
from pals_grid.core.fleet import Fleet
from pals_grid.core.intervals import Interval
from pals_grid.core.site import ServiceTier
from pals_grid.planner.linear import plan_power_budget
from tests.unit.planner.cases import HALF_HOUR, NOW, POLICY, TIERS, only, powers_w, request_of
from tests.unit.planner.enumeration import CURVE


def test_tiers_lose_what_they_may_from_the_least_worth_up() -> None:
    policy = replace(POLICY, tiers=TIERS)
    # 1000 W serve 500 of 550 tokens/s; bronze may lose 55.
    budget = plan_power_budget(request_of([100.0], [550.0], policy, event_w=1000.0))
    item = only(budget)
    assert item.planned_tokens_per_s == pytest.approx(500.0)
    assert item.shortfall_tokens_per_s == pytest.approx(50.0)
    assert item.reason is Reason.EVENT
    assert budget.findings == ()


def test_a_broken_floor_is_named_with_its_measure_and_the_last_tier_breaks_first() -> None:
    policy = replace(POLICY, tiers=TIERS)
    budget = plan_power_budget(request_of([100.0], [550.0], policy, event_w=800.0))
    # 250 of 550 are served. Silver and bronze may lose 16.5 and 55; of the other 228.5 bronze
    # loses its 55 first, then silver its 148.5, and gold what is left.
    over = {item.name: item.amount / 1800 for item in budget.findings}
    assert over == pytest.approx({"bronze": 55.0, "silver": 148.5, "gold": 25.0})
    assert {item.constraint for item in budget.findings} == {Constraint.TIER_FLOOR}
    gold = next(item for item in budget.findings if item.name == "gold")
    assert gold.explanation.startswith("Tier 'gold' may lose 0 % and loses 9.09 %")
    assert "event 'DFS' limits the site to 0.80 kW" in gold.explanation


def test_tokens_worth_less_than_their_power_are_shed_and_the_limit_holds_them_out() -> None:
    policy = replace(POLICY, tiers=(*TIERS[:2], replace(TIERS[2], value_per_mtoken=0.01)))
    # Bronze's marginal token at 400 tokens/s takes 0.8 J: 0.022 per million at 100 per MWh.
    item = only(plan_power_budget(request_of([100.0], [400.0], policy)))
    assert item.reason is Reason.SHED
    assert item.shortfall_tokens_per_s == pytest.approx(40.0)
    assert item.limit_w == pytest.approx(CURVE.power_w_at(360.0))
    assert "a token costs more than it is worth" in item.explanation
    cheap = only(plan_power_budget(request_of([20.0], [400.0], policy)))
    assert cheap.shortfall_tokens_per_s == 0


def test_a_tier_waits_no_longer_than_its_own_deferral() -> None:
    tiers = (
        ServiceTier("now", 0.6),
        ServiceTier("soon", 0.2, deferral_s=3600.0),
        ServiceTier("late", 0.2, deferral_s=7200.0),
    )
    policy = replace(POLICY, tiers=tiers)
    budget = plan_power_budget(request_of([90.0, 50.0, 40.0, 10.0], [500.0, 0, 0, 0], policy))
    assert [item.planned_tokens_per_s for item in budget.intervals] == pytest.approx(
        [300.0, 100.0, 0.0, 100.0]
    )


def test_batch_work_is_done_by_its_deadline_or_said_to_be_late() -> None:
    request = request_of([90.0, 50.0, 10.0, 5.0], [100.0] * 4)
    job = BatchWork("index", 100.0 * 1800, NOW + HALF_HOUR * 3, NOW + HALF_HOUR)
    budget = plan_power_budget(replace(request, batch_work=(job,)))
    assert [i.planned_tokens_per_s for i in budget.intervals] == pytest.approx([100, 100, 200, 100])
    huge = replace(job, tokens=2000.0 * 1800)
    late = plan_power_budget(replace(request, batch_work=(huge,)))
    (finding,) = late.findings
    assert (finding.constraint, finding.name) == (Constraint.DEADLINE, "index")
    assert finding.amount == pytest.approx(200.0 * 1800, rel=1e-6)
    # The two slots of its window are full; the others keep to their own.
    assert [i.planned_tokens_per_s for i in late.intervals] == pytest.approx([100, 1000, 1000, 100])


def test_batch_work_that_is_worth_less_than_it_costs_is_left() -> None:
    request = request_of([100.0], [100.0])
    job = BatchWork("crawl", 1e5, NOW + HALF_HOUR, value_per_mtoken=0.001)
    budget = plan_power_budget(replace(request, batch_work=(job,)))
    assert only(budget).planned_tokens_per_s == pytest.approx(100.0)
    assert budget.findings == ()
    dear = replace(job, value_per_mtoken=1.0)
    served = plan_power_budget(replace(request, batch_work=(dear,)))
    assert only(served).planned_tokens_per_s == pytest.approx(100.0 + 1e5 / 1800)


def test_batch_work_due_after_the_horizon_takes_only_cheap_hours() -> None:
    request = request_of([90.0, 10.0, 110.0], [100.0] * 3)
    job = BatchWork("index", 1e5, NOW + timedelta(days=3))
    budget = plan_power_budget(replace(request, batch_work=(job,)))
    planned = [item.planned_tokens_per_s for item in budget.intervals]
    assert planned == pytest.approx([100.0, 100.0 + 1e5 / 1800, 100.0])


def test_the_maximum_is_never_exceeded_and_says_so() -> None:
    policy = replace(POLICY, maximum_w=1000.0)
    budget = plan_power_budget(request_of([50.0], [600.0], policy))
    item = only(budget)
    assert (item.limit_w, item.reason) == (1000.0, Reason.MAXIMUM)
    assert item.explanation.startswith("The site's maximum limits the site to 1.00 kW.")
    assert budget.findings[0].constraint is Constraint.TIER_FLOOR
    assert budget.findings[0].amount == pytest.approx(100.0 * 1800)


def test_an_event_below_the_fleets_floor_is_kept_and_reported() -> None:
    policy = replace(POLICY, minimum_w=700.0)
    budget = plan_power_budget(request_of([50.0], [600.0], policy, event_w=400.0))
    item = only(budget)
    assert (item.limit_w, item.planned_tokens_per_s) == (400.0, 0.0)
    found = {finding.constraint: finding for finding in budget.findings}
    assert found[Constraint.EVENT].amount == pytest.approx(200.0)
    assert found[Constraint.MINIMUM].amount == pytest.approx(300.0)
    assert found[Constraint.TIER_FLOOR].amount == pytest.approx(600.0 * 1800)
    assert "no tokens are planned" in found[Constraint.EVENT].explanation


def test_thermal_limits_hold_fleet_by_fleet() -> None:
    request = request_of([50.0] * 2, [1500.0] * 2, replace(POLICY, grid_connection_w=9000.0))
    hot = Fleet("hot", CURVE, thermal_limits=((Interval(NOW, NOW + HALF_HOUR), 1000.0),))
    budget = plan_power_budget(replace(request, fleets=(Fleet("cool", CURVE), hot)))
    assert powers_w(budget)[0] == pytest.approx(2400.0 + 1000.0)
    assert budget.intervals[1].planned_tokens_per_s == pytest.approx(1500.0)
    off = replace(hot, thermal_limits=((Interval(NOW, NOW + HALF_HOUR), 500.0),))
    dark = plan_power_budget(replace(request, fleets=(Fleet("cool", CURVE), off)))
    fleet = next(item for item in dark.findings if item.constraint is Constraint.FLEET)
    assert fleet.name == "hot"
    assert fleet.amount == pytest.approx(100.0)
    assert dark.intervals[0].planned_tokens_per_s == pytest.approx(1000.0)


def test_a_fleets_minimum_is_drawn_and_its_tokens_are_free() -> None:
    request = request_of([50.0], [100.0])
    fleets = (Fleet("a", CURVE, minimum_w=800.0),)
    item = only(plan_power_budget(replace(request, fleets=fleets)))
    assert item.expected_power_w == pytest.approx(800.0)


def test_reserved_power_is_not_spent() -> None:
    request = request_of([50.0], [800.0])
    (slot,) = request.slots
    budget = plan_power_budget(replace(request, slots=(replace(slot, reserved_w=1400.0),)))
    item = only(budget)
    assert item.planned_tokens_per_s == pytest.approx(500.0)
    assert item.limit_w == 2400.0


def test_waiting_work_leaves_the_upper_forecasts_room_free_unless_it_would_be_late() -> None:
    policy = replace(POLICY, deferrable_ratio=0.2, deferral_s=5400.0)
    request = request_of([90.0, 10.0, 40.0], [800.0, 800.0, 800.0], policy)
    wanted = tuple(replace(slot, demand_high_tokens_per_s=1000.0) for slot in request.slots)
    budget = plan_power_budget(replace(request, slots=wanted))
    # 640 tokens/s cannot wait and may be 160 more: 200 are left to 160 of each slot.
    assert [i.planned_tokens_per_s for i in budget.intervals] == pytest.approx([720, 840, 840])
    assert budget.findings == ()
    tight = tuple(replace(slot, demand_high_tokens_per_s=1100.0) for slot in request.slots)
    used = plan_power_budget(replace(request, slots=tight))
    assert {finding.constraint for finding in used.findings} == {Constraint.RESERVE}
    assert (
        "upper forecast"
        in only(
            plan_power_budget(
                replace(
                    request_of([50.0], [300.0]),
                    slots=(
                        replace(
                            request_of([50.0], [300.0]).slots[0], demand_high_tokens_per_s=400.0
                        ),
                    ),
                )
            )
        ).explanation
    )


def test_no_fleet_serves_nothing() -> None:
    item = only(plan_power_budget(replace(request_of([50.0], [100.0]), fleets=())))
    assert item.planned_tokens_per_s == 0.0
    assert item.shortfall_tokens_per_s == pytest.approx(100.0)
