from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.core.events import EventRequest
from pals_grid.core.fleet import Origin
from pals_grid.core.live import SiteReading
from pals_grid.core.site import LiveGrants
from pals_grid.service.events import create_event
from pals_grid.service.live.views import load_live
from pals_grid.service.nodes import remove_node
from pals_grid.service.site_meter import record_readings
from pals_grid.service.sites import load_site, update_site
from tests.unit.service.live.live_world import QUIET_S, record_of

if TYPE_CHECKING:
    from pals_grid.service.live.allocating import LiveAllocator
    from tests.unit.service.live.live_world import LiveWorld

BUDGET_W = 4000.0


def begin(live: LiveWorld, names: str = "abcd") -> LiveAllocator:
    """A site whose allocator is past its quiet time, each node with 1 kW by its schedule."""
    live.make_live_site()
    for name in names:
        live.add(name)
    for machine in live.machines:
        machine.fetch()
    allocator = live.allocator()
    live.rounds(allocator, 10 + QUIET_S)
    assert record_of(live).quiet_for_s == 0
    return allocator


def set_mode(live: LiveWorld, mode: LiveGrants) -> None:
    site = load_site(live.context, "oslo")
    update_site(live.context, "oslo", replace(site.policy, live_grants=mode), None)
    for machine in live.machines:
        machine.fetch()


def rows(live: LiveWorld) -> int:
    with live.database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM power_grant")).scalar_one())


def test_power_goes_to_the_node_that_has_the_work(live: LiveWorld) -> None:
    allocator = begin(live)
    busy = live.machines[0]
    busy.wants_w = 1900.0
    for _ in range(12):
        live.rounds(allocator, 5)
        assert live.commanded_w <= BUDGET_W + 1e-6
    assert busy.goes_by_w > 1700
    assert busy.scheduled_w == pytest.approx(1000.0)
    made = record_of(live)
    assert made.lent_w > 700
    assert (made.nodes, made.heard, made.reached, made.behind) == (4, 4, 4, 0)
    view = load_live(live.context, "oslo")
    assert view.running
    assert view.last is not None
    assert view.last.cuts > 0 < view.last.raises
    busy.wants_w = 300.0
    live.machines[1].wants_w = 1900.0
    live.rounds(allocator, 60)
    assert live.machines[1].goes_by_w > 1700
    assert busy.goes_by_w < 1000


def test_nothing_is_granted_while_grants_of_others_may_hold(live: LiveWorld) -> None:
    live.make_live_site()
    live.add("a").fetch()
    allocator = live.allocator()
    live.rounds(allocator, 75)
    assert record_of(live).quiet_for_s > 0
    assert rows(live) == 0
    live.rounds(allocator, 10)
    assert record_of(live).quiet_for_s == 0


def test_a_dry_run_says_what_it_would_do_and_hands_out_nothing(live: LiveWorld) -> None:
    live.make_live_site(mode=LiveGrants.DRY_RUN)
    for name in "ab":
        live.add(name, takes_grants=False).fetch()
    live.machines[0].wants_w = 1900.0
    live.rounds(live.allocator(), 140)
    assert [m.holder.grant for m in live.machines] == [None, None]
    assert rows(live) == 0
    view = load_live(live.context, "oslo")
    assert view.last is not None
    assert (view.mode, view.last.record.mode) == (LiveGrants.DRY_RUN, LiveGrants.DRY_RUN)
    assert view.last.record.reached == 2


def test_switched_off_no_more_is_handed_out_and_nodes_go_back(live: LiveWorld) -> None:
    allocator = begin(live)
    live.machines[0].wants_w = 1900.0
    live.rounds(allocator, 60)
    assert live.machines[0].goes_by_w > 1500
    set_mode(live, LiveGrants.OFF)
    allocator.round()
    assert (allocator.sites, rows(live)) == ({}, 0)
    assert [m.speak() for m in live.machines] == [None] * 4
    live.pass_s(61)
    assert all(m.goes_by_w == m.scheduled_w for m in live.machines)
    set_mode(live, LiveGrants.ON)
    live.rounds(allocator, 60)
    assert record_of(live).quiet_for_s > 0


def test_older_agents_count_with_their_schedules(live: LiveWorld) -> None:
    live.make_live_site()
    old = live.add("old", takes_grants=False)
    busy, idle = live.add("busy"), live.add("idle")
    for machine in live.machines:
        machine.fetch()
    allocator = live.allocator()
    old.wants_w = busy.wants_w = 1900.0
    live.rounds(allocator, 150)
    assert old.goes_by_w == old.scheduled_w == pytest.approx(BUDGET_W / 3)
    assert busy.goes_by_w > busy.scheduled_w + 300 > idle.goes_by_w
    assert live.commanded_w <= BUDGET_W + 1e-6
    assert record_of(live).reached == 2


def test_a_liar_is_counted_with_what_it_draws_and_named(live: LiveWorld) -> None:
    allocator = begin(live)
    liar, *others = live.machines
    for machine in live.machines:
        machine.wants_w = 1000.0
    liar.lies_by = 1.5
    live.rounds(allocator, 40)
    made = record_of(live)
    assert made.liars == (liar.node.id,)
    assert 1500 + sum(m.goes_by_w for m in others) <= BUDGET_W + 1e-6
    liar.lies_by = 1.0
    live.rounds(allocator, 60)
    assert record_of(live).liars == ()


