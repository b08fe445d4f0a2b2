from __future__ import annotations

import random

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.overhead_fit import fit_overhead


def test_a_line_is_found_again_through_noise() -> None:
    draw = random.Random(1)
    gpus = [draw.uniform(600, 5600) for _ in range(200)]
    found = fit_overhead([(gpu, 900 + 1.12 * gpu + draw.gauss(0, 20)) for gpu in gpus])
    assert found.overhead.base_w == pytest.approx(900, abs=15)
    assert found.overhead.per_gpu_w_ratio == pytest.approx(0.12, abs=0.005)
    assert found.rmse_w == pytest.approx(20, rel=0.2)
    assert (found.pairs, found.gpu_power_low_w) == (200, min(gpus))


def test_a_slope_below_one_is_held_at_one() -> None:
    found = fit_overhead([(gpu, 800 + 0.9 * gpu) for gpu in range(100, 1100, 50)])
    assert found.overhead.per_gpu_w_ratio == 0.0
    assert found.overhead.node_power_w(575) == pytest.approx(800 + 0.9 * 575)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(100.0, 500.0)] * 9, "pairs: must be 10 or more, got 9"),
        ([(100.0 + i, 500.0) for i in range(10)], "must vary by 20% of its highest, 109 W"),
        ([(100.0 * i, float("nan")) for i in range(10)], "must be finite"),
        ([(100.0 * i, 80.0 * i) for i in range(10)], "is that the whole node"),
    ],
)
def test_readings_that_show_no_line_are_told(
    pairs: list[tuple[float, float]], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        fit_overhead(pairs)
