from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import text

from pals_grid.core.errors import AccessDenied, InvalidValue, NotFound
from pals_grid.core.intervals import Interval
from pals_grid.service.envelopes import load_schedule, load_schedule_version
from pals_grid.service.known_nodes import KnownNodes
from pals_grid.service.nodes import (
    authenticate_node,
    issue_enrolment_token,
    list_nodes,
    load_node,
    record_status,
    register_node,
    remove_node,
)
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, load_envelopes, load_plan, replan
from pals_grid.service.reports import energy_report
from pals_grid.service.telemetry import ingest
from pals_grid.wire.messages import EngineStatus
from tests.unit.service.world import T0, batch, registration, status

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest, PowerBudget
    from tests.unit.service.world import World


def triggers(world: World) -> list[str]:
    return [plan.trigger for plan in list_plans(world.context, "oslo", Page()).items]


def engine(tokens_deferred: float) -> EngineStatus:
    return EngineStatus(
        engine="e0",
        model="llama",
        power_limit_w=700.0,
        power_draw_w=600.0,
        max_num_seqs=64,
        requests_running=8,
        requests_waiting=0,
        tokens_out_per_s=50.0,
        gpu_energy_j_per_token=12.0,
        reason="demand",
        tokens_deferred=tokens_deferred,
    )


def test_registration_plans_and_answers_with_the_slo(world: World) -> None:
    world.make_site()
    reply = world.register()
    assert (reply.site, reply.ttft_slo_s, reply.itl_slo_s) == ("oslo", 2.0, 0.1)
    assert authenticate_node(world.context, reply.node_token).id == reply.node_id
    assert triggers(world) == ["node gpu-1 registered"]


def test_only_digests_of_tokens_are_stored(world: World) -> None:
    world.make_site()
    token = issue_enrolment_token(world.context, "oslo")
    reply = register_node(world.context, token, registration())
    with world.database.read() as connection:
        rows = connection.execute(text("SELECT t::text FROM enrolment_token t")).scalars()
        nodes = connection.execute(text("SELECT n::text FROM node n")).scalars()
        stored = " ".join([*rows, *nodes])
    for secret in (token, reply.node_token):
        assert secret not in stored
        assert secret.encode().hex() not in stored


def test_same_name_is_the_same_node_with_a_new_token(world: World) -> None:
    world.make_site()
    first = world.register()
    again = world.register()
    assert again.node_id == first.node_id
    assert authenticate_node(world.context, again.node_token).id == first.node_id
    with pytest.raises(AccessDenied, match="not a node token"):
        authenticate_node(world.context, first.node_token)
    assert triggers(world) == ["node gpu-1 registered"]


def test_changed_capability_plans_anew(world: World) -> None:
    world.make_site()
    world.register()
    world.register(scale=2.0)
    assert len(triggers(world)) == 2


def test_wrong_tokens_are_denied_and_store_nothing(world: World) -> None:
    world.make_site()
    reply = world.register()
    for token in ("", "guess", reply.node_token):
        with pytest.raises(AccessDenied, match="not an enrolment token"):
            register_node(world.context, token, registration("gpu-2"))
    with pytest.raises(AccessDenied):
        authenticate_node(world.context, issue_enrolment_token(world.context, "oslo"))
    assert len(list_nodes(world.context, "oslo", Page()).items) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"power_max_w": 100.0}, "power_max_w"),
        ({"curve": registration().curve[1:]}, r"tokens_per_s\[0\]"),
        ({"curve": registration().curve[::-1]}, "tokens_per_s"),
    ],
)
def test_impossible_node_is_refused(world: World, change: dict[str, object], field: str) -> None:
    world.make_site()
    token = issue_enrolment_token(world.context, "oslo")
    with pytest.raises(InvalidValue, match=field):
        register_node(world.context, token, msgspec.structs.replace(registration(), **change))
    assert list_nodes(world.context, "oslo", Page()).items == ()


