"""Little's law on a table that is made from known laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.fleet import OperatingPoint
from pals_grid.node.strategies.surface import Surface

BATCHES = (1, 4, 16, 64)
LIMITS_W = (100.0, 200.0, 400.0)


def round_s(limit_w: float, running: float) -> float:
    return (0.01 + 0.002 * running) * 200 / limit_w


def power_w(limit_w: float) -> float:
    return 4 * limit_w


def made_point(limit_w: float, batch: int, clock: float | None = None) -> OperatingPoint:
    slow = 1.0 if clock is None else 1.2
    time_s = round_s(limit_w, batch) * slow
    return OperatingPoint(
        limit_w, batch, batch / time_s, power_w(limit_w) / slow, 0.1 * batch, time_s, clock
    )


TABLE = [made_point(limit_w, batch) for limit_w in LIMITS_W for batch in BATCHES]
SURFACE = Surface(TABLE, 100.0, 400.0)
HIGHEST = SURFACE.track(None).levels[-1]


@given(st.floats(1, 64))
def test_between_batches_the_rounds_time_is_a_straight_line(running: float) -> None:
    state = HIGHEST.at(running)
    assert state.tokens_per_s == pytest.approx(running / round_s(400.0, running))
    assert state.gpu_power_w == pytest.approx(1600.0)
    assert HIGHEST.power_w(running) == pytest.approx(state.gpu_power_w)


@given(st.floats(1, 64))
def test_littles_law_finds_the_batch_again(running: float) -> None:
    load = HIGHEST.at(running).tokens_per_s
    assert HIGHEST.running_at(load) == pytest.approx(running)


def test_below_one_request_the_engine_is_idle_for_a_part_of_the_time() -> None:
    load = HIGHEST.at(1).tokens_per_s / 4
    assert HIGHEST.running_at(load) == pytest.approx(0.25)
    assert HIGHEST.load_power_w(load, 200.0) == pytest.approx(200.0 + 0.25 * 1400.0)
    assert HIGHEST.load_power_w(0.0, 200.0) == 200.0


def test_more_load_than_there_is_fills_the_largest_batch() -> None:
    assert HIGHEST.running_at(1e9) == 64
    assert HIGHEST.at(1000.0).running == 64


def test_limits_between_the_tables_are_levels_too() -> None:
    track = SURFACE.track(None)
    assert len(track.levels) > 50
    assert track.at(150.0, 16).gpu_power_w == pytest.approx(600.0)
    assert track.at(50.0, 16) == track.levels[0].at(16)
    assert track.at(500.0, 16) == track.levels[-1].at(16)
    plain = Surface(TABLE, 100.0, 400.0, interpolate=False)
    assert plain.track(None).limits_w == list(LIMITS_W)


@given(st.floats(350, 1700), st.floats(1, 64))
def test_the_limit_for_a_draw_draws_it(wanted_w: float, running: float) -> None:
    track = SURFACE.track(None)
    limit_w = track.limit_for_w(wanted_w, running)
    held_w = min(max(wanted_w, 400.0), 1600.0)
    assert track.at(limit_w, running).gpu_power_w == pytest.approx(held_w, rel=1e-6)


def test_most_requests_within_the_latencies() -> None:
    level = HIGHEST
    assert level.most_within(1.0, 100.0) == 64
    assert level.most_within(round_s(400.0, 40), 100.0) == pytest.approx(40, rel=0.01)
    assert level.most_within(1.0, 1.0) == pytest.approx(10, rel=0.01)
    assert level.most_within(1e-4, 1.0) == 0


def test_limits_that_the_device_does_not_have_are_left_out() -> None:
    assert Surface(TABLE, 150.0, 300.0).track(None).limits_w == [200.0]


def test_clocks_have_tracks_of_their_own_and_count_only_where_they_may() -> None:
    locked = [made_point(400.0, batch, 1000.0) for batch in BATCHES]
    both = Surface(TABLE + locked, 100.0, 400.0)
    assert set(both.tracks) == {None, 1000.0}
    assert both.track(1000.0).limits_w == [400.0]
    assert both.track(777.0) is both.track(None)
    free = Surface(TABLE + locked, 100.0, 400.0, clocks=False)
    assert set(free.tracks) == {None}
    only = Surface(locked, 100.0, 400.0, clocks=False)
    assert set(only.tracks) == {1000.0}


def test_throughput_that_falls_with_the_batch_by_noise_stands_still() -> None:
    noisy = [OperatingPoint(100.0, b, x, 400.0, 0.1, 0.01) for b, x in ((1, 50.0), (2, 49.0))]
    level = Surface(noisy, 100.0, 400.0).levels[0]
    assert level.tokens_per_s[1] == pytest.approx(50.0)
    assert level.running_at(49.9) == pytest.approx(0.998)
