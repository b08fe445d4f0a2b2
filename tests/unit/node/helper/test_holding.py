"""How the helper keeps an event's limits without an agent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.node.files import write_durably
from pals_grid.node.helper import leases
from pals_grid.node.helper.bounds import Bounds
from tests.unit.node.conftest import START_AT
from tests.unit.node.helper.rig import ORIGINALS, beat, hold

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.node.helper.rig import HelperRig


@pytest.mark.parametrize("how", ["lost", "released"])
def test_in_an_event_the_limits_stay_to_its_end_and_only_then_come_back(
    rig: HelperRig, how: str
) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(-60, 120, limit_w=200.0)))
    if how == "lost":
        rig.keeper.lose()
    else:
        assert rig.keeper.release() == ()
    assert rig.wait(119.5) == (180.0, 240.0)  # as they were, not the same for both
    assert rig.a.writes == [180.0]
    assert rig.wait(0.5) == (350.0, 300.0)
    assert rig.journal == {}


def test_an_event_that_begins_without_an_agent_is_followed(rig: HelperRig) -> None:
    rig.steer(250.0, 250.0, beat=beat(hold(60, 120, 150.0), hold(120, 180, 120.0)))
    rig.keeper.lose()
    assert rig.wait(59) == (350.0, 300.0)
    assert rig.wait(1.5) == (150.0, 150.0)
    assert rig.journal == ORIGINALS
    assert rig.wait(60) == (120.0, 120.0)
    assert rig.wait(60) == (350.0, 300.0)


def test_holding_never_raises_a_limit(rig: HelperRig) -> None:
    rig.keeper.take("agent")
    rig.keeper.beat(beat(hold(0, 60, limit_w=330.0)))
    rig.keeper.lose()
    rig.wait(30)
    assert rig.limits_w == (330.0, 300.0)
    assert rig.b.writes == []


def test_a_limit_that_somebody_raises_in_a_hold_is_lowered_again(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(0, 600)))
    rig.keeper.lose()
    rig.wait(10)
    rig.a.limit_w = 400.0
    rig.b.limit_w = 120.0
    assert rig.wait(5.5) == (180.0, 120.0)


def test_a_gpu_that_is_lost_in_a_hold_stops_no_other(rig: HelperRig) -> None:
    rig.keeper.take("agent")
    rig.keeper.beat(beat(hold(0, 60, 150.0)))
    rig.a.lost = True
    rig.keeper.lose()
    rig.keeper.look()
    assert rig.b.limit_w == 150.0
    rig.a.lost = False
    assert rig.wait(6) == (150.0, 150.0)


def test_only_what_changed_is_written_to_the_disk(
    rig: HelperRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[bytes] = []
    monkeypatch.setattr(leases, "write_durably", lambda _, content: saved.append(content))
    rig.keeper.take("agent")
    for _ in range(100):
        rig.keeper.beat(beat(hold(60, 120), safe_w=110.0, lease_s=3600))
        rig.clock.step(1)
    assert len(saved) == 2  # and once more when the hold began


def test_an_agent_that_hung_before_an_event_began_holds_nothing_above_its_share(
    rig: HelperRig,
) -> None:
    rig.steer(350.0, 340.0, beat=beat(hold(5, 120)))
    rig.clock.step(11)
    assert rig.keeper.is_silent()
    rig.keeper.lose()
    assert rig.wait(1) == (200.0, 200.0)


def test_a_hold_goes_no_lower_than_the_operators_bound(rig: HelperRig) -> None:
    rig.bounds = Bounds(min_power_w=150.0)
    rig.start()
    rig.steer(300.0, 300.0, beat=beat(hold(5, 120, 0.0)))
    rig.keeper.lose()
    assert rig.wait(7) == (150.0, 150.0)


def test_an_agent_without_a_schedule_takes_no_hold_away(rig: HelperRig) -> None:
    rig.steer(180.0, 180.0, beat=beat(hold(-60, 120), lease_s=600))
    rig.keeper.lose()
    rig.keeper.take("agent")
    rig.keeper.beat(beat())
    rig.keeper.lose()
    assert rig.wait(60) == (180.0, 180.0)
    rig.keeper.take("agent")
    rig.keeper.beat(beat(lease_s=600))  # one that knows that the event was cancelled
    rig.keeper.lose()
    assert rig.wait(11) == (350.0, 300.0)


def test_a_clock_set_back_beside_a_living_agent_counts_at_once(rig: HelperRig) -> None:
    said = beat(hold(-60, 120), lease_s=600)
    rig.clock.at += timedelta(days=400)
    rig.steer(180.0, 180.0, beat=said)
    rig.clock.at -= timedelta(days=400)
    rig.keeper.beat(said)
    rig.keeper.lose()
    assert rig.wait(60) == (180.0, 180.0)


def test_no_hold_outlives_what_a_schedule_can_reach(rig: HelperRig) -> None:
    days = 86_400.0
    far = [hold(0, 400 * days), hold(9 * days, 10 * days)]
    rig.steer(200.0, 210.0, beat=beat(*far))
    assert rig.keeper.held_until == START_AT + timedelta(days=8)
    rig.keeper.lose()
    assert rig.wait(60) == (200.0, 210.0)
    rig.clock.step(8 * days)
    assert rig.wait(60) == (350.0, 300.0)


@pytest.mark.parametrize("how", ["lost", "released", "stopped"])
def test_a_hold_that_begins_soon_lifts_no_limit_before_it(rig: HelperRig, how: str) -> None:
    rig.steer(180.0, 390.0, beat=beat(hold(9, 60, limit_w=200.0)))
    if how == "lost":
        rig.keeper.lose()
    elif how == "released":
        assert rig.keeper.release() == ()
        assert rig.keeper.held_until == START_AT + timedelta(seconds=60)
    else:
        assert rig.keeper.close() == ()
    assert rig.wait(8.5) == (180.0, 390.0)
    assert rig.wait(0.5) == (180.0, 200.0)  # what was written before it does not count in it
    assert rig.wait(50.5) == (180.0, 200.0)
    assert rig.wait(1.0) == (350.0, 300.0)
    assert 350.0 not in rig.a.writes[:-1]


def test_a_hold_that_begins_later_delays_no_restore(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(25, 60, limit_w=200.0)))
    assert rig.keeper.release() == ()
    assert rig.limits_w == (350.0, 300.0)


def test_holds_that_always_begin_later_are_never_active_and_hold_after_the_agent(
    rig: HelperRig,
) -> None:
    """As an agent tells them under a grant that lies above its schedule."""
    rig.keeper.take("agent")
    for _ in range(30):
        now_s = (rig.clock.at - START_AT).total_seconds()
        rig.keeper.beat(beat(hold(now_s + 9, 600, limit_w=150.0)))
        rig.keeper.set_power_limit("a", 250.0)
        rig.keeper.set_power_limit("b", 260.0)
        rig.clock.step(1.0)
    rig.keeper.lose()
    assert rig.wait(7.5) == (250.0, 260.0)
    assert rig.wait(1.0) == (150.0, 150.0)


def test_holds_that_only_begin_later_are_not_written_again_and_survive_the_helper(
    rig: HelperRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(path: Path, content: bytes) -> None:
        written.append(content)
        write_durably(path, content)

    monkeypatch.setattr(leases, "write_durably", write)
    rig.keeper.take("agent")
    for seconds in range(30):
        rig.keeper.beat(beat(hold(seconds + 9, 600, limit_w=150.0)))
        rig.keeper.set_power_limit("a", 250.0)
        rig.clock.step(1.0)
    assert len(written) == 1
    rig.keeper.beat(beat(hold(39, 600, limit_w=140.0)))
    assert len(written) == 2
    rig.keeper.beat(beat(hold(35, 600, limit_w=140.0)))  # sooner
    assert len(written) == 3
    rig.keeper.beat(beat(hold(45, 600, limit_w=140.0)))
    assert len(written) == 3
    rig.start()  # it dies, and the agent with it
    assert rig.wait(4.5) == (250.0, 300.0)
    assert rig.wait(0.5) == (140.0, 140.0)
