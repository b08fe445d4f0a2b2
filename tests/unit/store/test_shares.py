"""A plan's shares by kinds of node, beside the rows that the previous release writes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.core.intervals import Interval
from pals_grid.core.site import SitePolicy
from pals_grid.service.envelopes import load_schedule
from pals_grid.service.plans import load_envelopes, load_plan, prune_plans, replan
from pals_grid.store.live_sites import LiveSiteRepository
from tests.unit.service.world import World

if TYPE_CHECKING:
    from pals_grid.core.budget import PowerEnvelope
    from pals_grid.store.engine import Database

DAY_S = 86_400.0


@pytest.fixture
def world(database: Database) -> World:
    made = World(database)
    made.make_site()
    return made


def count(world: World, table: str) -> int:
    with world.database.read() as connection:
        found: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        return found


def as_the_previous_release(world: World) -> None:
    """Write the shares of all plans as rows, through what was its table."""
    with world.database.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE old AS SELECT * FROM envelope"))
        connection.execute(text("DELETE FROM plan_share"))
        connection.execute(
            text(
                "INSERT INTO envelope (plan_id, node_id, during, power_min_w, power_max_w,"
                " target_tokens_per_s) SELECT plan_id, node_id, during, power_min_w, power_max_w,"
                " target_tokens_per_s FROM old"
            )
        )


def by_node(found: list[PowerEnvelope]) -> dict[int, list[PowerEnvelope]]:
    nodes = {item.node_id for item in found}
    return {node: [item for item in found if item.node_id == node] for node in nodes}


def test_nodes_that_are_alike_share_one_row(world: World) -> None:
    ids = [world.register(name).node_id for name in ("a", "b", "c")]
    other = world.register("d", scale=2.0).node_id
    with world.database.begin() as connection:
        connection.execute(text("DELETE FROM plan_share"))
    plan = replan(world.context, 1, "schedule")
    assert count(world, "plan_share") <= 3  # rounding may set one of the alike apart
    envelopes = by_node(load_envelopes(world.context, "oslo"))
    assert set(envelopes) == {*ids, other}
    for found in envelopes.values():
        assert [item.interval for item in found] == [i.interval for i in plan.budget.intervals]
    for at, item in enumerate(plan.budget.intervals):
        assert sum(found[at].power_max_w for found in envelopes.values()) <= item.limit_w


def test_what_the_previous_release_wrote_is_read_as_well(world: World) -> None:
    node_id = world.register("a").node_id
    world.register("b", scale=2.0)
    before = load_envelopes(world.context, "oslo")
    schedule = load_schedule(world.context, node_id)
    as_the_previous_release(world)
    assert count(world, "plan_share") == 0
    assert load_envelopes(world.context, "oslo") == before
    fresh = World(world.database)  # holds nothing in memory
    assert load_schedule(fresh.context, node_id).intervals == schedule.intervals
    assert schedule.intervals != []


@pytest.mark.parametrize("is_old", [False, True])
def test_a_silent_node_counts_with_what_plans_of_either_release_granted(
    world: World, *, is_old: bool
) -> None:
    node_id = world.register("a").node_id
    held_w = load_schedule(world.context, node_id).intervals[0].power_max_w
    if is_old:
        as_the_previous_release(world)
    world.clock.advance(61)
    replan(world.context, 1, "schedule")
    assert load_envelopes(world.context, "oslo")[0].power_max_w == pytest.approx(held_w)


def test_schedule_follows_the_plan_in_force(world: World) -> None:
    node_id = world.register("a").node_id
    first = load_schedule(world.context, node_id)
    world.register("b", scale=3.0)
    second = load_schedule(world.context, node_id)
    assert (first.version, second.version) == (1, 2)
    assert [i.power_max_w for i in second.intervals] != [i.power_max_w for i in first.intervals]
    world.clock.advance(3600)
    later = load_schedule(world.context, node_id)
    assert later.intervals == [i for i in second.intervals if i.end_at > world.clock.now()]


def test_what_was_in_force_is_kept_and_the_rest_goes(world: World) -> None:
    world.register("a")
    policy = SitePolicy("x", "x", 1.0, 0.0, 0.0)
    for _ in range(60):
        world.clock.advance(policy.slot_s)
        replan(world.context, 1, "schedule")
    whole = len(load_plan(world.context, "oslo", 30).budget.intervals)
    intervals = count(world, "plan_interval")
    prune_plans(world.context, 1)
    first = load_plan(world.context, "oslo", 1).budget.intervals
    assert 1 <= len(first) < whole
    next_at = load_plan(world.context, "oslo", 2).created_at
    assert all(item.interval.start_at < next_at for item in first)
    assert len(load_plan(world.context, "oslo", 30).budget.intervals) == whole
    assert count(world, "plan_interval") < intervals
    # Shares go a day after the horizon, but not those in force.
    shares = count(world, "plan_share")
    world.clock.advance(policy.horizon_s + DAY_S + timedelta(hours=60).total_seconds())
    prune_plans(world.context, 1)
    assert (shares > 1, count(world, "plan_share")) == (True, 1)


def test_old_rows_go_before_the_intervals_that_they_name(world: World) -> None:
    world.register("a")
    for _ in range(3):
        world.clock.advance(1800)
        replan(world.context, 1, "schedule")
    as_the_previous_release(world)
    world.clock.advance(10 * DAY_S)
    prune_plans(world.context, 1)
    with world.database.read() as connection:
        held = connection.execute(text("SELECT DISTINCT plan_id FROM envelope_row")).scalars().all()
    assert held == [load_plan(world.context, "oslo").id]


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("begin_min", [-30, 0, 7, 60, 100_000])
def test_live_rounds_read_what_touches_their_time(
    world: World, begin_min: float, *, rows: bool
) -> None:
    world.register("a")
    world.register("b", scale=2.0)
    plan = load_plan(world.context, "oslo")
    if rows:
        as_the_previous_release(world)
    from_at = plan.budget.intervals[0].interval.start_at + timedelta(minutes=begin_min)
    during = Interval(from_at, from_at + timedelta(minutes=60))
    with world.database.read() as connection:
        found = LiveSiteRepository(connection).load_shares(
            [plan.id], during.start_at, during.end_at
        )
    wanted = {
        (item.node_id, item.interval.start_at.timestamp(), item.power_max_w)
        for item in load_envelopes(world.context, "oslo")
        if item.interval.overlap_s(during) > 0
    }
    assert {(one.node_id, one.start_s, one.power_max_w) for one in found} == wanted
    assert len(found) == len(wanted)
