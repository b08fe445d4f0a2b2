from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.core.site import LiveGrants
from pals_grid.service.live.views import load_live
from pals_grid.store.grants import GrantRow, PowerGrantRepository
from pals_grid.store.site_leases import LEASE_S
from tests.unit.service.live.live_world import QUIET_S, record_of

if TYPE_CHECKING:
    from pals_grid.service.live.allocating import LiveAllocator
    from tests.unit.service.live.live_world import LiveWorld


def make_sites(live: LiveWorld, count: int) -> None:
    for i in range(count):
        live.make_live_site(f"s{i}")


def held(*allocators: LiveAllocator) -> list[int]:
    return [len(one.sites) for one in allocators]


def test_replicas_that_start_together_share_the_sites(live: LiveWorld) -> None:
    make_sites(live, 5)
    both = [live.allocator(name) for name in "ab"]
    for _ in range(3):
        for one in both:
            one.round()
        live.pass_s(5)
    assert sorted(held(*both)) == [2, 3]
    assert not set(both[0].sites) & set(both[1].sites)


def test_a_replica_that_comes_later_gets_its_share_bit_by_bit(live: LiveWorld) -> None:
    make_sites(live, 6)
    first, later = live.allocator("first"), live.allocator("later")
    for _ in range(2):
        first.round()
    assert held(first) == [6]
    for _ in range(6):
        later.round()
        first.round()
        live.pass_s(5)
    assert held(first, later) == [3, 3]


def test_the_sites_of_a_dead_replica_are_taken_with_a_higher_epoch(live: LiveWorld) -> None:
    live.make_live_site()
    live.add("x").fetch()
    dead, heir = live.allocator("dead"), live.allocator("heir")
    for _ in range(2):
        dead.round()
    before = load_live(live.context, "oslo").last
    assert before is not None
    heir.round()
    heir.round()
    assert held(heir) == [0]
    live.pass_s(LEASE_S + 1)
    heir.round()
    after = load_live(live.context, "oslo").last
    assert after is not None
    assert (after.holder, after.epoch > before.epoch) == ("heir", True)
    assert after.record.quiet_for_s == pytest.approx(heir.sites[1].book.rules.horizon_s)
    dead.round()
    assert held(dead, heir) == [0, 1]


def test_a_replica_that_stops_in_order_is_followed_at_once(live: LiveWorld) -> None:
    live.make_live_site()
    first, second = live.allocator("first"), live.allocator("second")
    for _ in range(2):
        first.round()
        second.round()
    assert held(first, second) == [1, 0]
    first.stop()
    second.round()
    assert held(second) == [1]


def test_a_grant_of_an_epoch_that_is_over_is_not_written(live: LiveWorld) -> None:
    live.make_live_site()
    node_id = live.add("x").node.id
    old, heir = live.allocator("old"), live.allocator("heir")
    for _ in range(2):
        old.round()
    epoch = old.sites[1].epoch

    def write(holder: str, epoch: int, sequence: int) -> int:
        row = GrantRow(node_id, 1, epoch, sequence, 500.0, 20.0, 2e9)
        with live.database.begin() as connection:
            return PowerGrantRepository(connection).write(holder, [row])

    assert write("old", epoch, 1) == 1
    assert write("old", epoch, 1) == 0  # not newer than what is there
    assert write("old", epoch - 1, 9) == 0
    assert write("heir", epoch, 2) == 0
    live.pass_s(LEASE_S + 1)
    heir.round()
    heir.round()
    assert write("old", epoch, 2) == 0
    assert write("heir", heir.sites[1].epoch, 1) == 1


def test_who_hung_through_a_takeover_hands_out_nothing_more(live: LiveWorld) -> None:
    live.make_live_site()
    machines = [live.add(name) for name in "ab"]
    for machine in machines:
        machine.fetch()
    hung, heir = live.allocator("hung"), live.allocator("heir")
    live.rounds(hung, 10 + QUIET_S)
    machines[0].wants_w = 1900.0
    live.rounds(hung, 30)
    view = hung._look()[1]  # its round has read, and then the process is stopped
    rows, _ = hung.sites[1].round(view)
    live.pass_s(LEASE_S + 1)
    live.rounds(heir, 10)
    with live.database.begin() as connection:
        assert PowerGrantRepository(connection).write("hung", rows) == 0
    hung.round()
    assert held(hung, heir) == [0, 1]
    for _ in range(30):
        live.rounds(heir, 5)
        assert live.commanded_w <= 4000.0 + 1e-6


@pytest.mark.parametrize("step_s", [-30.0, 30.0, 3600.0])
def test_a_database_clock_that_is_set_makes_all_sites_begin_anew(
    live: LiveWorld, step_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    live.make_live_site()
    machines = [live.add(name) for name in "ab"]
    for machine in machines:
        machine.fetch()
    allocator = live.allocator()
    live.rounds(allocator, 10 + QUIET_S)
    machines[0].wants_w = 1900.0
    live.rounds(allocator, 30)
    epoch = allocator.sites[1].epoch
    live.pass_s(5, database_s=5 + step_s)
    allocator.round()
    assert "clock was set" in caplog.text
    assert allocator.sites[1].epoch > epoch
    with live.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM power_grant")).scalar_one() == 0
    live.rounds(allocator, 20)
    assert record_of(live).quiet_for_s > 40
    assert record_of(live).cuts == 0


def test_a_small_step_of_the_clock_is_inside_the_leases(live: LiveWorld) -> None:
    live.make_live_site()
    allocator = live.allocator()
    live.rounds(allocator, 10)
    epoch = allocator.sites[1].epoch
    live.pass_s(5, database_s=5.4)
    allocator.round()
    assert allocator.sites[1].epoch == epoch


def test_a_round_that_failed_before_it_was_written_costs_nothing_but_time(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.make_live_site()
    machines = [live.add(name) for name in "abc"]
    for machine in machines:
        machine.fetch()
    allocator = live.allocator()
    live.rounds(allocator, 10 + QUIET_S)
    machines[0].wants_w = 1900.0

    def away(*_: object) -> int:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(PowerGrantRepository, "write", away)
        with pytest.raises(ConnectionError):
            live.rounds(allocator, 5)
    for _ in range(30):
        live.rounds(allocator, 5)
        assert live.commanded_w <= 4000.0 + 1e-6
    assert machines[0].goes_by_w > 1700


def test_one_site_s_trouble_does_not_stop_the_others(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_sites(live, 2)
    allocator = live.allocator()
    allocator.round()
    allocator.round()
    monkeypatch.setattr(allocator.sites[1], "round", None)
    live.pass_s(5)
    assert allocator.round().sites == 2
    assert load_live(live.context, "s0").last is not None
    assert "live round of site s0 failed" in caplog.text


def test_sites_without_grants_are_nobody_s(live: LiveWorld) -> None:
    live.make_live_site(mode=LiveGrants.OFF)
    allocator = live.allocator()
    for _ in range(3):
        allocator.round()
    assert held(allocator) == [0]
    assert load_live(live.context, "oslo").last is None
