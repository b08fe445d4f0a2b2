from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.budget import Constraint, PeakCharge, PlanRequest, PlanSlot
from pals_grid.core.fleet import Fleet, PowerCurve
from pals_grid.core.intervals import Interval, slots
from pals_grid.core.site import ServiceTier, SitePolicy
from pals_grid.planner.decode import solve
from pals_grid.planner.explain import NOTABLE_RATIO
from pals_grid.planner.findings import findings_of
from pals_grid.planner.linear import plan_power_budget
from pals_grid.planner.problem import problem_of
from tests.unit.planner.full_programme import least_cost

if TYPE_CHECKING:
    from pals_grid.planner.problem import Problem

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
STEP = timedelta(minutes=30)
CAP_RATIO = 5e-4
WITHIN = 1e-3
"""Chords (2e-4 of the fleets' range) and the price of waiting (1e-4 an hour) stay inside this."""

EASED = 0.99
"""What is only just possible may seem not to be: chords lie above the curves."""


def cost_of(problem: Problem) -> float:
    """What a plan really costs, on the exact curves."""
    outcome = solve(problem, 10.0)
    power_w = problem.reserved_w + np.array(
        [
            supply.curve.power_w_at(float(rate))
            for supply, rate in zip(problem.supplies, outcome.planned, strict=True)
        ]
    )
    total = float((problem.cost_per_j * power_w * problem.duration_s).sum())
    values = np.array([tier.value_per_token for tier in problem.work.tiers])
    total += float((outcome.lost * values * problem.duration_s[:, None]).sum())
    for c, queue in enumerate(problem.work.queues):
        total += queue.value_per_token * float(outcome.late[:, c] @ problem.duration_s)
    for peak in problem.peaks:
        means = [power_w[list(window.slots)] @ window.shares for window in peak.windows]
        over_w = max(0.0, max(means) - peak.charge.reached_w)
        total += peak.charge.price_per_kw / 1000 * over_w
    return total


