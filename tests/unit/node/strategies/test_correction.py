from __future__ import annotations

import pytest

from pals_grid.node.strategies.correction import HIGH, TrackCorrection, Window
from pals_grid.node.strategies.surface import State, Surface
from tests.unit.node.strategies.world import hand_table

TRACK = Surface(hand_table().points, 100.0, 400.0).track(None)


def test_nothing_is_corrected_before_something_was_measured() -> None:
    correction = TrackCorrection(TRACK)
    assert correction.at(150.0) == (1.0, 1.0)
    assert correction.doubt_ratio == 0.0


def test_a_limit_learns_its_own_ratios_and_its_neighbours_take_after_it() -> None:
    correction = TrackCorrection(TRACK)
    for _ in range(4):
        correction.learn(200.0, 0.9, 1.05)
    assert correction.at(200.0) == pytest.approx((0.9, 1.05))
    assert correction.at(220.0) == pytest.approx((0.9, 1.05))
    assert correction.windows(200.0) == 4
    assert correction.windows(250.0) == 0
    assert correction.doubt_ratio == pytest.approx(1 - 0.9 / 1.05)


def test_regions_keep_what_was_measured_there() -> None:
    correction = TrackCorrection(TRACK)
    for _ in range(8):
        correction.learn(100.0, 0.8, 1.0)
        correction.learn(300.0, 1.2, 1.0)
    assert correction.at(100.0)[0] == pytest.approx(0.8, abs=0.01)
    assert correction.at(300.0)[0] == pytest.approx(1.2, abs=0.01)
    assert correction.at(110.0)[0] < 1 < correction.at(290.0)[0]
    assert correction.at(200.0)[0] == pytest.approx(1.0, abs=0.02)


def test_a_change_is_learned_and_nonsense_is_bounded() -> None:
    correction = TrackCorrection(TRACK)
    for _ in range(50):
        correction.learn(200.0, 1.0, 1.0)
    for _ in range(40):
        correction.learn(200.0, 1.1, 1.0)
    assert correction.at(200.0)[0] == pytest.approx(1.1, abs=0.005)
    for _ in range(100):
        correction.learn(200.0, 50.0, 1.0)
    assert correction.at(200.0)[0] <= HIGH


def test_a_window_closes_after_4_s_and_begins_afresh_with_another_limit() -> None:
    window, model = Window(), State(10.0, 1000.0, 500.0, 0.02, 0.1)
    for _ in range(7):
        assert window.add(200.0, 450.0, 520.0, model, 0.5) is None
    assert window.add(200.0, 450.0, 520.0, model, 0.5) == pytest.approx((0.9, 1.04))
    for _ in range(7):
        assert window.add(200.0, 450.0, 520.0, model, 0.5) is None
    assert window.add(210.0, 450.0, 520.0, model, 0.5) is None
