from __future__ import annotations

import random
from statistics import fmean, pstdev

import pytest

from pals_grid.powermodel.physics import LIMIT_RATIO
from pals_grid.sim.noise import NOISE_BOUND_RATIO, DrawNoise, regulated


def _values(seed: int, count: int) -> list[float]:
    noise = DrawNoise(random.Random(seed))
    values = []
    for _ in range(count):
        values.append(noise.value)
        noise.step()
    return values


def test_free_noise_is_as_wide_and_as_lasting_as_measured() -> None:
    """Qwen3 on H100 at small batches: 1.8 to 3.1 %, alike by .5 to .6 at 0.3 to 1 s, .4 at 10 s."""
    values = _values(1, 60_000)
    width = pstdev(values)
    assert 0.018 <= width <= 0.031
    assert max(map(abs, values)) <= NOISE_BOUND_RATIO
    mean = fmean(values)

    def alike(steps: int) -> float:
        pairs = zip(values, values[steps:], strict=False)
        return fmean((a - mean) * (b - mean) for a, b in pairs) / width**2

    assert alike(1) == pytest.approx(0.57, abs=0.06)
    assert alike(4) == pytest.approx(0.53, abs=0.06)
    assert alike(40) == pytest.approx(0.40, abs=0.08)


def test_noise_depends_on_its_seed_alone() -> None:
    assert _values(3, 50) == _values(3, 50) != _values(4, 50)


def test_a_binding_limit_leaves_the_regulators_own_error() -> None:
    share, noisy = regulated(150.0 * LIMIT_RATIO, 150.0)
    assert share == pytest.approx(1.0)
    width = noisy * pstdev(_values(2, 20_000))
    assert width == pytest.approx(0.007, abs=0.001)


def test_far_from_the_limit_nothing_is_regulated() -> None:
    assert regulated(100.0, 150.0) == (0.0, 1.0)


def test_no_noise_lifts_a_draw_far_above_its_limit() -> None:
    draws_w = [150.0 * (LIMIT_RATIO - 0.001 * k) for k in range(60)]
    most_w = [w * (1 + NOISE_BOUND_RATIO * regulated(w, 150.0)[1]) for w in draws_w]
    assert max(most_w) <= 150.0 * 1.02
