from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.errors import Conflict, InvalidValue, NotFound
from pals_grid.core.events import EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.service.envelopes import load_schedule
from pals_grid.service.events import (
    cancel_event,
    create_event,
    list_events,
    load_delivery,
    load_event,
)
from pals_grid.service.nodes import authenticate_node, record_status
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan, replan
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import T0, batch, status

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)


def order(
    start_h: float = 1,
    hours: float = 1,
    *,
    limit_w: float | None = 600.0,
    reduction_ratio: float | None = None,
) -> EventRequest:
    start_at = T0 + HOUR * start_h
    return EventRequest("peak", start_at, start_at + HOUR * hours, limit_w, reduction_ratio)


def make_node(world: World) -> Node:
    return authenticate_node(world.context, world.register().node_token)


def test_event_is_in_the_plan_and_the_schedule_at_once(world: World) -> None:
    world.make_site(demand_tokens_per_s=800.0)
    node = make_node(world)
    event = create_event(world.context, "oslo", order())
    assert load_event(world.context, event.id) == event
    plan = load_plan(world.context, "oslo")
    assert plan.trigger == f"event {event.id} created"
    held = [item for item in plan.budget.intervals if item.event_id == event.id]
    assert {item.reason for item in held} == {Reason.EVENT}
    assert max(item.limit_w for item in held) <= 600
    schedule = load_schedule(world.context, node.id)
    limited = [item for item in schedule.intervals if item.event_id == event.id]
    assert limited[0].start_at == T0 + HOUR
    assert limited[-1].end_at == T0 + 2 * HOUR
    assert max(item.power_max_w for item in limited) <= 600


def test_ramp_reaches_into_the_plan(world: World) -> None:
    world.make_site(demand_tokens_per_s=800.0)
    make_node(world)
    ramped = EventRequest("r", T0 - HOUR, T0 + HOUR / 6, limit_w=400.0, ramp_s=3600.0)
    event = create_event(world.context, "oslo", ramped)
    world.clock.advance(1800)
    replan(world.context, event.site_id, "schedule")
    after = load_plan(world.context, "oslo").budget.intervals[0]
    assert after.event_id == event.id
    assert 400 < after.limit_w < 10_000


def test_cancelling_lifts_the_limit_at_once(world: World) -> None:
    world.make_site()
    make_node(world)
    before = create_event(world.context, "oslo", order())
    event = cancel_event(world.context, before.id, before.version)
    assert (event.status, event.version) == (EventStatus.CANCELLED, 2)
    assert event.cancelled_at == T0
    plan = load_plan(world.context, "oslo")
    assert plan.trigger == f"event {event.id} cancelled"
    assert all(item.event_id is None for item in plan.budget.intervals)


def test_cancelling_is_refused_where_it_makes_no_sense(world: World) -> None:
    world.make_site()
    with pytest.raises(NotFound, match="event 4"):
        cancel_event(world.context, 4, None)
    event = create_event(world.context, "oslo", order())
    with pytest.raises(Conflict, match="is at 1, not 3"):
        cancel_event(world.context, event.id, 3)
    over = create_event(world.context, "oslo", order(0, 0.5))
    world.clock.advance(1800)
    with pytest.raises(Conflict, match="is over since"):
        cancel_event(world.context, over.id, None)
    cancel_event(world.context, event.id, None)
    with pytest.raises(Conflict, match="is cancelled already"):
        cancel_event(world.context, event.id, None)


def test_event_that_is_over_is_refused(world: World) -> None:
    world.make_site()
    with pytest.raises(InvalidValue, match="end_at: must be after now"):
        create_event(world.context, "oslo", order(-2, 2))
    assert list_events(world.context, "oslo", Page()).items == ()


def test_lowest_of_overlapping_events_wins(world: World) -> None:
    world.make_site()
    make_node(world)
    create_event(world.context, "oslo", order(1, 2, limit_w=700.0))
    deep = create_event(world.context, "oslo", order(2, 2, limit_w=400.0))
    by_start = {
        (item.interval.start_at - T0) / HOUR: item
        for item in load_plan(world.context, "oslo").budget.intervals
    }
    assert by_start[2.0].limit_w <= 400
    assert by_start[2.0].event_id == deep.id
    assert 400 < by_start[1.5].limit_w <= 700


