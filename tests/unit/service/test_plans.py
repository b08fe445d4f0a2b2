from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from pals_grid.core.budget import Reason
from pals_grid.core.errors import NotFound
from pals_grid.core.events import EventRequest
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.service.events import create_event, list_events
from pals_grid.service.feeds import fetch_feed, remove_feed
from pals_grid.service.nodes import (
    authenticate_node,
    issue_enrolment_token,
    list_nodes,
    register_node,
)
from pals_grid.service.paging import Page
from pals_grid.service.plans import (
    list_plans,
    load_envelopes,
    load_plan,
    load_plan_evidence,
    replan,
    replan_since,
)
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import HALF_HOUR, T0, batch, half_hours, registration

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest, PowerBudget
    from tests.unit.service.world import World


def test_plan_is_stored_whole(world: World) -> None:
    site = world.make_site()
    feed = world.make_feed()
    world.register()
    world.price.say(80, 20)
    fetch_feed(world.context, feed.id)
    made = replan(world.context, site.id, "schedule")
    assert load_plan(world.context, "oslo") == made
    assert load_plan(world.context, "oslo", made.version) == made
    assert [item.price_per_mwh for item in made.budget.intervals[:3]] == [80, 20, None]
    assert made.budget.intervals[0].interval.start_at == T0


def test_site_without_nodes_has_a_plan(world: World) -> None:
    site = world.make_site()
    plan = replan(world.context, site.id, "schedule")
    assert plan.inputs == ()
    assert all(item.limit_w >= 500 for item in plan.budget.intervals)
    assert load_envelopes(world.context, "oslo") == []


def test_unknown_plans_are_not_found(world: World) -> None:
    world.make_site()
    with pytest.raises(NotFound, match="plan 'latest'"):
        load_plan(world.context, "oslo")
    with pytest.raises(NotFound, match="plan 3"):
        load_plan_evidence(world.context, "oslo", 3)
    with pytest.raises(NotFound, match="site 99"):
        replan(world.context, 99, "schedule")


def test_plans_come_newest_first(world: World) -> None:
    site = world.make_site()
    for i in range(3):
        replan(world.context, site.id, f"t{i}")
    first = list_plans(world.context, "oslo", Page(limit=2))
    rest = list_plans(world.context, "oslo", Page(limit=2, cursor=first.next_cursor))
    summaries = (*first.items, *rest.items)
    assert [(plan.version, plan.trigger) for plan in summaries] == [(3, "t2"), (2, "t1"), (1, "t0")]
    assert {plan.intervals for plan in summaries} == {72}


def test_feeds_of_a_quantity_fill_in_for_each_other_in_order(world: World) -> None:
    site = world.make_site()
    made_up, live, second = (world.make_feed(name=name) for name in ("made-up", "live", "second"))
    world.price.say(*[1.0] * 72, kind="synthetic")
    fetch_feed(world.context, made_up.id)
    world.price.say(50, 60)
    fetch_feed(world.context, live.id)
    world.price.say(70, 71, 72)
    fetch_feed(world.context, second.id)
    plan = replan(world.context, site.id, "schedule")
    prices = [item.price_per_mwh for item in plan.budget.intervals]
    assert prices == [50, 60, 72, *[1.0] * 69]
    used = {item.feed: (item.values, item.kinds) for item in plan.inputs}
    assert used == {
        "live": (2, (ValueKind.FORECAST,)),
        "second": (1, (ValueKind.FORECAST,)),
        "made-up": (69, (ValueKind.SYNTHETIC,)),
    }
    assert sum(item.coverage_ratio for item in plan.inputs) == pytest.approx(1)


def test_feed_without_values_is_named_as_asked(world: World) -> None:
    site = world.make_site()
    world.make_feed("carbon", "c")
    (asked,) = replan(world.context, site.id, "schedule").inputs
    assert (asked.feed, asked.quantity) == ("c", Quantity.AVERAGE_INTENSITY)
    assert (asked.values, asked.coverage_ratio, asked.latest_known_at) == (0, 0, None)


def test_evidence_is_what_was_known_then(world: World) -> None:
    site = world.make_site()
    feed = world.make_feed()
    world.price.values = half_hours((80, 90))
    fetch_feed(world.context, feed.id)
    then = replan(world.context, site.id, "schedule")
    world.clock.advance(60)
    world.price.values = half_hours((85, 90), known_at=world.clock.now())
    fetch_feed(world.context, feed.id)
    remove_feed(world.context, feed.id)
    (evidence,) = load_plan_evidence(world.context, "oslo", then.version)
    assert evidence.feed.name == "p"
    assert [item.value for item in evidence.observations] == [80, 90]


