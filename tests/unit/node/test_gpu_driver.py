import logging
import math

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.ports import PowerLimitRange
from pals_grid.node.gpu_driver import (
    REOPEN_S,
    EnergyIntegral,
    OptionalReads,
    Reopening,
    open_each,
    set_power_limit,
)

RANGE = PowerLimitRange(100.0, 400.0, 400.0)


class Time:
    """A clock that a test sets."""

    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def lost() -> str:
    raise DeviceLost("it is gone")


def test_gpus_that_open_are_held_and_the_others_logged(caplog: pytest.LogCaptureFixture) -> None:
    found = open_each({"GPU a": lambda: "a", "GPU b": lost, "GPU c": lambda: None})
    assert found == ("a",)
    assert caplog.messages == ["GPU b is left out until a restart: it is gone"]


def test_a_machine_whose_gpus_all_fail_says_so() -> None:
    with pytest.raises(DeviceLost, match="it is gone"):
        open_each({"GPU a": lost, "GPU b": lambda: None})
    assert open_each({"GPU a": lambda: None}) == ()


@pytest.mark.parametrize(
    ("asked_w", "written_w", "read_w", "outcome"),
    [
        (250.0, 250.0, 250.0, Outcome.APPLIED),
        (250.4, 250.4, 250.0, Outcome.APPLIED),
        (250.0, 250.0, 300.0, Outcome.CLAMPED),
        (1.0, 100.0, 100.0, Outcome.CLAMPED),
        (999_999.0, 400.0, 400.0, Outcome.CLAMPED),
    ],
)
def test_a_limit_is_judged_by_what_reads_back(
    asked_w: float, written_w: float, read_w: float, outcome: Outcome
) -> None:
    written: list[float] = []
    result = set_power_limit(asked_w, RANGE, 0.5, written.append, lambda: read_w)
    assert written == [written_w]
    assert (result.outcome, result.requested, result.read_back) == (outcome, asked_w, read_w)
    shown = f"accepted are 100 to 400 W, {read_w:g} W reads back"
    assert result.detail == ("" if outcome is Outcome.APPLIED else shown)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e6])
def test_a_limit_that_cannot_be_is_never_written(nonsense: float) -> None:
    written: list[float] = []
    result = set_power_limit(nonsense, RANGE, 0.5, written.append, lambda: 0.0)
    assert (result.outcome, result.read_back, written) == (Outcome.REFUSED, None, [])
    assert result.detail == f"power_limit_w: must be above 0, below 1e6, got {nonsense:g}"


def test_a_write_that_fails_is_a_refusal_with_the_driver_s_words() -> None:
    def write(_: float) -> None:
        raise DevicePermission("needs root")

    result = set_power_limit(200.0, RANGE, 0.5, write, lambda: 400.0)
    assert (result.outcome, result.read_back, result.detail) == (
        Outcome.REFUSED,
        None,
        "needs root",
    )


def test_a_lost_gpu_is_reopened_but_not_at_every_look() -> None:
    clock = Time()
    reopening = Reopening(clock)
    answers = [False, False, False, False, True]
    reopened: list[float] = []

    def observe() -> str:
        return "seen" if answers.pop(0) else lost()

    def look() -> str:
        return reopening.look(observe, lambda: reopened.append(clock.now_s))

    with pytest.raises(DeviceLost):
        look()
    assert (reopened, len(answers)) == ([50.0], 3)
    clock.now_s += REOPEN_S - 0.5
    with pytest.raises(DeviceLost):
        look()
    assert (reopened, len(answers)) == ([50.0], 2)
    clock.now_s += 0.5
    assert look() == "seen"
    assert reopened == [50.0, 55.0]


def test_power_becomes_energy_in_straight_lines() -> None:
    clock = Time()
    integral = EnergyIntegral(clock)
    assert integral.add(100.0) == 0.0
    clock.now_s += 2.0
    assert integral.add(200.0) == 300.0
    clock.now_s += 0.5
    assert integral.add(200.0) == 400.0


def test_what_a_board_lacks_is_asked_once_and_what_fails_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[DeviceError | float] = [DeviceUnsupported("never"), DeviceError("not now"), 7.0]

    def ask() -> float:
        answer = answers.pop(0)
        if isinstance(answer, DeviceError):
            raise answer
        return answer

    reads = OptionalReads("GPU-1")
    with caplog.at_level(logging.DEBUG):
        found = [reads.read(name, ask) for name in ("fan", "fan", "clock", "clock")]
    assert found == [None, None, None, 7.0]
    assert answers == []
    assert caplog.messages == ["GPU GPU-1: not now"]
    with pytest.raises(DeviceLost):
        reads.read("clock", lost)
