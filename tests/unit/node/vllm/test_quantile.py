from __future__ import annotations

import math

import pytest

from pals_grid.node.vllm.quantile import BucketWindow


def test_nothing_is_known_from_one_scrape_or_without_observations() -> None:
    window = BucketWindow()
    assert window.quantile(0.99) is None
    window.add(0.0, {0.1: 5.0, math.inf: 9.0})
    assert window.quantile(0.99) is None
    window.add(1.0, {0.1: 5.0, math.inf: 9.0})
    assert window.quantile(0.99) is None
    window.add(2.0, {})
    assert window.quantile(0.99) is None


@pytest.mark.parametrize(
    ("ratio", "seconds"), [(0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (0.9, 0.18), (1.0, 0.2)]
)
def test_a_quantile_lies_straight_between_bounds(ratio: float, seconds: float) -> None:
    window = BucketWindow()
    window.add(0.0, {0.1: 100.0, 0.2: 100.0, math.inf: 100.0})
    window.add(1.0, {0.1: 150.0, 0.2: 200.0, math.inf: 200.0})
    assert window.quantile(ratio) == pytest.approx(seconds)


def test_what_is_above_every_bound_counts_as_the_last() -> None:
    window = BucketWindow()
    window.add(0.0, {0.1: 0.0, 0.2: 0.0, math.inf: 0.0})
    window.add(1.0, {0.1: 1.0, 0.2: 2.0, math.inf: 100.0})
    assert window.quantile(0.99) == 0.2


def test_the_window_moves_on() -> None:
    window = BucketWindow(window_s=10.0)
    slow = 0.0
    for second in range(30):
        slow += 10 if second < 10 else 0
        window.add(second, {0.1: 10.0 * second, math.inf: 10.0 * second + slow})
    assert window.quantile(0.99) == pytest.approx(0.099)


def test_a_restarted_engine_starts_afresh() -> None:
    window = BucketWindow()
    window.add(0.0, {0.1: 0.0, math.inf: 900.0})
    window.add(1.0, {0.1: 3.0, math.inf: 3.0})
    assert window.quantile(0.99) is None
    window.add(2.0, {0.1: 6.0, math.inf: 6.0})
    assert window.quantile(0.5) == pytest.approx(0.05)
