from __future__ import annotations

import math
import random

import pytest

from pals_grid.sim.histogram import JITTER_SIGMA, LatencyHistogram, RecentLatencies

SHARES = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def _drawn(seed: int, count: int) -> list[tuple[float, int]]:
    draw = random.Random(seed)
    return [(math.exp(draw.gauss(-3.5, 0.6)), draw.randint(1, 40)) for _ in range(count)]


def _brute_force(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


@pytest.mark.parametrize("q", SHARES)
def test_quantiles_agree_with_sorting_within_a_bin(q: float) -> None:
    histogram = LatencyHistogram()
    values = []
    for seconds, weight in _drawn(1, 3000):
        histogram.add(seconds, weight)
        values += [seconds] * weight
    assert histogram.quantile(q) == pytest.approx(_brute_force(values, q), rel=0.02)
    assert histogram.total == len(values)


@pytest.mark.parametrize("q", SHARES)
def test_jitter_is_what_drawing_it_would_give(q: float) -> None:
    histogram = LatencyHistogram(JITTER_SIGMA)
    draw = random.Random(2)
    values = []
    for seconds, weight in _drawn(3, 40):
        histogram.add(seconds, weight)
        values += [seconds * math.exp(draw.gauss(0, JITTER_SIGMA)) for _ in range(100 * weight)]
    assert histogram.quantile(q) == pytest.approx(_brute_force(values, q), rel=0.02)


def test_the_share_above_is_the_other_way_round() -> None:
    histogram = LatencyHistogram(JITTER_SIGMA)
    for seconds, weight in _drawn(4, 500):
        histogram.add(seconds, weight)
    for q in SHARES:
        at_s = histogram.quantile(q)
        assert at_s is not None
        assert histogram.share_above(at_s) == pytest.approx(1 - q, abs=1e-9)
    assert histogram.share_above(1e-6) == pytest.approx(1.0)
    assert histogram.share_above(1e3) == 0.0


def test_an_empty_histogram_has_no_quantile() -> None:
    assert LatencyHistogram().quantile(0.99) is None
    assert LatencyHistogram().share_above(1.0) == 0.0
    assert RecentLatencies().quantile(0.99) is None


def test_two_histograms_add_up() -> None:
    one, other, both = (LatencyHistogram(JITTER_SIGMA) for _ in range(3))
    for i, (seconds, weight) in enumerate(_drawn(5, 200)):
        (one if i % 2 else other).add(seconds, weight)
        both.add(seconds, weight)
    assert one.merged(other).quantile(0.9) == pytest.approx(both.quantile(0.9))


def test_recent_latencies_forget_and_all_time_does_not() -> None:
    latencies = RecentLatencies(slot_s=1.0, slots=8)
    latencies.add(5.0)
    for second in range(1, 8):
        latencies.roll(float(second))
        latencies.add(0.1)
    assert latencies.quantile(0.99) == pytest.approx(5.0, rel=0.02)
    for second in range(8, 12):
        latencies.roll(float(second))
    assert latencies.quantile(0.99) == pytest.approx(0.1, rel=0.02)
    for second in range(12, 30):
        latencies.roll(float(second))
    assert latencies.quantile(0.99) is None
    assert latencies.histogram().total == 8
    assert latencies.histogram().quantile(1.0) == pytest.approx(5.0, rel=0.03)
