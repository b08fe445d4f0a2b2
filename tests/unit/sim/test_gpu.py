from __future__ import annotations

import math

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import ClockLock, ClockRange, PowerLimitRange
from pals_grid.sim.gpu import CLOCK_STEP_S, STEP_DOWN_S, STEP_UP_S, Reading, SimGpu


class _Plant:
    """A constant 200 W on one GPU, with a settable time."""

    def __init__(self, reading: Reading | None = None) -> None:
        self.now_s = 0.0
        self.gpu = SimGpu(
            "SIM-0",
            "A100",
            PowerLimitRange(100, 400, 400),
            1.0,
            lambda: self.now_s,
            clock_range=ClockRange(210, 1410),
            reading=reading,
        )
        self.gpu.power_w = 200.0

    def run(self, seconds: float, power_w: float = 200.0) -> None:
        self.now_s += seconds
        self.gpu.draw(self.now_s, seconds, self.gpu.energy_j + power_w * seconds)
        self.gpu.change(self.now_s)


@pytest.mark.parametrize(
    ("asked_w", "outcome", "held_w"),
    [
        (250.0, Outcome.APPLIED, 250.0),
        (50.0, Outcome.CLAMPED, 100.0),
        (900.0, Outcome.CLAMPED, 400.0),
        (math.nan, Outcome.REFUSED, 400.0),
        (math.inf, Outcome.REFUSED, 400.0),
    ],
)
def test_a_limit_is_held_clamped_or_refused(
    asked_w: float, outcome: Outcome, held_w: float
) -> None:
    gpu = _Plant().gpu
    result = gpu.apply_power_limit(asked_w)
    assert (result.outcome, result.read_back) == (outcome, held_w)
    assert gpu.observe().power_limit_w == held_w


def test_a_step_down_is_fast_and_a_step_up_slow() -> None:
    plant = _Plant()
    plant.gpu.apply_power_limit(150.0)
    assert plant.gpu.effective_limit_w == 400.0
    plant.run(STEP_DOWN_S)
    assert plant.gpu.effective_limit_w == 150.0
    plant.gpu.apply_power_limit(300.0)
    plant.run(STEP_DOWN_S)
    assert plant.gpu.effective_limit_w == 150.0
    plant.run(STEP_UP_S / 2)
    assert 150.0 < plant.gpu.effective_limit_w < 300.0
    plant.run(STEP_UP_S)
    assert plant.gpu.effective_limit_w == 300.0
    assert plant.gpu.next_change_s == math.inf


def test_a_step_up_follows_the_measured_one() -> None:
    """V100, 200 to 280 W: 198 W at +0.1 s, 240 at +0.2, 265 at +0.33, 275 at +0.5."""
    plant = _Plant()
    plant.gpu.apply_power_limit(200.0)
    plant.run(1.0)
    plant.gpu.apply_power_limit(280.0)
    seen = []
    for step_s in (0.1, 0.1, 0.13, 0.17):
        plant.run(step_s)
        seen.append(plant.gpu.effective_limit_w)
    assert seen == pytest.approx([200.0, 240.0, 267.0, 275.0], abs=2.0)


def test_the_same_limit_again_does_not_start_the_way_anew() -> None:
    plant = _Plant()
    plant.gpu.apply_power_limit(100.0)
    plant.run(1.0)
    plant.gpu.apply_power_limit(300.0)
    plant.run(STEP_UP_S - 0.01)
    plant.gpu.apply_power_limit(300.0)
    plant.run(0.02)
    assert plant.gpu.effective_limit_w == 300.0


def test_the_draw_is_a_mean_since_the_last_look_and_agrees_with_the_counter() -> None:
    plant = _Plant()
    assert plant.gpu.observe().power_draw_w == 200.0
    plant.run(0.5, 300.0)
    sample = plant.gpu.observe()
    assert sample.power_draw_w == pytest.approx(300.0)
    assert sample.energy_j == 150.0
    plant.run(0.01)
    assert plant.gpu.observe().power_draw_w == pytest.approx(300.0)


@pytest.mark.parametrize(
    ("asked_mhz", "outcome", "held_mhz"),
    [
        (900.0, Outcome.APPLIED, 900.0),
        (None, Outcome.APPLIED, 1410.0),
        (50.0, Outcome.CLAMPED, 210.0),
        (9000.0, Outcome.CLAMPED, 1410.0),
        (math.nan, Outcome.REFUSED, 1410.0),
    ],
)
def test_a_clock_lock_is_held_clamped_or_refused(
    asked_mhz: float | None, outcome: Outcome, held_mhz: float
) -> None:
    gpu = _Plant().gpu
    assert isinstance(gpu, ClockLock)
    result = gpu.apply_clock_limit(asked_mhz)
    assert (result.outcome, result.read_back) == (outcome, held_mhz)


def test_a_clock_lock_acts_after_its_delay_and_goes_when_released() -> None:
    plant = _Plant()
    seen: list[float | None] = []
    plant.gpu.apply_clock_limit(900.0)
    for part in (0.5, 1.0):
        plant.run(CLOCK_STEP_S * part)
        seen.append(plant.gpu.effective_lock_mhz)
    assert plant.gpu.apply_clock_limit(math.inf).read_back == 900.0
    plant.gpu.apply_clock_limit(None)
    plant.run(CLOCK_STEP_S * 2)
    assert [*seen, plant.gpu.effective_lock_mhz] == [None, 900.0, None]
    assert plant.gpu.next_change_s == math.inf


def test_an_averaging_sensor_lags_and_a_counter_moves_in_steps() -> None:
    plant = _Plant(Reading(average_s=1.0, counter_s=0.1))
    for power_w in [100.0] * 20 + [300.0] * 5:
        plant.run(0.1, power_w)
    sample = plant.gpu.observe()
    assert sample.power_draw_w == pytest.approx(200.0)
    assert sample.energy_j == pytest.approx(20 * 10.0 + 5 * 30.0)
    plant.run(0.05, 300.0)
    assert plant.gpu.observe().energy_j == pytest.approx(350.0)
    for _ in range(10):
        plant.run(0.1, 300.0)
    assert plant.gpu.observe().power_draw_w == pytest.approx(300.0)


@pytest.mark.parametrize("reading", [{"average_s": 0.01}, {"counter_s": -1.0}])
def test_an_impossible_sensor_is_refused(reading: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(reading))):
        Reading(**reading)