def test_a_silent_node_keeps_what_it_may_have_and_then_its_schedule(live: LiveWorld) -> None:
    allocator = begin(live)
    silent, busy = live.machines[:2]
    busy.wants_w = 1900.0
    live.rounds(allocator, 60)
    assert silent.goes_by_w < 800
    live.machines.remove(silent)
    for _ in range(30):
        live.rounds(allocator, 5)
        assert live.commanded_w + silent.goes_by_w <= BUDGET_W + 1e-6
    made = record_of(live)
    assert (made.nodes, made.heard) == (4, 3)
    assert silent.goes_by_w == silent.scheduled_w
    assert made.allowed_w >= silent.scheduled_w


def test_nodes_come_and_go(live: LiveWorld) -> None:
    allocator = begin(live, "ab")
    live.machines[0].wants_w = live.machines[1].wants_w = 1900.0
    live.rounds(allocator, 30)
    late = live.add("late")
    late.fetch()
    live.rounds(allocator, 20)
    assert record_of(live).nodes == 3
    for machine in live.machines:
        machine.fetch()
    live.rounds(allocator, 40)
    assert record_of(live).behind == 0
    assert live.commanded_w <= BUDGET_W + 1e-6
    remove_node(live.context, late.node.id)
    live.machines.remove(late)
    for machine in live.machines:
        machine.fetch()
    live.rounds(allocator, 90)
    made = record_of(live)
    assert (made.nodes, made.excess_w) == (2, 0.0)


def test_what_has_not_reached_a_node_counts_as_before(live: LiveWorld) -> None:
    allocator = begin(live)
    now = live.clock.now()
    create_event(live.context, "oslo", EventRequest("dr", now, now + timedelta(minutes=30), 2400.0))
    behind, *others = live.machines
    for machine in others:
        machine.fetch()
    live.rounds(allocator, 5)
    made = record_of(live)
    assert (made.budget_w, made.behind) == (2400.0, 1)
    # 600 W each that follow the new plan, and 1000 W of the one that may not know of it.
    assert made.allowed_w == pytest.approx(2800.0)
    assert made.excess_w == pytest.approx(400.0)
    live.rounds(allocator, 20)
    assert live.commanded_w <= 2400.0 + 1e-6  # a grant has brought it down without the plan
    behind.fetch()
    live.rounds(allocator, 10)
    assert (record_of(live).behind, record_of(live).excess_w) == (0, 0.0)


def test_a_meter_s_surplus_is_kept_off_the_budget(live: LiveWorld) -> None:
    allocator = begin(live)
    for machine in live.machines:
        machine.wants_w = 1900.0
    for _ in range(14):
        drawn_w = sum(m.status().node_power_w for m in live.machines)
        reading = SiteReading(live.clock.now(), drawn_w + 700.0, "grid meter")
        record_readings(live.context, "oslo", [reading])
        live.rounds(allocator, 5)
    other = record_of(live).other_load
    # Of a measured sum less simulated nodes.
    assert (other.origin, other.source) == (Origin.SIMULATED, "grid meter")
    assert record_of(live).draw_origins == (Origin.SIMULATED,)
    assert other.power_w == pytest.approx(700, abs=40)
    assert live.commanded_w == pytest.approx(BUDGET_W - other.power_w, abs=60)
    live.rounds(allocator, 30)
    stale = record_of(live).other_load
    assert (stale.origin, stale.source) == (Origin.MODELLED, "grid meter, stale")
    assert stale.power_w == other.power_w
    assert stale.meter_age_s == 30


def test_what_a_lost_node_drew_under_a_grant_is_not_taken_off_the_meter(live: LiveWorld) -> None:
    allocator = begin(live)
    lost = live.machines[0]

    def rounds(seconds: int) -> None:
        for _ in range(seconds // 5):
            drawn_w = sum(m.status().node_power_w for m in {lost, *live.machines})
            reading = SiteReading(live.clock.now(), drawn_w + 1500.0, "grid meter")
            record_readings(live.context, "oslo", [reading])
            live.rounds(allocator, 5)

    lost.wants_w = 1900.0
    rounds(60)
    assert lost.goes_by_w > 1400 > lost.scheduled_w
    live.machines.remove(lost)
    for machine in live.machines:
        machine.wants_w = 1900.0
    rounds(50)
    assert lost.goes_by_w == lost.scheduled_w
    assert record_of(live).other_load.power_w == pytest.approx(1500, abs=40)
    assert live.commanded_w + lost.goes_by_w + 1500 <= BUDGET_W + 40


def test_without_a_meter_the_stated_load_is_kept_off(live: LiveWorld) -> None:
    live.make_live_site(other_load_w=400.0)
    live.add("a").fetch()
    live.rounds(live.allocator(), 15)
    other = record_of(live).other_load
    assert (other.power_w, other.origin, other.meter_age_s) == (400.0, Origin.MODELLED, None)
