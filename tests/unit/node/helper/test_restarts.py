"""What the helper does after a crash and a reboot, in whatever order things die."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pals_grid.node.helper.leases import LeaseFile
from pals_grid.node.restore import RestoreFile
from tests.unit.node.helper.rig import ORIGINALS, HelperRig, beat, hold

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.helper.messages import Beat


@pytest.mark.parametrize("agent_first", [True, False])
def test_a_helper_that_dies_in_an_event_goes_on_holding(
    rig: HelperRig, *, agent_first: bool
) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(-60, 120)))
    if agent_first:
        rig.keeper.lose()
    rig.start()
    rig.keeper.look()
    assert rig.limits_w == (180.0, 240.0)
    assert rig.wait(119) == (180.0, 240.0)
    assert rig.wait(1.5) == (350.0, 300.0)


def test_a_helper_that_dies_without_an_event_waits_for_an_agent_and_then_restores(
    rig: HelperRig,
) -> None:
    rig.steer(180.0, 240.0, beat=beat())
    rig.start()
    assert rig.wait(9.5) == (180.0, 240.0)
    assert rig.wait(1.0) == (350.0, 300.0)
    rig.steer(180.0, 240.0, beat=beat())
    rig.start()
    rig.wait(5)
    rig.keeper.take("agent")
    assert rig.wait(60) == (180.0, 240.0)
    assert rig.journal == ORIGINALS


def test_after_a_reboot_an_event_is_held_at_once(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(-60, 120), safe_w=110.0, lease_s=3600))
    rig.reboot()
    rig.keeper.look()
    assert rig.limits_w == (180.0, 240.0)
    assert rig.journal == ORIGINALS
    assert rig.wait(121) == (110.0, 110.0)  # then the lease still runs, and nobody steers


def test_after_a_reboot_the_safe_limit_holds_until_an_agent_is_there(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(safe_w=110.0, lease_s=3600))
    rig.reboot()
    rig.keeper.look()
    assert rig.limits_w == (110.0, 110.0)
    rig.start()  # and dies before an agent came
    assert rig.wait(60) == (110.0, 110.0)
    rig.steer(200.0, 220.0, beat=beat(safe_w=110.0, lease_s=3600))
    rig.keeper.lose()
    assert rig.wait(11) == (350.0, 300.0)


def test_after_a_reboot_a_lease_that_has_ended_asks_for_nothing(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(safe_w=110.0, lease_s=30))
    rig.clock.step(31)
    rig.reboot()
    rig.keeper.look()
    assert rig.limits_w == (400.0, 400.0)
    assert rig.wait(11) == (350.0, 300.0)


def test_a_clock_that_a_reboot_set_back_ends_no_hold_and_skips_none(rig: HelperRig) -> None:
    rig.steer(180.0, 240.0, beat=beat(hold(-60, 120)))
    rig.clock.at -= timedelta(days=400)
    rig.reboot()
    rig.keeper.look()
    assert rig.limits_w == (180.0, 240.0)


def test_leases_that_cannot_be_read_are_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "leases.json"
    path.write_text('{"boot_id": 7}')
    assert LeaseFile(path).record is None
    assert (tmp_path / "leases.json.corrupt-1").read_text() == '{"boot_id": 7}'
    assert "cannot be read" in caplog.text


def test_bytes_that_are_no_text_are_kept_aside_too(tmp_path: Path) -> None:
    for name, load in (("leases.json", LeaseFile), ("original-limits.json", RestoreFile)):
        (tmp_path / name).write_bytes(b'{"boot_id":"\xff","power_limit_w":{"\xff":1}}')
        load(tmp_path / name)
        assert (tmp_path / f"{name}.corrupt-1").exists()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("steer"), st.floats(100, 400), st.floats(100, 400)),
        st.tuples(st.just("wait"), st.floats(0.5, 40)),
        st.sampled_from([("lose",), ("crash",), ("reboot",), ("release",), ("stop",)]),
    ),
    max_size=25,
)


Step = tuple[str, float, float] | tuple[str, float] | tuple[str]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, events=st.lists(st.tuples(st.floats(0, 300), st.floats(5, 100)), max_size=3))
def test_whatever_dies_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[Step],
    events: list[tuple[float, float]],
) -> None:
    """Check that holding raises no limit, no original is lost, and all come back in the end."""
    rig = HelperRig(tmp_path_factory.mktemp("helper"))
    message = beat(*(hold(start, start + length, 200.0) for start, length in events))
    for step in steps:
        _play(rig, step, message)
        journal = rig.journal
        for uuid, found_w in zip("ab", rig.limits_w, strict=True):
            # 400 W is what a reboot leaves. Without an entry nothing of ours may be left.
            assert journal.get(uuid, found_w) in {ORIGINALS[uuid], 400.0}
    rig.keeper.lose()
    rig.clock.at = max([rig.clock.at, *(one.end_at for one in message.holds)])
    rig.wait(60)
    assert rig.journal == {}
    assert set(rig.limits_w) <= {350.0, 300.0, 400.0}


def _play(rig: HelperRig, step: Step, message: Beat) -> None:
    """Let one thing happen."""
    match step:
        case ("steer", *limits_w):
            if rig.keeper.holder is None:
                rig.keeper.take("agent")
            rig.keeper.beat(message)
            for gpu, limit_w in zip((rig.a, rig.b), limits_w, strict=True):
                rig.keeper.set_power_limit(gpu.uuid, float(limit_w))
            rig.keeper.beat(message)
        case ("wait", seconds):
            _wait_and_see(rig, float(seconds))
        case ("crash",):
            rig.start()
        case ("reboot",):
            rig.reboot().look()
        case ("stop",):
            rig.keeper.close()
            rig.start()
        case ("lose",):
            rig.keeper.lose()
        case _:
            rig.keeper.release()


def _wait_and_see(rig: HelperRig, seconds: float) -> None:
    for _ in range(round(seconds / 0.5)):
        before_w, held = rig.limits_w, rig.keeper.held_until
        now_w = rig.wait(0.5)
        if rig.keeper.holder is None and held is not None and rig.keeper.held_until == held:
            assert all(now <= before + 0.5 for now, before in zip(now_w, before_w, strict=True))
