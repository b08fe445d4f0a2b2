from __future__ import annotations

import pytest

from pals_grid.core.ports import GpuSample
from pals_grid.node.strategies.tracking import Backoff, DrawMeter, PowerTracker


def test_the_draw_of_a_tick_is_the_energy_counters_difference() -> None:
    meter = DrawMeter(2)
    first = GpuSample(300.0, 1000.0, 400.0)
    assert meter.update((first, first), 0.0) == 600.0
    lagging = GpuSample(300.0, 1100.0, 400.0)  # the reading is a mean of old; the counter is not
    assert meter.update((lagging, lagging), 0.5) == pytest.approx(400.0)
    assert meter.update((lagging, None), 0.5) == 300.0  # the counter stands still
    assert meter.update((GpuSample(300.0, 1160.0, 400.0), lagging), 0.5) == pytest.approx(420.0)


def follow(tracker: PowerTracker, true_ratio: float, ticks: int) -> None:
    for _ in range(ticks):
        tracker.learn(1000.0 * true_ratio, 1000.0, 0.5)
        tracker.command(1000.0 * tracker.ratio, 1000.0 * true_ratio)


def test_the_ratio_of_draw_to_model_is_learned_within_a_few_ticks() -> None:
    tracker = PowerTracker()
    tracker.command(1000.0, 1000.0)
    follow(tracker, 0.94, 4)
    assert tracker.ratio == pytest.approx(0.94, abs=0.003)


def test_noise_of_a_tick_is_hardly_followed_but_an_excess_is() -> None:
    tracker = PowerTracker()
    tracker.command(1000.0, 1000.0)
    follow(tracker, 1.0, 10)
    tracker.learn(990.0, 1000.0, 0.5)
    assert tracker.ratio == pytest.approx(0.998)
    tracker.learn(1030.0, 1000.0, 0.5)
    assert tracker.ratio > 1.02


def test_a_limit_on_its_way_up_teaches_nothing() -> None:
    tracker = PowerTracker()
    tracker.command(1000.0, 1000.0)
    follow(tracker, 1.0, 5)
    tracker.command(1300.0, 1000.0)
    tracker.learn(1150.0, 1300.0, 0.5)
    assert tracker.ratio == pytest.approx(1.0)
    tracker.learn(1270.0, 1300.0, 0.5)
    assert tracker.ratio < 0.99


def test_the_first_30_ms_of_a_step_down_are_reckoned_with() -> None:
    tracker = PowerTracker()
    tracker.command(1000.0, 1000.0)
    follow(tracker, 1.0, 5)
    tracker.command(700.0, 1000.0)
    tracker.learn(0.06 * 1000.0 + 0.94 * 700.0, 700.0, 0.5)
    assert tracker.ratio == pytest.approx(1.0)


def test_the_margin_grows_with_ticks_above_and_goes_slowly() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.update(1000.0, 1000.0)
    assert backoff.ratio == 0.0
    for _ in range(5):
        backoff.update(1030.0, 1000.0)
    grown = backoff.ratio
    assert grown == pytest.approx(5 * Backoff.UP_RATIO)
    for _ in range(100):
        backoff.update(1000.0, 1000.0)
    assert 0 < backoff.ratio < grown


def test_a_step_of_the_budget_is_no_excess() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.update(1000.0, 1000.0)
    for _ in range(Backoff.SETTLE_TICKS):
        backoff.update(1000.0, 800.0)
    assert backoff.ratio == 0.0
