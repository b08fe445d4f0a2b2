from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.budget import Constraint, PeakCharge
from pals_grid.core.fleet import NodeCapability, PowerCurve
from pals_grid.core.intervals import Interval
from pals_grid.counterfactual import names
from pals_grid.counterfactual.course import added_charge, outcome_of, planned_course
from pals_grid.counterfactual.plant import Nodes, Plant, lone_node, node_kind
from pals_grid.counterfactual.rivals import RIVALS, Absent, Rivals
from pals_grid.planner.linear import plan_power_budget
from tests.unit.planner.cases import HALF_HOUR, NOW, POLICY, request_of

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest

CURVE = PowerCurve((0.0, 1000.0, 1500.0), (300.0, 1000.0, 2000.0))
NODE = NodeCapability(1, "n", 300.0, 2000.0, CURVE)
PLANT = Plant((lone_node(NODE, None),))
PRICES: list[float | None] = [50.0, 200.0, 200.0, 50.0, 50.0, 50.0, 50.0, 50.0]
WAITS = replace(POLICY, deferrable_ratio=0.4, deferral_s=4 * 3600.0)


def _rivals(request: PlanRequest, *, modelled: bool = False) -> Rivals:
    return Rivals(request, PLANT, modelled)


def test_a_threshold_moves_what_may_wait_out_of_dear_slots() -> None:
    request = request_of(PRICES, [800.0] * 8, WAITS)
    course = _rivals(request).course(names.PRICE_THRESHOLD)
    assert course.served[1] == pytest.approx(0.6 * 800 * 1800)
    assert course.served[3:].sum() > 5 * 800 * 1800
    assert course.served.sum() == pytest.approx(8 * 800 * 1800)
    assert course.late.sum() == 0


def test_what_waits_already_is_served_by_all() -> None:
    request = replace(request_of(PRICES, [500.0] * 8, WAITS), backlog_tokens=90_000.0)
    for name in (names.NO_CONTROL, names.AS_IT_COMES, names.PRICE_THRESHOLD):
        course = _rivals(request).course(name)
        assert course.served.sum() == pytest.approx(8 * 500 * 1800 + 90_000)


def test_the_rivals_draw_what_their_nodes_do_and_what_is_reserved() -> None:
    request = request_of([50.0] * 4, [750.0] * 4)
    slots = tuple(replace(slot, reserved_w=100.0) for slot in request.slots)
    rivals = _rivals(replace(request, slots=slots))
    assert rivals.course(names.AS_IT_COMES).power_w == pytest.approx(100 + 825)
    # Nobody knows the engine: half way from the floor to the most.
    assert rivals.course(names.NO_CONTROL).power_w == pytest.approx(100 + 1150)


def test_work_beyond_the_nodes_is_late_then_lost() -> None:
    request = request_of([50.0, 50.0, 50.0], [2000.0, 1000.0, 1700.0])
    course = _rivals(request).course(names.AS_IT_COMES)
    assert course.served == pytest.approx(np.array([1500.0, 1500.0, 1500.0]) * 1800)
    assert course.late == pytest.approx(np.array([500.0, 0.0, 200.0]) * 1800)
    assert course.lost == pytest.approx(np.array([0.0, 0.0, 200.0]) * 1800)


def test_caps_that_a_rival_breaks_are_findings() -> None:
    request = request_of([50.0] * 4, [300.0, 900.0, 900.0, 300.0], event_w=600.0)
    (finding,) = _rivals(request).course(names.AS_IT_COMES).findings
    assert finding.constraint is Constraint.EVENT
    assert finding.interval == Interval(NOW + HALF_HOUR, NOW + 3 * HALF_HOUR)
    assert finding.amount == pytest.approx(930 - 600)


def test_breaches_that_are_apart_are_told_apart() -> None:
    request = request_of([50.0] * 3, [900.0, 300.0, 900.0], event_w=600.0)
    findings = _rivals(request).course(names.AS_IT_COMES).findings
    assert [item.interval.duration_s for item in findings] == [1800, 1800]


def test_what_needs_a_model_or_a_signal_says_so() -> None:
    rivals = _rivals(request_of([None] * 3, [100.0] * 3, carbon=[None] * 3))
    for name, words in (
        (names.STATIC, "no model"),
        (names.PRICE_THRESHOLD, "no price"),
        (names.CARBON_THRESHOLD, "no carbon intensity"),
    ):
        with pytest.raises(Absent, match=words):
            rivals.course(name)


@pytest.fixture(scope="module")
def modelled() -> Plant:
    nodes = Nodes(
        gpu_model="NVIDIA A100-SXM4-80GB",
        model="deepseek-ai/deepseek-moe-16b-base",
        gpu_count=4,
        count=1,
    )
    kind = node_kind(nodes, POLICY.slo)
    node = NodeCapability(1, "n", kind.power_min_w, kind.power_max_w, kind.curve)
    return Plant((lone_node(node, kind),))