def test_new_values_plan_only_where_they_change_something(world: World) -> None:
    world.make_site(demand_tokens_per_s=0.0)
    feed = world.make_feed()
    world.register()
    versions = []
    for number in (80, 81):
        world.clock.advance(60)
        world.price.values = half_hours((number,), known_at=world.clock.now())
        assert fetch_feed(world.context, feed.id).stored == 1
        versions.append(load_plan(world.context, "oslo").version)
    assert versions[0] == versions[1]


def test_plan_with_other_limits_is_stored(world: World) -> None:
    site = world.make_site()
    lower = replace(world.context, planner=lambda request: _scaled(world, request, 0.9))
    slightly = replace(world.context, planner=lambda request: _scaled(world, request, 1.0001))
    world.register()
    first = replan(world.context, site.id, "schedule")
    world.clock.advance(50)
    assert replan(slightly, site.id, "feed", only_if_changed=True) == first
    made = replan(lower, site.id, "feed p: 1 new values", only_if_changed=True)
    assert made.version == first.version + 1
    assert load_plan(world.context, "oslo").trigger == "feed p: 1 new values"


def test_outlived_plan_is_always_replaced(world: World) -> None:
    site = world.make_site()
    first = replan(world.context, site.id, "schedule")
    world.clock.advance(site.policy.horizon_s + 1)
    assert replan(world.context, site.id, "feed", only_if_changed=True).version > first.version


def test_history_of_the_same_time_of_day_is_the_demand(world: World) -> None:
    site = world.make_site(demand_tokens_per_s=7.0)
    node = authenticate_node(world.context, world.register().node_token)
    ingest(world.context, node, batch(T0 - HALF_HOUR, 360))
    plan = replan(world.context, site.id, "schedule")
    assert plan.budget.intervals[-1].demand_tokens_per_s == pytest.approx(50)


def test_concurrent_replans_give_consecutive_versions(world: World) -> None:
    site = world.make_site()
    world.register()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(replan, world.context, site.id, f"t{i}") for i in range(4)]
    made = sorted(future.result().version for future in running)
    assert made == [2, 3, 4, 5]
    assert load_plan(world.context, "oslo").version == 5


def test_overlapping_intervals_of_a_plan_are_impossible(world: World) -> None:
    site = world.make_site()
    plan = replan(world.context, site.id, "schedule")
    statement = text("""
        INSERT INTO plan_interval SELECT plan_id, tstzrange(
            lower(during) + interval '1 minute', upper(during)), limit_w, reason, explanation,
            NULL, NULL, 0, 0, 0, 0, NULL
        FROM plan_interval WHERE plan_id = :id LIMIT 1
    """)
    with (
        pytest.raises(IntegrityError, match="plan_interval_no_overlap"),
        world.database.begin() as connection,
    ):
        connection.execute(statement, {"id": plan.id})


def test_planner_that_fails_leaves_nothing(world: World) -> None:
    site = world.make_site()
    before = replan(world.context, site.id, "schedule")

    def overlapping(request: PlanRequest) -> PowerBudget:
        budget = world.context.planner(request)
        first = budget.intervals[0]
        return replace(budget, intervals=(first, replace(first, reason=Reason.DEMAND)))

    broken = replace(world.context, planner=overlapping)
    order = EventRequest("e", T0 + timedelta(hours=1), T0 + timedelta(hours=2), limit_w=1.0)
    with pytest.raises(IntegrityError):
        replan(broken, site.id, "schedule")
    assert load_plan(world.context, "oslo") == before
    with pytest.raises(IntegrityError):
        create_event(broken, "oslo", order)
    assert list_events(world.context, "oslo", Page()).items == ()
    token = issue_enrolment_token(world.context, "oslo")
    with pytest.raises(IntegrityError):
        register_node(broken, token, registration())
    assert list_nodes(world.context, "oslo", Page()).items == ()


def _scaled(world: World, request: PlanRequest, factor: float) -> PowerBudget:
    budget = world.context.planner(request)
    scaled = (replace(item, limit_w=item.limit_w * factor) for item in budget.intervals)
    return replace(budget, intervals=tuple(scaled))


def test_a_plan_begun_since_is_another_ones_too(world: World) -> None:
    site = world.make_site()
    made = replan(world.context, site.id, "first")
    before = world.clock.now() - timedelta(seconds=1)
    assert replan_since(world.context, site.id, "back", before) == made
    # A plan of the same instant may have looked before.
    assert replan_since(world.context, site.id, "back", world.clock.now()).version == 2
