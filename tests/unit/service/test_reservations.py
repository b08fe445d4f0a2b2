"""A node that is cut off follows its old schedule: it and the others stay inside the site's."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.events import EventRequest
from pals_grid.core.intervals import Interval
from pals_grid.node.lease import Lease
from pals_grid.service.envelopes import load_schedule
from pals_grid.service.events import create_event
from pals_grid.service.nodes import authenticate_node, record_status, remove_node
from pals_grid.service.plans import load_envelopes, load_plan, replan
from pals_grid.service.reservations import Reservation
from tests.unit.service.world import T0, status

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.fleet import Node
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)


@dataclass
class Away:
    """A node at the far end: it holds the last schedule that it got, and obeys it."""

    world: World
    node: Node
    reachable: bool = True
    lease: Lease = field(default_factory=lambda: Lease(None, 0.0))

    def fetch(self) -> None:
        self.lease.store(load_schedule(self.world.context, self.node.id))

    def report(self) -> None:
        now = self.world.clock.now()
        said = msgspec.structs.replace(status(now), envelope_version=self.lease.version)
        record_status(self.world.context, self.node, said)

    def envelope_w(self, now: datetime) -> float:
        return self.lease.envelope_at(now).power_max_w


def register(world: World, name: str, scale: float = 1.0) -> Away:
    token = world.register(name, scale=scale).node_token
    return Away(world, authenticate_node(world.context, token))


def granted_w(world: World, node: Away, at: datetime) -> float:
    return next(
        e.power_max_w
        for e in load_envelopes(world.context, "oslo")
        if e.node_id == node.node.id and e.interval.contains(at)
    )


def test_a_node_that_is_cut_off_keeps_its_share_in_an_event(world: World) -> None:
    world.make_site(grid_connection_w=4000.0, demand_tokens_per_s=2400.0)
    away, here = register(world, "away"), register(world, "here")
    for node in (away, here):
        node.fetch()
        node.report()
    held_w = away.envelope_w(T0)
    assert held_w > 1500
    world.clock.advance(61)
    here.report()
    now = world.clock.now()
    create_event(world.context, "oslo", EventRequest("peak", now, now + HOUR, 2500.0))
    assert granted_w(world, away, now) == pytest.approx(held_w)
    assert granted_w(world, here, now) == pytest.approx(2500.0 - held_w)
    plan = load_plan(world.context, "oslo")
    (event, *_) = (item for item in plan.budget.intervals if item.interval.contains(now))
    assert event.limit_w == 2500.0
    kept = f"{held_w / 1000:.2f} kW are kept for nodes that cannot be reached."
    assert kept in event.explanation
    away.report()  # it is back: a new plan reaches it
    assert granted_w(world, away, now) == pytest.approx(1250.0)


def test_what_a_silent_node_may_have_got_unseen_counts_too(world: World) -> None:
    site = world.make_site(grid_connection_w=4000.0, demand_tokens_per_s=2400.0)
    away, here = register(world, "away"), register(world, "here", scale=0.2)
    for node in (away, here):
        node.fetch()
        node.report()
    world.clock.advance(20)
    now = world.clock.now()
    event = EventRequest("peak", now, now + HOUR, 800.0)
    create_event(world.context, "oslo", event)
    away.fetch()  # and is cut off before it can say so
    assert away.envelope_w(now) < 800
    world.clock.advance(61)
    here.report()
    replan(world.context, site.id, "schedule")
    # It may hold either: the higher counts, and what is left for the others is nothing.
    assert granted_w(world, here, world.clock.now()) == 0


def test_after_its_schedule_a_silent_node_counts_with_its_safe_limit() -> None:
    first = Interval(T0, T0 + HOUR)
    one = Reservation((((first, 700.0),),), safe_w=500.0, least_w=300.0, most_w=2000.0)
    assert one.power_w_in(first) == 700
    assert one.power_w_in(Interval(T0 + HOUR / 2, T0 + HOUR * 2)) == 700
    assert one.power_w_in(Interval(T0 + HOUR, T0 + HOUR * 2)) == 500
    assert Reservation((), 100.0, 300.0, 2000.0).power_w_in(first) == 300
    assert Reservation((), 9000.0, 300.0, 2000.0).power_w_in(first) == 2000


def test_a_schedule_that_ends_earlier_than_another_gives_way_to_the_safe_limit() -> None:
    hour, later = Interval(T0, T0 + timedelta(hours=1)), Interval(T0, T0 + timedelta(hours=2))
    both = Reservation((((hour, 900.0),), ((later, 700.0),)), 1500.0, 300.0, 2000.0)
    assert both.power_w_in(hour) == 900
    assert both.power_w_in(Interval(hour.end_at, later.end_at)) == 1500
    after = Interval(later.end_at, later.end_at + timedelta(hours=1))
    assert both.power_w_in(after) == 1500


def test_a_node_that_is_removed_leaves_its_share_to_the_others(world: World) -> None:
    world.make_site(grid_connection_w=3000.0, demand_tokens_per_s=3000.0)
    away, here = register(world, "away"), register(world, "here")
    for node in (away, here):
        node.fetch()
        node.report()
    world.clock.advance(61)
    here.report()
    before_w = granted_w(world, here, T0)
    remove_node(world.context, away.node.id)
    assert granted_w(world, here, world.clock.now()) > before_w


@pytest.mark.parametrize("seed", range(6))
def test_whoever_is_cut_off_the_site_stays_inside_its_limit(world: World, seed: int) -> None:
    """Once a silent node is noticed, all schedules that are held keep inside the site's limit."""
    dice = random.Random(seed)
    site = world.make_site(grid_connection_w=5000.0, demand_tokens_per_s=dice.uniform(500, 4000))
    nodes = [register(world, f"n{i}", dice.uniform(0.5, 1.5)) for i in range(3)]
    for node in nodes:
        node.fetch()
        node.report()
    for _ in range(12):
        _cut_off_some(nodes, dice)
        if dice.random() < 0.4:
            _order_any(world, dice)
        world.clock.advance(dice.choice([61, 600, 3600, 6 * 3600]))
        for node in nodes:
            if node.reachable:
                node.report()
        replan(world.context, site.id, "schedule")
        for node in nodes:
            if node.reachable:
                node.fetch()
                node.report()
        _check(world, nodes)


def _cut_off_some(nodes: list[Away], dice: random.Random) -> None:
    for node in nodes:
        if dice.random() < 0.35:
            if node.reachable and dice.random() < 0.5:
                node.fetch()  # got unseen
            node.reachable = not node.reachable


def _order_any(world: World, dice: random.Random) -> None:
    start_at = world.clock.now() + timedelta(minutes=dice.randrange(60))
    length = timedelta(minutes=dice.randrange(20, 240))
    order = EventRequest("e", start_at, start_at + length, dice.uniform(800, 4000))
    create_event(world.context, "oslo", order)


def _check(world: World, nodes: list[Away]) -> None:
    for interval in load_plan(world.context, "oslo").budget.intervals:
        for at in (interval.interval.start_at, interval.interval.end_at - timedelta(seconds=1)):
            if at < world.clock.now():
                continue
            cut_off = [max(n.envelope_w(at), 0.0) for n in nodes if not n.reachable]
            reached = [n.envelope_w(at) for n in nodes if n.reachable]
            assert sum(reached) + sum(cut_off) <= max(interval.limit_w, sum(cut_off)) + 1e-6
