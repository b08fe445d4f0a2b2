from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.budget import BatchWork, Constraint, PeakCharge, PlanRequest, PlanSlot
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Fleet, Origin, PowerCurve
from pals_grid.core.intervals import Interval, slots
from pals_grid.core.site import ServiceTier, SitePolicy
from pals_grid.planner.linear import plan_power_budget

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
TIERS = (
    ServiceTier("a", 0.4, value_per_mtoken=5.0),
    ServiceTier("b", 0.2, 0.1, 0.5),
    ServiceTier("c", 0.2, deferral_s=7200.0),
    ServiceTier("d", 0.2, 0.5, 0.05, deferral_s=30_000.0),
)


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    """Everything at once, from a watt to a hundred megawatts."""
    scale = 10.0 ** draw(st.integers(-1, 5))
    curve = PowerCurve.lower_hull(
        500 * scale,
        [(100.0 * scale * k, scale * (500 + 80 * k + 10 * k * k)) for k in range(1, 11)],
    )
    step = timedelta(minutes=draw(st.sampled_from([5, 15, 60])))
    count = draw(st.integers(1, 20))
    horizon = Interval(NOW, NOW + step * count)
    fleets = tuple(
        Fleet(f"f{i}", curve, thermal_limits=((Interval(NOW, NOW + step), limit_w),))
        for i, limit_w in enumerate(
            draw(st.lists(st.sampled_from([100 * scale, 1500 * scale]), max_size=3))
        )
    )
    connection_w = max(10.0, 2300 * scale * draw(st.floats(0.2, 3.0)))
    share = st.floats(0, 1)
    policy = SitePolicy(
        slug="s",
        name="S",
        grid_connection_w=connection_w,
        minimum_w=connection_w * draw(st.sampled_from([0.0, 0.3])),
        safe_limit_w=0.0,
        tiers=draw(st.sampled_from([(), TIERS])),
        carbon_price_per_tonne=draw(st.sampled_from([0.0, 80.0])),
        ramp_w_per_min=draw(st.sampled_from([None, max(1.0, connection_w / 300)])),
        carbon_cap_kg_per_day=draw(st.sampled_from([None, connection_w / 500])),
    )
    wanted = tuple(
        PlanSlot(
            interval,
            draw(st.one_of(st.none(), st.integers(-500, 3000))),
            draw(st.sampled_from([None, 0.0, 300.0])),
            demand := 1200 * scale * draw(share),
            connection_w * draw(st.sampled_from([0.0, 0.2])),
            demand_high_tokens_per_s=draw(st.sampled_from([None, 1.3 * demand])),
        )
        for interval in slots(NOW, horizon.end_at, step)
    )
    start_at = NOW + timedelta(minutes=draw(st.integers(-60, 300)))
    order = EventRequest(
        "e",
        start_at,
        start_at + timedelta(minutes=50),
        limit_w=connection_w * draw(share),
        ramp_s=600,
    )
    event = DemandResponseEvent(
        1, 1, 1, EventStatus.SCHEDULED, order, connection_w, Origin.MODELLED, NOW
    )
    return PlanRequest(
        policy=policy,
        fleets=fleets,
        slots=wanted,
        events=draw(st.sampled_from([(), (event,)])),
        planned_at=NOW,
        backlog_tokens=scale * draw(st.sampled_from([0.0, 1e6])),
        batch_work=draw(
            st.sampled_from([(), (BatchWork("b", 1e6 * scale, NOW + timedelta(hours=4)),)])
        ),
        peak_charges=draw(
            st.sampled_from([(), (PeakCharge("p", 12.0, (horizon,), connection_w / 3),)])
        ),
        power_before_w=draw(st.sampled_from([None, connection_w / 2])),
    )


@settings(max_examples=150, deadline=None)
@given(request=requests())
def test_every_request_has_a_plan_that_keeps_its_caps_and_counts_its_tokens(
    request: PlanRequest,
) -> None:
    budget = plan_power_budget(request)
    assert all(item.constraint is not Constraint.SOLVER for item in budget.findings)
    assert all(a.interval.end_at == b.interval.start_at for a, b in pairwise(budget.intervals))
    for item in budget.intervals:
        caps_w = [
            limit_w
            for event in request.events
            for stair, limit_w in event.limits(request.policy.grid_connection_w)
            if stair.overlap_s(item.interval) > 0
        ]
        assert item.limit_w <= min([request.policy.limit_w, *caps_w])
        assert item.expected_power_w <= item.limit_w * (1 + 1e-9)
        assert item.planned_tokens_per_s >= 0
        assert item.shadow_price_per_kw_h >= 0
        assert math.isfinite(item.shadow_price_per_kw_h)
    wanted = sum(s.demand_tokens_per_s * s.interval.duration_s for s in request.slots)
    wanted += request.backlog_tokens + sum(item.tokens for item in request.batch_work)
    told = sum(
        (item.planned_tokens_per_s + item.shortfall_tokens_per_s) * item.interval.duration_s
        for item in budget.intervals
    )
    horizon_at = request.slots[-1].interval.end_at
    if all(item.deadline_at <= horizon_at for item in request.batch_work):
        assert told == pytest.approx(wanted, rel=1e-4, abs=1e-3)