def test_order_below_the_minimum_shows_the_shortfall(world: World) -> None:
    world.make_site(demand_tokens_per_s=800.0)
    make_node(world)
    event = create_event(world.context, "oslo", order(limit_w=100.0))
    held = [i for i in load_plan(world.context, "oslo").budget.intervals if i.event_id == event.id]
    assert held
    assert all(item.limit_w <= 100 and item.shortfall_tokens_per_s > 0 for item in held)


def test_reference_is_measured_where_the_meter_covers_enough(world: World) -> None:
    world.make_site()
    node = make_node(world)
    record_status(world.context, node, status())
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 60, power_w=900.0))
    event = create_event(world.context, "oslo", order(limit_w=None, reduction_ratio=0.25))
    assert event.reference_w == pytest.approx(900)
    assert event.reference_origin is Origin.MODELLED
    assert event.ordered_w == pytest.approx(675)


def test_reference_is_planned_without_enough_measurement(world: World) -> None:
    world.make_site()
    node = make_node(world)
    ingest(world.context, node, batch(T0 - timedelta(minutes=4), 48, power_w=900.0))
    planned = load_plan(world.context, "oslo").budget.intervals[2].expected_power_w
    event = create_event(world.context, "oslo", order(limit_w=None, reduction_ratio=0.25))
    assert (event.reference_w, event.reference_origin) == (planned, Origin.MODELLED)


def test_reference_without_any_plan_is_what_can_be_drawn(world: World) -> None:
    world.make_site()
    event = create_event(world.context, "oslo", order(limit_w=None, reduction_ratio=0.5))
    assert event.reference_w == 10_000
    assert event.reference_origin is Origin.MODELLED


def test_reference_stays_frozen(world: World) -> None:
    world.make_site()
    node = make_node(world)
    event = create_event(world.context, "oslo", order(limit_w=None, reduction_ratio=0.25))
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 60, power_w=1900.0))
    assert load_event(world.context, event.id).reference_w == event.reference_w


def test_events_come_latest_first_in_pages(world: World) -> None:
    world.make_site()
    made = [create_event(world.context, "oslo", order(start)) for start in (1, 5, 1)]
    first = list_events(world.context, "oslo", Page(limit=2))
    rest = list_events(world.context, "oslo", Page(limit=2, cursor=first.next_cursor))
    found = [event.id for event in (*first.items, *rest.items)]
    assert found == [made[1].id, made[2].id, made[0].id]
    assert rest.next_cursor is None


def test_delivery_before_the_event_is_empty(world: World) -> None:
    world.make_site()
    event = create_event(world.context, "oslo", order())
    delivery = load_delivery(world.context, event.id)
    assert (delivery.points, delivery.mean_power_w, delivery.covered_s) == ((), None, 0)
    assert delivery.within_limit_ratio is None


def test_delivery_is_measured_minute_by_minute(world: World) -> None:
    world.make_site()
    node = make_node(world)
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 120, power_w=1000.0))
    event = create_event(world.context, "oslo", order(1, 1, limit_w=600.0))
    start_at = event.order.start_at
    ingest(world.context, node, batch(start_at, 12, power_w=900.0, seq=2))
    ingest(world.context, node, batch(start_at + timedelta(minutes=1), 36, power_w=500.0, seq=3))
    world.clock.at = start_at + timedelta(minutes=10)
    delivery = load_delivery(world.context, event.id)
    assert delivery.covered_s == pytest.approx(240)
    assert delivery.mean_power_w == pytest.approx(600)
    assert delivery.within_limit_ratio == pytest.approx(0.75)
    assert delivery.curtailed_j == pytest.approx(60 * 100 + 180 * 500)
    assert [point.power_w for point in delivery.points] == [
        pytest.approx(900), *[pytest.approx(500)] * 3, *[None] * 6,
    ]  # fmt: skip


def test_delivery_ends_with_a_cancellation(world: World) -> None:
    world.make_site()
    node = make_node(world)
    event = create_event(world.context, "oslo", order(0, 1))
    ingest(world.context, node, batch(T0, 120, power_w=500.0))
    world.clock.advance(180)
    cancel_event(world.context, event.id, None)
    world.clock.advance(420)
    delivery = load_delivery(world.context, event.id)
    assert len(delivery.points) == 3
    assert delivery.covered_s == pytest.approx(180)
