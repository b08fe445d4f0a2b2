from __future__ import annotations

import math
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.allocator.envelopes import allocate_envelopes
from pals_grid.core.budget import BudgetInterval, Reason
from pals_grid.core.fleet import NodeCapability, PowerCurve
from pals_grid.core.intervals import Interval

WHEN = Interval(datetime(2026, 3, 2, 10, tzinfo=UTC), datetime(2026, 3, 2, 11, tzinfo=UTC))
THRIFTY = PowerCurve((0.0, 100.0, 200.0), (300.0, 400.0, 700.0))
GREEDY = PowerCurve((0.0, 100.0, 200.0), (300.0, 500.0, 900.0))


def budget(limit_w: float, planned_tokens_per_s: float = 0.0) -> BudgetInterval:
    return BudgetInterval(
        interval=WHEN,
        limit_w=limit_w,
        reason=Reason.EVENT,
        explanation="test",
        price_per_mwh=None,
        carbon_g_per_kwh=None,
        demand_tokens_per_s=planned_tokens_per_s,
        planned_tokens_per_s=planned_tokens_per_s,
        expected_power_w=0.0,
        event_id=3,
    )


def node(node_id: int, curve: PowerCurve, *, online: bool = True) -> NodeCapability:
    return NodeCapability(node_id, f"n{node_id}", 350.0, 1000.0, curve, online)


def test_the_cheaper_watt_is_granted_first() -> None:
    first, second = allocate_envelopes(budget(900.0, 250.0), [node(1, THRIFTY), node(2, GREEDY)])
    # Minimums 700; then 50 W at 1 W per token/s, then 150 W of the other at 2 W per token/s.
    assert first.power_max_w == pytest.approx(400.0)
    assert second.power_max_w == pytest.approx(500.0)
    assert (first.target_tokens_per_s, second.target_tokens_per_s) == pytest.approx((100, 100))
    assert (first.reason, first.event_id, first.interval) == (Reason.EVENT, 3, WHEN)


def test_like_nodes_get_like_envelopes() -> None:
    grants = allocate_envelopes(budget(1234.5, 120.0), [node(k, GREEDY) for k in range(3)])
    assert {round(grant.power_max_w, 6) for grant in grants} == {411.5}
    assert {round(grant.target_tokens_per_s, 6) for grant in grants} == {40.0}


def test_an_offline_node_keeps_its_minimum_and_gets_no_work() -> None:
    away, here = allocate_envelopes(
        budget(1500.0, 50.0), [node(1, THRIFTY, online=False), node(2, THRIFTY)]
    )
    assert (away.power_max_w, away.target_tokens_per_s) == (350.0, 0.0)
    assert (here.power_max_w, here.target_tokens_per_s) == pytest.approx((1000.0, 50.0))


def test_minimums_that_do_not_fit_are_scaled_down_alike() -> None:
    grants = allocate_envelopes(budget(350.0), [node(1, THRIFTY), node(2, GREEDY)])
    assert [grant.power_max_w for grant in grants] == pytest.approx([175.0, 175.0])
    assert all(grant.power_min_w == grant.power_max_w for grant in grants)


def test_no_node_is_no_envelope() -> None:
    assert allocate_envelopes(budget(350.0), []) == ()


@st.composite
def curves(draw: st.DrawFn) -> PowerCurve:
    points = draw(
        st.lists(st.tuples(st.floats(1, 1e4), st.floats(50, 1e4)), min_size=0, max_size=6)
    )
    return PowerCurve.lower_hull(draw(st.floats(0, 500)), points)


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeCapability]:
    return [
        NodeCapability(
            node_id,
            str(node_id),
            power_min_w=(low := draw(st.floats(0, 800))),
            power_max_w=low + draw(st.floats(0, 9000)),
            curve=draw(curves()),
            online=draw(st.booleans()),
        )
        for node_id in range(draw(st.integers(1, 7)))
    ]


