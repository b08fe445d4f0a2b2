"""What a schedule asks of the helper."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.budget import Reason
from pals_grid.core.grant import Grant, Held
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.helper.messages import MAX_HOLDS, Hold, decode_request
from pals_grid.node.holds import AHEAD, AHEAD_LEAST, BeatMaker
from tests.unit.node.conftest import START_AT, make_rig, make_schedule

if TYPE_CHECKING:
    from pals_grid.wire.messages import EnvelopeSchedule

MINUTE = timedelta(minutes=1)


def schedule(*parts: tuple[float, Reason, int | None]) -> EnvelopeSchedule:
    """One minute for each of ``(node's power, reason, event)``."""
    plain = make_schedule(*(power_w for power_w, _, _ in parts))
    intervals = [
        msgspec.structs.replace(item, reason=reason, event_id=event_id)
        for item, (_, reason, event_id) in zip(plain.intervals, parts, strict=True)
    ]
    return msgspec.structs.replace(plain, intervals=intervals)


def test_only_what_binds_the_site_is_held_and_equal_neighbours_are_one() -> None:
    maker = BeatMaker(make_rig().hardware)  # 100 W and 10 % around two GPUs
    held = schedule(
        (760.0, Reason.DEMAND, None),
        (540.0, Reason.EVENT, 7),
        (540.0, Reason.DEMAND, 7),  # the event's cap holds, though it takes no cut
        (320.0, Reason.EVENT, 7),
        (980.0, Reason.GRID_CONNECTION, None),
        (760.0, Reason.SHIFTED_OUT, None),
    )
    beat = maker.beat_at(held, START_AT)
    assert beat.uuids == ["GPU-0", "GPU-1"]
    assert [round(one.limit_w, 6) for one in beat.holds] == [200.0, 100.0, 400.0]
    assert beat.holds[0] == Hold(
        start_at=START_AT + MINUTE, end_at=START_AT + 3 * MINUTE, limit_w=beat.holds[0].limit_w
    )
    assert beat.safe_limit_w == beat.holds[1].limit_w  # inside everything that was granted
    assert beat.lease_until == START_AT + 6 * MINUTE


def test_what_is_past_is_left_out() -> None:
    maker = BeatMaker(make_rig().hardware)
    held = schedule((320.0, Reason.EVENT, 7), (760.0, Reason.DEMAND, None))
    assert maker.beat_at(held, START_AT) is maker.beat_at(held, START_AT + MINUTE / 2)
    later = maker.beat_at(held, START_AT + MINUTE)
    assert later.holds == []
    assert later.safe_limit_w == (760.0 - 100.0) / 1.1 / 2
    past = maker.beat_at(held, START_AT + 2 * MINUTE)
    assert (past.safe_limit_w, past.lease_until) == (None, None)


def test_gpus_that_are_not_steered_count_at_their_highest_limit() -> None:
    hardware = make_rig(engines=2).hardware
    first, second = hardware.units
    bare = EngineUnit("bare", second.engine, second.gpus)
    mixed = NodeHardware("", hardware.origin, (first, bare), hardware.meter, hardware.overhead)
    beat = BeatMaker(mixed).beat_at(schedule((1320.0, Reason.EVENT, 1)), START_AT)
    assert beat.uuids == ["GPU-0", "GPU-1"]
    assert beat.holds[0].limit_w == ((1320.0 - 100.0) / 1.1 - 800.0) / 2


def test_without_a_schedule_nothing_is_held() -> None:
    beat = BeatMaker(make_rig().hardware).beat_at(None, START_AT)
    assert (beat.holds, beat.safe_limit_w, beat.lease_until) == ([], None, None)


def test_a_long_schedule_fits_into_one_message() -> None:
    held = schedule(*((300.0 + i, Reason.EVENT, i) for i in range(500)))
    beat = BeatMaker(make_rig().hardware).beat_at(held, START_AT)
    assert len(beat.holds) == MAX_HOLDS
    assert decode_request(msgspec.json.encode(beat)) == beat


def test_a_clock_that_was_ahead_and_is_set_back_takes_no_hold_away() -> None:
    maker = BeatMaker(make_rig().hardware)
    held = schedule((540.0, Reason.EVENT, 7))
    before = maker.beat_at(held, START_AT)
    assert maker.beat_at(held, START_AT + timedelta(days=400)).holds == []
    assert maker.beat_at(held, START_AT) == before
    assert len(before.holds) == 1


SECOND = timedelta(seconds=1)


def held(power_w: float, lease_s: float = 60.0, sequence: int = 1) -> Held:
    """A grant from monotonic 0 on, where the wall clock shows START_AT."""
    return Held(Grant(1, sequence, power_w, lease_s), lease_s)


def node_w(limit_w: float) -> float:
    return 100.0 + 1.1 * 2 * limit_w


def test_under_a_cut_the_cut_is_held_for_its_lease_whatever_the_schedule_says() -> None:
    maker = BeatMaker(make_rig().hardware)
    plan = schedule((760.0, Reason.DEMAND, None), (540.0, Reason.DEMAND, None))
    beat = maker.beat_at(plan, START_AT, held(450.0), 0.0)
    assert [(one.start_at, one.end_at) for one in beat.holds] == [
        (START_AT + AHEAD, START_AT + 60 * SECOND)
    ]
    assert round(node_w(beat.holds[0].limit_w), 6) == 450.0
    assert beat.safe_limit_w == beat.holds[0].limit_w
    after = maker.beat_at(plan, START_AT + 60 * SECOND, held(450.0), 60.0)
    assert after.holds == []
    assert after.safe_limit_w is not None
    assert round(node_w(after.safe_limit_w), 6) == 540.0


def test_under_a_raise_the_least_that_the_schedule_allows_in_it_is_held() -> None:
    plan = schedule((760.0, Reason.DEMAND, None), (540.0, Reason.DEMAND, None))
    now = START_AT + MINUTE - 30 * SECOND
    for lease_s, expected_w in ((20.0, 760.0), (40.0, 540.0)):
        maker = BeatMaker(make_rig().hardware)
        beat = maker.beat_at(plan, now, held(1400.0, lease_s), 0.0)
        assert round(node_w(beat.holds[0].limit_w), 6) == expected_w
    # The schedule ends within the lease: then its safe limit of 900 W, but no more than before.
    maker = BeatMaker(make_rig().hardware)
    beat = maker.beat_at(plan, START_AT + 2 * MINUTE - 10 * SECOND, held(1400.0, 40.0), 0.0)
    assert round(node_w(beat.holds[0].limit_w), 6) == 540.0
    beat = maker.beat_at(plan, START_AT + 3 * MINUTE, held(1400.0, 40.0, 2), 0.0)
    assert round(node_w(beat.holds[0].limit_w), 6) == 900.0


def test_while_a_grant_is_in_force_no_hold_is_active_and_each_begins_soon() -> None:
    maker = BeatMaker(make_rig().hardware)
    plan = schedule(*[(540.0, Reason.EVENT, 7)] * 10)
    grant = held(700.0, 45.0)
    made = []
    for tick in range(240):
        now = START_AT + 0.5 * tick * SECOND
        beat = maker.beat_at(plan, now, grant, 0.5 * tick)
        made.append(beat)
        event = max(beat.holds, key=lambda one: one.end_at)
        assert event.end_at == START_AT + 10 * MINUTE
        assert event.start_at <= now + AHEAD
        if 0.5 * tick < 45.0:
            assert event.start_at >= now + AHEAD_LEAST
            (lent,) = (one for one in beat.holds if one is not event)
            assert lent.start_at == min(event.start_at, lent.end_at - SECOND)
    told = sum(one is not before for before, one in itertools.pairwise(made))
    assert told <= 45 / 6 + 4  # each is a write to the helper's disk
    # What was written under the raise is in no hold, not even afterwards.
    event = max(made[-1].holds, key=lambda one: one.end_at)
    assert event.start_at > START_AT + 45 * SECOND


def test_a_new_grant_is_told_at_once() -> None:
    maker = BeatMaker(make_rig().hardware)
    plan = schedule((760.0, Reason.DEMAND, None))
    first, second = held(450.0), held(400.0, 60.0, 2)
    before = maker.beat_at(plan, START_AT, first, 0.0)
    assert maker.beat_at(plan, START_AT + SECOND, first, 1.0) is before
    after = maker.beat_at(plan, START_AT + SECOND, second, 1.0)
    assert after.holds[0].limit_w < before.holds[0].limit_w


def test_a_wall_clock_that_jumps_moves_no_lease() -> None:
    maker = BeatMaker(make_rig().hardware)
    plan = schedule(*[(760.0, Reason.DEMAND, None)] * 600)
    grant = held(450.0)
    maker.beat_at(plan, START_AT, grant, 0.0)
    for jump in (timedelta(hours=5), timedelta(0)):
        beat = maker.beat_at(plan, START_AT + jump, grant, 10.0)
        assert [one.end_at for one in beat.holds] == [START_AT + jump + 50 * SECOND]


def test_an_old_helper_reads_a_beat_with_a_grant() -> None:
    plan = schedule(*((300.0 + i, Reason.EVENT, i) for i in range(500)))
    beat = BeatMaker(make_rig().hardware).beat_at(plan, START_AT, held(250.0), 0.0)
    assert len(beat.holds) == MAX_HOLDS
    assert beat.holds[0].end_at == START_AT + 60 * SECOND  # the grant is not what is left out
    assert decode_request(msgspec.json.encode(beat)) == beat