@st.composite
def curves(draw: st.DrawFn) -> PowerCurve:
    floor_w = draw(st.floats(200, 900))
    bend = draw(st.floats(0.0, 2.0))
    segments = draw(st.integers(1, 30))
    points = [
        (1000 * k / segments, floor_w + 1000 * (k / segments) + 1000 * bend * (k / segments) ** 2)
        for k in range(1, segments + 1)
    ]
    return PowerCurve.lower_hull(floor_w, points)


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    count = draw(st.integers(2, 8))
    horizon = Interval(NOW, NOW + STEP * count)
    fleets = tuple(
        Fleet(
            f"f{i}",
            curve,
            thermal_limits=((Interval(NOW, NOW + STEP), curve.max_power_w * 0.8),) if i else (),
        )
        for i, curve in enumerate(draw(st.lists(curves(), min_size=1, max_size=3)))
    )
    joint = PowerCurve.combined([fleet.curve for fleet in fleets])
    most = joint.max_tokens_per_s
    numbers: dict[str, list[float]] = {
        name: draw(st.lists(values, min_size=count, max_size=count))
        for name, values in {
            "price": st.integers(0, 300),
            "carbon": st.integers(0, 600),
            "demand": st.integers(0, int(0.9 * most)),
            "reserved": st.sampled_from([0.0, 100.0]),
        }.items()
    }
    tiers = (
        ServiceTier("gold", 0.3, value_per_mtoken=2.0),
        ServiceTier("silver", 0.2, 0.1, draw(st.floats(0.05, 1.0))),
        ServiceTier("bronze", 0.2, 0.5, draw(st.floats(0.01, 0.2))),
        ServiceTier("soon", 0.1, deferral_s=3600.0),
        ServiceTier("later", 0.2, 0.25, draw(st.floats(0.01, 0.2)), deferral_s=9000.0),
    )
    policy = SitePolicy(
        slug="s",
        name="S",
        grid_connection_w=joint.floor_w + draw(st.floats(0.5, 1.2)) * joint.max_power_w,
        minimum_w=0.0,
        safe_limit_w=0.0,
        tiers=tiers,
        carbon_cap_kg_per_day=draw(st.sampled_from([None, 1.0, 3.0, 10.0])),
    )
    charge = PeakCharge(
        "month", draw(st.floats(0.01, 2.0)), (horizon,), joint.floor_w, STEP.total_seconds()
    )
    return PlanRequest(
        policy=policy,
        fleets=fleets,
        slots=tuple(
            PlanSlot(interval, price, carbon, demand, reserved)
            for interval, price, carbon, demand, reserved in zip(
                slots(NOW, horizon.end_at, STEP), *numbers.values(), strict=True
            )
        ),
        events=(),
        planned_at=NOW,
        peak_charges=draw(st.sampled_from([(), (charge,)])),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(request=requests())
def test_the_plan_costs_within_a_thousandth_of_the_full_programme(request: PlanRequest) -> None:
    problem = problem_of(request)
    limits_w = [cap.limit_w for cap in problem.caps]
    best = least_cost(request, limits_w)
    if best is None:
        # A carbon cap that can be kept but for a thousandth counts as kept.
        kept = least_cost(_with_cap(request, 1 + NOTABLE_RATIO), limits_w) is not None
        assert kept or findings_of(problem, solve(problem, 10.0))
        return
    gross = best + 1e-6
    assert best - WITHIN * gross <= cost_of(problem)
    # Chords lie above the curve: where the cap binds hard they cost what a tighter one would.
    tighter = least_cost(_with_cap(request, 1 - CAP_RATIO), limits_w)
    if tighter is not None:
        assert cost_of(problem) <= tighter + WITHIN * gross


def _with_cap(request: PlanRequest, ratio: float) -> PlanRequest:
    cap_kg = request.policy.carbon_cap_kg_per_day
    if cap_kg is None:
        return request
    return replace(request, policy=replace(request.policy, carbon_cap_kg_per_day=cap_kg * ratio))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(request=requests())
def test_a_plan_relaxes_nothing_where_everything_can_be_kept(request: PlanRequest) -> None:
    problem = problem_of(request)
    if least_cost(request, [cap.limit_w for cap in problem.caps]) is None:
        return
    wanted = tuple(
        replace(slot, demand_tokens_per_s=EASED * slot.demand_tokens_per_s)
        for slot in request.slots
    )
    eased = problem_of(replace(request, slots=wanted))
    found = findings_of(eased, solve(eased, 10.0))
    assert {item.constraint for item in found} <= {Constraint.THERMAL}  # heat is told, not relaxed


@settings(max_examples=40, deadline=None, derandomize=True)
@given(request=requests(), ramp_w_per_min=st.sampled_from([5.0, 15.0, 60.0]))
def test_steps_of_power_keep_the_ramp_or_are_said(
    request: PlanRequest, ramp_w_per_min: float
) -> None:
    policy = replace(request.policy, ramp_w_per_min=ramp_w_per_min)
    budget = plan_power_budget(replace(request, policy=policy))
    steps_w = [abs(b.expected_power_w - a.expected_power_w) for a, b in pairwise(budget.intervals)]
    over_w = max(steps_w) - ramp_w_per_min * 30
    said_w = max(
        (item.amount for item in budget.findings if item.constraint is Constraint.RAMP),
        default=0.0,
    )
    # Each end of a step may lie below its chord, and a thousandth is left to wasted power.
    gap_w = max(supply.gap_w for supply in problem_of(request).supplies)
    chords_w = 4 * gap_w + 1e-3 * request.policy.grid_connection_w
    assert over_w <= said_w + chords_w
    assert said_w <= max(0.0, over_w) + chords_w


def test_fifty_fleets_are_planned_like_the_full_programme() -> None:
    fleets = tuple(
        Fleet(
            f"f{n}",
            PowerCurve.lower_hull(
                500.0 + 7 * n,
                [
                    (50.0 * k, 500 + 7 * n + (20 + n % 7) * k + (1 + n % 5) * k * k)
                    for k in range(1, 21)
                ],
            ),
        )
        for n in range(50)
    )
    joint = PowerCurve.combined([fleet.curve for fleet in fleets])
    policy = SitePolicy(
        slug="s",
        name="S",
        grid_connection_w=joint.max_power_w * 0.8,
        minimum_w=0.0,
        safe_limit_w=0.0,
        deferrable_ratio=0.3,
    )
    wanted = tuple(
        PlanSlot(
            interval, 40.0 + 37 * k % 90, 200.0, joint.max_tokens_per_s * (0.4 + 0.03 * (k % 7))
        )
        for k, interval in enumerate(slots(NOW, NOW + STEP * 12, STEP))
    )
    request = PlanRequest(policy, fleets, wanted, (), NOW)
    problem = problem_of(request)
    best = least_cost(request, [policy.grid_connection_w] * 12)
    assert best is not None
    assert cost_of(problem) == pytest.approx(best, rel=WITHIN)
