"""How the original limits come back when the agent goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.node.helper.rig import ORIGINALS, beat, hold

if TYPE_CHECKING:
    from tests.unit.node.helper.rig import HelperRig


def test_without_an_event_the_originals_come_back_after_the_grace_time(rig: HelperRig) -> None:
    rig.steer(200.0, 210.0, beat=beat())
    rig.keeper.set_clock_limit("a", 900.0)
    rig.keeper.lose()
    assert rig.wait(9.5) == (200.0, 210.0)
    assert rig.wait(1.0) == (350.0, 300.0)
    assert rig.a.lock_mhz is None
    assert rig.journal == {}


def test_an_agent_that_starts_again_in_time_sees_no_spike(rig: HelperRig) -> None:
    rig.steer(200.0, 210.0, beat=beat())
    rig.keeper.lose()
    rig.wait(5)
    rig.steer(200.0, 210.0, beat=beat())
    assert rig.wait(60) == (200.0, 210.0)
    assert 350.0 not in rig.a.writes
    assert rig.journal == ORIGINALS


def test_an_agent_that_says_nothing_is_silent(rig: HelperRig) -> None:
    rig.steer(200.0, 210.0, beat=beat())
    rig.clock.step(10.0)
    assert not rig.keeper.is_silent()
    rig.clock.step(0.5)
    assert rig.keeper.is_silent()
    rig.keeper.hear()
    assert not rig.keeper.is_silent()


def test_a_stop_in_order_restores_unless_an_event_is_active(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat())
    assert rig.keeper.close() == ()
    assert rig.limits_w == (350.0, 300.0)
    rig.start()
    rig.steer(180.0, 240.0, beat=beat(hold(0, 60)))
    assert rig.keeper.close() == ()
    assert rig.limits_w == (180.0, 240.0)
    assert rig.journal == ORIGINALS
    rig.clock.step(61)
    assert rig.start().close() == ()  # as `helper restore` does
    assert rig.limits_w == (350.0, 300.0)


def test_a_gpu_that_cannot_be_restored_now_is_tried_again(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat())
    rig.keeper.lose()
    rig.b.lost = True
    assert rig.wait(11)[0] == 350.0
    assert rig.journal == {"b": 300.0}
    rig.b.lost = False
    assert rig.wait(31) == (350.0, 300.0)
    assert rig.journal == {}
