from __future__ import annotations

import math

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.ports import PowerLimitRange
from pals_grid.sim.gpu import STEP_DOWN_S, STEP_UP_S, SimGpu


class _Plant:
    """A constant 200 W on one GPU, with a settable time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.gpu = SimGpu("SIM-0", "A100", PowerLimitRange(100, 400, 400), 1.0, lambda: self.now_s)
        self.gpu.power_w = 200.0

    def run(self, seconds: float) -> None:
        self.now_s += seconds
        self.gpu.energy_j += 200.0 * seconds
        self.gpu.climb(self.now_s)


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
    assert plant.gpu.next_stair_s == math.inf


def test_the_draw_is_a_mean_since_the_last_look_and_agrees_with_the_counter() -> None:
    plant = _Plant()
    assert plant.gpu.observe().power_draw_w == 200.0
    plant.run(0.5)
    plant.gpu.energy_j += 50.0
    sample = plant.gpu.observe()
    assert sample.power_draw_w == pytest.approx(300.0)
    assert sample.energy_j == 150.0
    plant.run(0.01)
    assert plant.gpu.observe().power_draw_w == pytest.approx(300.0)
