from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.budget import Reason
from pals_grid.core.grant import Grant
from pals_grid.node.course import SWITCH_S, Course
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.lease import Lease
from pals_grid.node.report import Mode
from tests.unit.node.conftest import START_AT, StepClock, make_schedule

if TYPE_CHECKING:
    from pals_grid.node.report import ActiveEnvelope

MOST_W = 2000.0


class Site:
    """A course in a test's hands; ``give`` hands it a grant."""

    def __init__(self, *envelope_w: float) -> None:
        self.clock = StepClock()
        self.lease = Lease(None, 777.0)
        if envelope_w:
            self.lease.store(make_schedule(*envelope_w))
        self.live = LiveGrants(GrantFile(None), self.clock)
        self.course = Course(self.lease, self.clock, self.live, MOST_W)
        self._sequence = 0

    def give(self, power_w: float, lease_s: float = 20.0) -> None:
        self._sequence += 1
        grant = Grant(1, self._sequence, power_w, lease_s)
        assert self.live.take(grant, self.clock.monotonic_s())

    def now(self) -> ActiveEnvelope:
        return self.course.envelope_at(self.clock.now())

    @property
    def power_w(self) -> float:
        return self.now().power_max_w


def test_without_grants_it_is_the_schedule() -> None:
    site = Site(1000.0, 800.0)
    for _ in range(150):
        assert site.now() == site.lease.envelope_at(site.clock.now())
        site.clock.step(1.0)
    assert Course(Lease(None, 777.0), site.clock).envelope_at(START_AT).power_max_w == 777.0


def test_a_grant_replaces_the_schedules_power_while_its_lease_holds_and_nothing_else() -> None:
    site = Site(1000.0)
    scheduled = site.now()
    for power_w in (1400.0, 600.0):
        site.give(power_w)
        found = site.now()
        assert found.power_max_w == power_w
        assert (found.version, found.mode, found.reason, found.target_tokens_per_s) == (
            scheduled.version,
            Mode.FOLLOWING,
            scheduled.reason,
            scheduled.target_tokens_per_s,
        )
    site.clock.step(19.9)
    assert site.power_w == 600.0
    site.clock.step(0.1)
    assert site.power_w == 1000.0
    assert site.now().held is not None  # it is still what the node has


def test_the_least_power_is_never_above_the_most() -> None:
    site = Site()
    plain = make_schedule(1000.0)
    interval = msgspec.structs.replace(plain.intervals[0], power_min_w=500.0)
    site.lease.store(msgspec.structs.replace(plain, intervals=[interval]))
    site.give(300.0)
    assert (site.now().power_min_w, site.power_w) == (300.0, 300.0)


def test_no_grant_lifts_a_node_above_its_most() -> None:
    site = Site(1000.0)
    site.give(5000.0)
    assert site.power_w == MOST_W
    site.lease.store(make_schedule(3000.0, version=2))
    assert site.power_w == MOST_W
    site.clock.step(SWITCH_S)
    assert site.power_w == 3000.0  # a schedule may
    site.give(500.0)
    assert site.power_w == 500.0


def test_when_the_schedule_has_run_out_a_grant_still_holds() -> None:
    site = Site(1000.0)
    site.clock.step(70.0)
    assert site.power_w == 900.0
    site.give(1400.0)
    assert (site.power_w, site.now().mode) == (1400.0, Mode.SAFE)
    site.clock.step(20.0)
    assert site.power_w == 900.0


def test_while_nodes_switch_the_lesser_of_both_schedules_holds() -> None:
    site = Site(1000.0)
    site.lease.store(make_schedule(1500.0, version=2))
    assert (site.power_w, site.now().version) == (1000.0, 2)
    site.clock.step(SWITCH_S - 0.1)
    assert site.power_w == 1000.0
    site.clock.step(0.1)
    assert site.power_w == 1500.0


def test_a_cut_by_a_new_schedule_acts_at_once() -> None:
    site = Site(1000.0)
    site.lease.store(make_schedule(400.0, version=2))
    assert site.power_w == 400.0
    site.lease.store(make_schedule(1200.0, version=3))
    assert site.power_w == 400.0  # somebody may still go by either of them
    site.clock.step(SWITCH_S)
    assert site.power_w == 1200.0


def test_where_only_one_schedule_holds_it_counts() -> None:
    site = Site(1000.0)
    site.clock.step(70.0)
    new = make_schedule(1500.0, 1500.0, 1500.0, version=2)
    site.lease.store(new)
    assert site.power_w == 1500.0  # the old one has run out
    site.clock.step(50.0)
    site.lease.store(make_schedule(1000.0, version=3))
    assert (site.power_w, site.now().mode) == (900.0, Mode.SAFE)  # the new one has


def test_the_same_schedule_again_changes_nothing() -> None:
    site = Site(1000.0)
    site.give(1400.0)
    site.lease.store(make_schedule(1000.0))
    assert site.power_w == 1400.0


def test_a_new_schedule_that_takes_power_away_ends_what_was_lent_before_it() -> None:
    site = Site(1000.0)
    site.give(1400.0, 60.0)
    assert site.power_w == 1400.0
    site.lease.store(make_schedule(500.0, version=2))
    assert site.power_w == 500.0
    site.clock.step(5.0)
    assert site.power_w == 500.0
    site.give(700.0)  # made with the new schedule in mind
    assert site.power_w == 700.0


def test_a_new_schedule_that_gives_power_ends_no_raise() -> None:
    site = Site(1000.0)
    site.give(1400.0, 60.0)
    site.lease.store(make_schedule(1100.0, version=2))
    assert site.power_w == 1400.0


def test_an_event_or_a_grant_binds() -> None:
    site = Site(1000.0)
    assert not site.course.is_binding_at(site.clock.now())
    site.give(900.0)
    assert site.course.is_binding_at(site.clock.now())
    site.clock.step(20.0)
    assert not site.course.is_binding_at(site.clock.now())
    plain = make_schedule(1000.0)
    event = msgspec.structs.replace(plain.intervals[0], reason=Reason.EVENT)
    site.lease.store(msgspec.structs.replace(plain, intervals=[event]))
    assert site.course.is_binding_at(site.clock.now())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0.1, 15)),
        st.tuples(st.just("plan"), st.floats(100, 3000)),
        st.tuples(st.just("grant"), st.floats(0, 3000)),
    ),
    max_size=25,
)


@given(steps)
def test_it_is_never_above_what_it_was_allowed(played: list[tuple[str, float]]) -> None:
    site = Site(*[1000.0] * 10)
    newest_w, lent_w, lent_until_s = 1000.0, 0.0, 0.0
    for version, (what, value) in enumerate(played, start=2):
        if what == "wait":
            site.clock.step(value)
        elif what == "plan":
            site.lease.store(make_schedule(*[value] * 10, version=version))
            newest_w = value
        else:
            site.give(value)
            lent_w, lent_until_s = value, site.clock.monotonic_s() + 20.0
        found = site.now()
        lent = site.clock.monotonic_s() < lent_until_s
        allowed_w = lent_w if lent else newest_w
        assert found.power_max_w <= max(newest_w, min(allowed_w, MOST_W)) + 1e-9
        if lent and lent_w < newest_w:
            assert found.power_max_w <= lent_w
        assert found.power_min_w <= found.power_max_w


def test_clocks_wall_time_moves_no_lease() -> None:
    site = Site(*[1000.0] * 60)
    site.give(1400.0)
    site.clock.at = site.clock.at.replace(minute=30)
    assert site.power_w == 1400.0
    site.clock.step(20.0)
    assert site.power_w == pytest.approx(1000.0)