def test_status_makes_a_node_online_for_15_s(world: World) -> None:
    world.make_site()
    reply = world.register()
    assert load_node(world.context, reply.node_id).status is None
    node = authenticate_node(world.context, reply.node_token)
    world.clock.advance(2)
    record_status(world.context, node, status())
    view = load_node(world.context, node.id)
    assert view.online
    assert view.status == status()
    assert view.node.last_seen_at == world.clock.now()
    world.clock.advance(15)
    assert not load_node(world.context, node.id).online
    assert [v.online for v in list_nodes(world.context, "oslo", Page()).items] == [False]


def test_node_that_was_away_is_planned_with_again(world: World) -> None:
    world.make_site()
    reply = world.register()
    node = authenticate_node(world.context, reply.node_token)
    world.clock.advance(59)
    record_status(world.context, node, status())
    assert triggers(world) == ["node gpu-1 registered"]
    world.clock.advance(60)
    replan(world.context, node.site_id, "schedule")
    record_status(world.context, node, status())
    record_status(world.context, node, status())
    assert triggers(world) == ["node gpu-1 is back", "schedule", "node gpu-1 registered"]


def test_pause_that_no_plan_noticed_needs_no_new_plan(world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    world.clock.advance(3600)
    record_status(world.context, node, status())
    world.clock.advance(3600)
    world.register()
    assert triggers(world) == ["node gpu-1 registered"]


def test_removed_node_is_planned_without(world: World) -> None:
    world.make_site(safe_limit_w=3000.0)
    gone, left = world.register("gone"), world.register("left", scale=2.0)
    node = authenticate_node(world.context, gone.node_token)
    record_status(world.context, node, status())
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 12))
    remove_node(world.context, gone.node_id)
    assert triggers(world)[0] == "node gone removed"
    assert {item.node_id for item in load_envelopes(world.context, "oslo")} == {left.node_id}
    assert load_schedule(world.context, left.node_id).safe_power_w == 3000.0
    assert [v.node.name for v in list_nodes(world.context, "oslo", Page()).items] == ["left"]
    with pytest.raises(AccessDenied, match="not a node token"):
        authenticate_node(world.context, gone.node_token)
    for ask in (load_node, load_schedule, remove_node):
        with pytest.raises(NotFound, match="node 1"):
            ask(world.context, gone.node_id)
    past = Interval(T0 - timedelta(hours=1), T0)
    report = energy_report(world.context, "oslo", past, frozenset({"node"}))
    assert [(row.node, row.tokens_out) for row in report.rows] == [("gone", 12 * 250)]


def test_removed_node_comes_back_by_its_name(world: World) -> None:
    world.make_site()
    first = world.register()
    node = authenticate_node(world.context, first.node_token)
    record_status(world.context, node, status())
    remove_node(world.context, first.node_id)
    assert load_envelopes(world.context, "oslo") == []
    again = world.register()
    assert again.node_id == first.node_id
    assert load_node(world.context, again.node_id).status is None
    assert load_schedule(world.context, again.node_id).intervals
    expected = ["node gpu-1 registered", "node gpu-1 removed", "node gpu-1 registered"]
    assert triggers(world) == expected


def test_only_work_at_nodes_that_are_there_is_planned(world: World) -> None:
    site = world.make_site()
    names = ("here", "silent", "gone")
    nodes = [authenticate_node(world.context, world.register(n).node_token) for n in names]
    waiting = msgspec.structs.replace(status(), engines=[engine(tokens_deferred=1000.0)])
    for node in nodes:
        record_status(world.context, node, waiting)
    world.clock.advance(60)
    record_status(world.context, nodes[0], waiting)
    remove_node(world.context, nodes[2].id)
    seen: list[float] = []

    def planner(request: PlanRequest) -> PowerBudget:
        seen.append(request.backlog_tokens)
        return world.context.planner(request)

    replan(replace(world.context, planner=planner), site.id, "schedule")
    assert seen == [1000.0]


