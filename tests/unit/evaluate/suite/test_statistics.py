from __future__ import annotations

import math

import pytest

from pals_grid.evaluate.suite.statistics import mean_of, paired, quantile


def test_the_interval_is_students() -> None:
    found = mean_of([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    # t(0.975, 2 degrees) = 4.303, standard deviation 1, three values.
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3))
    assert found.seeds == 3


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    one = mean_of([4.0])
    assert one is not None
    assert (one.mean, one.half_width) == (4.0, None)
    assert mean_of([]) is None


def test_many_values_use_the_normal_point() -> None:
    values = [float(k % 2) for k in range(100)]
    found = mean_of(values)
    assert found is not None
    assert found.half_width == pytest.approx(1.96 * 0.50252 / 10, rel=1e-3)


def test_paired_differences_leave_the_seeds_own_spread_out() -> None:
    found = paired([11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    assert found is not None
    assert (found.mean, found.half_width) == (1.0, 0.0)


def test_quantile_is_the_nearest_rank() -> None:
    values = [float(k) for k in range(100, 0, -1)]
    assert quantile(values, 0.99) == 99.0
    assert quantile(values, 0.5) == 50.0
    assert quantile([7.0], 0.99) == 7.0
    assert quantile([], 0.5) is None
