from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from pals_grid.core.events import EventRequest
from pals_grid.service.events import create_event
from pals_grid.service.live.fallbacks import SilentNodes, SiteSchedules, Spans, may_follow
from pals_grid.service.live.shares import ShareCache
from pals_grid.store.live_sites import LiveNode, LiveSiteRepository, LiveStatus, PlanKey
from pals_grid.store.nodes import NodeRepository
from tests.unit.service.live.live_world import QUIET_S, record_of
from tests.unit.service.world import T0

if TYPE_CHECKING:
    from tests.unit.service.live.live_world import LiveWorld

MINUTE = timedelta(minutes=1)
PLANS = [PlanKey(10 + v, v, T0 + (v - 9) * 10 * MINUTE) for v in (5, 6, 7, 8, 9)]


def node(version: int, seen_at: object = T0) -> LiveNode:
    said = LiveStatus("following", version, 500.0, [])
    return LiveNode(1, 1, T0, seen_at, seen_at, said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "following"),
    [
        (9, range(4, 5)),
        (7, range(2, 5)),
        (5, range(5)),
        (4, None),  # too long ago to know
        (11, None),  # of a database that is not this one
        (0, range(3, 5)),  # none yet: in force since a minute before it said so
    ],
)
def test_a_node_follows_what_it_said_or_anything_since(
    version: int, following: range | None
) -> None:
    assert may_follow(node(version), PLANS, T0) == following


def test_without_any_plan_a_node_is_at_its_safe_limit_or_follows_one_of_another_database() -> None:
    assert may_follow(node(0), [], T0) == range(0)
    assert may_follow(node(3), [], T0) is None


def test_a_node_without_a_plan_that_is_older_than_all_known_is_not_known() -> None:
    assert may_follow(node(0, T0 - 100 * MINUTE), PLANS, T0) is None
    first = [PlanKey(1, 1, T0)]
    assert may_follow(node(0), first, T0) == range(1)


def test_a_node_that_says_no_plan_may_be_at_its_safe_limit_whatever_others_say(
    live: LiveWorld,
) -> None:
    live.make_live_site(maximum_w=1600.0)
    told, untold = live.add("a"), live.add("b")
    with live.database.read() as connection:
        fleet = NodeRepository(connection).list_all(told.node.site_id)
        plans = LiveSiteRepository(connection).load_plans([told.node.site_id])[told.node.site_id]
        shares = ShareCache().load(connection, [plans[-1].plan_id], T0)
    now, now_s = T0 + 2 * MINUTE, T0.timestamp() + 120
    seen = [
        replace(node(version, now), node_id=machine.node.id)
        for version, machine in ((plans[-1].version, told), (0, untold))
    ]
    safe_w = np.array([1500.0, 1500.0])
    schedules = SiteSchedules(fleet, seen, plans, shares, safe_w, SilentNodes())
    found = schedules.fallbacks(Spans(now_s, now_s + 80, now_s + 80), now)
    assert found.now_w == pytest.approx([800.0, 1500.0])


def test_over_the_start_of_an_event_the_sum_stays_inside_either_budget(live: LiveWorld) -> None:
    live.make_live_site()
    for name in "ab":
        live.add(name)
    start_at = T0 + timedelta(seconds=150)
    order = EventRequest("dr", start_at, start_at + 30 * MINUTE, 1600.0)
    create_event(live.context, "oslo", order)
    for machine in live.machines:
        machine.fetch()
        machine.wants_w = 1900.0
    allocator = live.allocator()
    live.rounds(allocator, 10 + QUIET_S)
    for _ in range(20):
        live.rounds(allocator, 5)
        limit_w = 4000.0 if live.clock.now() < start_at else 1600.0
        assert live.commanded_w <= limit_w + 1e-6
    assert live.clock.now() > start_at
    assert record_of(live).budget_w == 1600.0