def test_unknown_node_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="node 5"):
        load_node(world.context, 5)
    with pytest.raises(NotFound, match="node 5"):
        load_schedule(world.context, 5)
    assert load_schedule_version(world.context, 5) == 0


def test_nodes_come_in_pages(world: World) -> None:
    world.make_site()
    for name in ("b", "a", "c"):
        world.register(name)
    first = list_nodes(world.context, "oslo", Page(limit=2))
    rest = list_nodes(world.context, "oslo", Page(limit=2, cursor=first.next_cursor))
    assert [v.node.name for v in (*first.items, *rest.items)] == ["b", "a", "c"]


def test_schedule_holds_from_now_to_the_horizon(world: World) -> None:
    world.make_site()
    world.clock.advance(600)
    reply = world.register()
    world.clock.advance(3600)
    schedule = load_schedule(world.context, reply.node_id)
    plan = load_plan(world.context, "oslo")
    assert schedule.version == plan.version == load_schedule_version(world.context, reply.node_id)
    assert schedule.intervals[0].start_at <= world.clock.now() < schedule.intervals[0].end_at
    assert schedule.intervals[-1].end_at == plan.budget.intervals[-1].interval.end_at
    ends = [item.end_at for item in schedule.intervals[:-1]]
    assert ends == [item.start_at for item in schedule.intervals[1:]]


def test_safe_limit_is_shared_by_power(world: World) -> None:
    world.make_site(safe_limit_w=3000.0)
    small, large = world.register("small"), world.register("large", scale=2.0)
    assert load_schedule(world.context, small.node_id).safe_power_w == pytest.approx(1000.0)
    assert load_schedule(world.context, large.node_id).safe_power_w == pytest.approx(2000.0)


def test_envelopes_stay_inside_the_limit(world: World) -> None:
    world.make_site(grid_connection_w=3000.0, demand_tokens_per_s=5000.0)
    nodes = [world.register("small").node_id, world.register("large", scale=2.0).node_id]
    plan = load_plan(world.context, "oslo")
    shares = [load_schedule(world.context, node).intervals for node in nodes]
    for i, item in enumerate(plan.budget.intervals):
        assert sum(share[i].power_max_w for share in shares) <= item.limit_w
        assert sum(share[i].power_max_w for share in shares) > 0.99 * item.limit_w


def test_token_that_another_process_made_void_is_refused_within_seconds(world: World) -> None:
    world.make_site()
    reply = world.register("a")
    other = replace(world.context, known_nodes=KnownNodes())
    assert authenticate_node(world.context, reply.node_token).id == reply.node_id
    remove_node(other, reply.node_id)
    with pytest.raises(AccessDenied):
        authenticate_node(other, reply.node_token)
    world.clock.advance(4)
    assert authenticate_node(world.context, reply.node_token).id == reply.node_id
    world.clock.advance(1)
    with pytest.raises(AccessDenied):
        authenticate_node(world.context, reply.node_token)


def test_status_that_a_later_one_overtook_changes_nothing(world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    later = status(T0 + timedelta(seconds=2))
    for told in (later, status(T0 + timedelta(seconds=1), 900.0)):
        world.clock.advance(1)
        record_status(world.context, node, told)
    view = load_node(world.context, node.id)
    assert view.status == later
    assert view.node.last_seen_at == world.clock.now()


def test_node_whose_clock_was_set_back_is_heard_again_after_60_s(world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    record_status(world.context, node, status(T0 + timedelta(hours=1)))
    back = status(T0)
    for seconds, power_w in ((60, 800.0), (1, 900.0)):
        world.clock.advance(seconds)
        record_status(world.context, node, msgspec.structs.replace(back, node_power_w=power_w))
    found = load_node(world.context, node.id).status
    assert found == msgspec.structs.replace(back, node_power_w=900.0)
