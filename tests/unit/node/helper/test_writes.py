"""What the helper writes and refuses to write, and the record of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import InvalidValue
from pals_grid.node import restore
from pals_grid.node.helper.bounds import Bounds, RateLimit
from tests.unit.node.helper.rig import audit_lines, beat, record_audit

if TYPE_CHECKING:
    from tests.unit.node.helper.rig import HelperRig


def test_the_original_is_on_the_disk_before_the_first_write(
    rig: HelperRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    rig.keeper.take("agent")
    with monkeypatch.context() as patch:
        patch.setattr(restore, "write_durably", full)
        result = rig.keeper.set_power_limit("a", 200.0)
        clock = rig.keeper.set_clock_limit("a", 900.0)
    assert (result.outcome, rig.a.writes) == (Outcome.REFUSED, [])
    assert "No space left" in result.detail
    assert (clock.outcome, rig.a.clock_writes) == (Outcome.REFUSED, [])
    assert rig.keeper.set_power_limit("a", 200.0).outcome is Outcome.APPLIED
    assert rig.journal == {"a": 350.0}


def test_a_limit_stays_inside_the_operators_bounds(rig: HelperRig) -> None:
    rig.bounds = Bounds(min_power_w=150.0, max_power_w=250.0)
    keeper = rig.start()
    keeper.take("agent")
    high, low = keeper.set_power_limit("a", 380.0), keeper.set_power_limit("b", 110.0)
    assert [(r.outcome, r.requested, r.read_back) for r in (high, low)] == [
        (Outcome.CLAMPED, 380.0, 250.0),
        (Outcome.CLAMPED, 110.0, 150.0),
    ]
    assert high.detail == "the bound is 250 W"
    keeper.release()
    assert rig.limits_w == (350.0, 300.0)  # what was there before may be above the bound


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidValue, match="max_power_w"):
        Bounds(min_power_w=300.0, max_power_w=200.0)
    with pytest.raises(InvalidValue, match="writes_per_s"):
        Bounds(writes_per_s=math.nan)


def test_a_gpu_that_is_not_on_the_list_is_never_written(rig: HelperRig) -> None:
    rig.keeper.take("agent")
    for result in (
        rig.keeper.set_power_limit("c", 200.0),
        rig.keeper.set_clock_limit("c", 900.0),
        rig.keeper.set_clock_limit("b", 900.0),
    ):
        assert result.outcome is Outcome.REFUSED
        assert result.detail


def test_writes_are_limited_per_gpu_and_knob(rig: HelperRig) -> None:
    rig.keeper.take("agent")
    results = [rig.keeper.set_power_limit("a", 200.0 + i) for i in range(20)]
    refused = [result for result in results if result.outcome is Outcome.REFUSED]
    assert len(refused) == 12  # of a burst of 8
    assert refused[0].retry_after_s == pytest.approx(0.25)
    assert rig.keeper.set_power_limit("b", 200.0).outcome is Outcome.APPLIED
    assert rig.keeper.set_clock_limit("a", 900.0).outcome is Outcome.APPLIED
    rig.clock.step(0.25)
    assert rig.keeper.set_power_limit("a", 200.0).outcome is Outcome.APPLIED


@settings(deadline=None)
@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_second_has_more_writes_than_burst_and_rate_allow(pauses: list[float]) -> None:
    limit, now_s, taken = RateLimit(4.0, 8.0), 0.0, []
    for pause in pauses:
        now_s += pause
        if limit.wait_s("gpu", now_s) == 0:
            taken.append(now_s)
    for first in taken:
        assert sum(first <= one < first + 1 for one in taken) <= 8 + 4


def test_every_write_leaves_one_line_with_its_cause(
    rig: HelperRig, caplog: pytest.LogCaptureFixture
) -> None:
    record_audit(caplog)
    rig.steer(200.0, 210.0, beat=beat())
    rig.keeper.set_clock_limit("a", 900.0)
    rig.keeper.set_power_limit("c", 1.0)
    rig.keeper.lose()
    rig.wait(11)
    told = [(line["what"], line["gpu"], line["requested"], line["outcome"], line["cause"])
            for line in audit_lines(caplog)]  # fmt: skip
    assert told == [
        ("power_limit_w", "a", 200.0, "applied", "agent"),
        ("power_limit_w", "b", 210.0, "applied", "agent"),
        ("sm_clock_mhz", "a", 900.0, "applied", "agent"),
        ("power_limit_w", "c", 1.0, "refused", "agent"),
        ("sm_clock_release", "a", 1410.0, "applied", "no agent"),
        ("power_limit_w", "a", 350.0, "applied", "no agent"),
        ("power_limit_w", "b", 300.0, "applied", "no agent"),
    ]


def test_refusals_cannot_push_the_writes_out_of_the_record(
    rig: HelperRig, caplog: pytest.LogCaptureFixture
) -> None:
    record_audit(caplog)
    rig.keeper.take("agent")
    for number in range(500):
        rig.keeper.set_power_limit(f"unknown-{number}", 200.0)
    rig.clock.step(10)
    rig.keeper.set_power_limit("c", 200.0)
    told = [(line["gpu"], line["omitted"]) for line in audit_lines(caplog)]
    assert told == [("unknown-0", 0), ("c", 499)]