@settings(max_examples=300, deadline=None)
@given(limit_w=st.floats(0, 5e4), tokens=st.floats(0, 5e4), nodes=fleets())
def test_the_sum_never_exceeds_the_limit_and_minimums_are_granted_while_they_fit(
    limit_w: float, tokens: float, nodes: list[NodeCapability]
) -> None:
    grants = allocate_envelopes(budget(limit_w, tokens), nodes)
    for order in (grants, grants[::-1]):
        assert sum(grant.power_max_w for grant in order) <= limit_w
    assert math.fsum(grant.power_max_w for grant in grants) <= limit_w
    assert all(0 <= grant.power_min_w <= grant.power_max_w for grant in grants)
    if math.fsum(node.power_min_w for node in nodes) <= limit_w * (1 - 1e-9):
        for grant, one in zip(grants, nodes, strict=True):
            assert grant.power_max_w >= one.power_min_w - 1e-6
            assert grant.power_max_w <= max(one.power_max_w, one.curve.floor_w) + 1e-6
    assert sum(grant.target_tokens_per_s for grant in grants) <= tokens + 1e-6
    for grant, one in zip(grants, nodes, strict=True):
        assert grant.target_tokens_per_s <= one.curve.tokens_per_s_at(grant.power_max_w) + 1e-6


def test_what_an_unreachable_node_may_draw_is_not_given_to_others() -> None:
    away, here, there = allocate_envelopes(
        budget(2000.0, 50.0),
        [node(1, THRIFTY, online=False), node(2, THRIFTY), node(3, THRIFTY)],
        {1: 900.0},
    )
    assert (away.power_max_w, away.target_tokens_per_s) == pytest.approx((900.0, 0.0))
    assert (here.power_max_w, there.power_max_w) == pytest.approx((550.0, 550.0))


@settings(max_examples=300, deadline=None)
@given(limit_w=st.floats(0, 5e4), nodes=fleets(), data=st.data())
def test_others_and_what_is_reserved_never_exceed_the_limit(
    limit_w: float, nodes: list[NodeCapability], data: st.DataObject
) -> None:
    reserved = {
        one.node_id: data.draw(st.floats(0, 2e4)) for one in nodes if data.draw(st.booleans())
    }
    grants = allocate_envelopes(budget(limit_w), nodes, reserved)
    assert [grant.node_id for grant in grants] == [one.node_id for one in nodes]
    assert math.fsum(grant.power_max_w for grant in grants) <= limit_w
    others_w = math.fsum(g.power_max_w for g in grants if g.node_id not in reserved)
    reserved_w = math.fsum(reserved.values())
    assert others_w + reserved_w <= max(limit_w, reserved_w) + 1e-6
    assert all(grant.power_max_w >= 0 for grant in grants)


@settings(max_examples=100, deadline=None)
@given(limit_w=st.floats(600, 2000), fleet=st.lists(curves(), min_size=2, max_size=4))
def test_no_exchange_of_watts_between_two_nodes_gives_more_tokens(
    limit_w: float, fleet: list[PowerCurve]
) -> None:
    nodes = [NodeCapability(k, str(k), 0.0, c.max_power_w, c) for k, c in enumerate(fleet)]
    power_w = [grant.power_max_w for grant in allocate_envelopes(budget(limit_w), nodes)]
    if any(w < c.floor_w for w, c in zip(power_w, fleet, strict=True)):
        return
    rates = [c.tokens_per_s_at(w) for w, c in zip(power_w, fleet, strict=True)]
    for giver, taker in [(a, b) for a in range(len(fleet)) for b in range(len(fleet)) if a != b]:
        step_w = min(5.0, power_w[giver] - fleet[giver].floor_w)
        gained = fleet[taker].tokens_per_s_at(power_w[taker] + step_w) - rates[taker]
        lost = rates[giver] - fleet[giver].tokens_per_s_at(power_w[giver] - step_w)
        assert gained <= lost + 1e-5 * max(1.0, *rates)


def test_a_hundred_nodes_over_a_hundred_intervals_take_under_a_second() -> None:
    curve = PowerCurve.lower_hull(500.0, [(100.0 * k, 500.0 + 9 * k * k) for k in range(1, 20)])
    nodes = [NodeCapability(k, str(k), 600.0, 4000.0, curve, k % 7 > 0) for k in range(100)]
    started_s = time.thread_time()
    for k in range(100):
        allocate_envelopes(budget(60_000.0 + 2000.0 * k, 1000.0 * k), nodes)
    assert time.thread_time() - started_s < 1.0