def test_a_node_of_the_plant_s_own_kind_has_the_plant_s_lines(modelled: Plant) -> None:
    (kind,) = modelled.kinds
    assert [line.power_limit_w for line in kind.lines][-1] == 400
    assert kind.lines[-1].power_w[-1] == pytest.approx(kind.curve.max_power_w, rel=0.02)


def test_the_lowest_limit_that_serves_the_peak_is_the_static_one(modelled: Plant) -> None:
    most = [line.max_tokens_per_s for line in modelled.static_lines]
    peak = (most[3] + most[4]) / 2
    rivals = Rivals(request_of([50.0] * 4, [peak / 2, peak, peak, 0.0]), modelled, modelled=True)
    course = rivals.course(names.STATIC)
    assert course.settings == f"{modelled.static_lines[4].limits_w[0]:g} W"
    assert course.late.sum() == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(-50, 300)), st.floats(0, 1400)),
        min_size=2,
        max_size=12,
    ),
    st.floats(0, 1),
    st.floats(0, 1e6),
)
def test_no_rival_loses_a_token_without_saying_so(
    slots: list[tuple[float | None, float]], waits_ratio: float, backlog: float
) -> None:
    policy = replace(POLICY, deferrable_ratio=waits_ratio, deferral_s=7200.0)
    prices, demand = [price for price, _ in slots], [rate for _, rate in slots]
    request = replace(request_of(prices, demand, policy), backlog_tokens=backlog)
    whole = Interval(request.slots[0].interval.start_at, request.slots[-1].interval.end_at)
    for name in RIVALS:
        try:
            course = _rivals(request).course(name)
        except Absent:
            continue
        sums = outcome_of(course, request, whole)
        came = sum(demand) * 1800 + backlog
        assert sums.tokens_served + sums.tokens_lost == pytest.approx(came, abs=1e-2)


def test_parts_of_slots_count_by_their_part() -> None:
    request = request_of([100.0, 300.0], [500.0, 500.0])
    course = planned_course("plan", request, plan_power_budget(request))
    whole = Interval(NOW, NOW + 2 * HALF_HOUR)
    half = Interval(NOW + HALF_HOUR / 2, NOW + 1.5 * HALF_HOUR)
    every, part = (outcome_of(course, request, during) for during in (whole, half))
    assert part.energy_kwh == pytest.approx(every.energy_kwh / 2)
    assert part.tokens_served == pytest.approx(every.tokens_served / 2)
    power_kw = request.fleets[0].curve.power_w_at(500.0) / 1000
    assert every.cost == pytest.approx(power_kw * 0.5 * (0.1 + 0.3))
    assert every.carbon_kg == pytest.approx(power_kw * 0.2)


def test_a_plan_is_told_slot_by_slot_where_an_event_cuts_them() -> None:
    request = request_of([50.0] * 4, [500.0] * 4, event_w=600.0)
    (event,) = request.events
    order = replace(event.order, start_at=NOW + timedelta(minutes=40), ramp_s=600.0)
    request = replace(request, events=(replace(event, order=order),))
    course = planned_course("plan", request, plan_power_budget(request))
    assert len(course.slots) > 4
    assert course.limit_w is not None
    assert len(course.limit_w) == len(course.slots)
    assert sum(slot.interval.duration_s for slot in course.slots) == 4 * 1800


def test_peaks_cost_what_they_add_to_what_is_billed() -> None:
    intervals = [Interval(NOW + HALF_HOUR * i, NOW + HALF_HOUR * (i + 1)) for i in range(4)]
    whole = Interval(NOW, NOW + 4 * HALF_HOUR)
    power_w = np.array([1000.0, 3000.0, 2000.0, 500.0])
    charge = PeakCharge("c", 10.0, (whole,), 1500.0, 3600.0)
    assert added_charge([charge], intervals, power_w, whole, UTC) == pytest.approx(10 * 0.5)
    later = Interval(NOW + 2 * HALF_HOUR, NOW + 4 * HALF_HOUR)
    assert added_charge([charge], intervals, power_w, later, UTC) == 0
    free = [replace(charge, reached_w=0.0)]
    assert added_charge(free, intervals, power_w, later, UTC) == 12.5
    # On a clock that is half an hour off the windows are of 1.0, 2.5 and 0.5 kW.
    assert added_charge(free, intervals, power_w, whole, ZoneInfo("Asia/Kolkata")) == 25.0


def test_what_floors_miss_is_counted_for_the_stretch_alone() -> None:
    request = request_of([50.0] * 4, [3000.0] * 4, POLICY)
    course = planned_course("p", request, plan_power_budget(request))
    (finding,) = (one for one in course.findings if one.constraint is Constraint.TIER_FLOOR)
    half = Interval(NOW, NOW + 2 * HALF_HOUR)
    assert finding.interval == Interval(NOW, NOW + 4 * HALF_HOUR)
    missed = outcome_of(course, request, half).floor_misses_tokens
    assert missed == pytest.approx(finding.amount / 2)
    assert missed == pytest.approx(course.lost[:2].sum())
