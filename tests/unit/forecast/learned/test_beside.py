"""An announced series beside the one that is forecast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pals_grid.forecast.issued import Announced, History
from pals_grid.forecast.learned.beside import Beside
from pals_grid.forecast.learned.live import forecast, learn
from pals_grid.forecast.learned.model import decode_model
from tests.unit.forecast.learned.made_up import HOUR_S, MONDAY_S, made_up

if TYPE_CHECKING:
    from pals_grid.forecast.learned.grid import Grid

DAYS = 90
AHEAD = 48


def announced(values: np.ndarray, *, hour: int = 12) -> Announced:
    """Hourly values from Monday on; a UTC day's are known at ``hour`` of the day before."""
    starts = MONDAY_S + np.arange(len(values)) * HOUR_S
    known = starts - starts % 86_400 - (24 - hour) * HOUR_S
    return Announced(
        starts.tolist(), (starts + HOUR_S).tolist(), values.tolist(), known.astype(float).tolist()
    )


def weather(count: int, seed: int) -> np.ndarray:
    """What no history tells: a level of its own for each day."""
    levels = np.random.default_rng(seed).normal(0, 30, count // 24 + 1)
    return np.repeat(levels, 24)[:count]


def with_weather(days: int = DAYS) -> tuple[Grid, Announced]:
    """Carbon of a grid, and prices, both driven by the same weather."""
    grid = made_up(days)
    told = weather(len(grid.values) + AHEAD, 5)
    carbon = replace(grid, values=grid.values + told[: len(grid.values)])
    return carbon, announced(60 + 0.5 * told)


def history_of(grid: Grid) -> History:
    starts = grid.start_s + np.arange(len(grid.values)) * grid.step_s
    return History(starts.tolist(), (starts + grid.step_s).tolist(), grid.values.tolist())


def test_rows_read_nothing_that_was_not_yet_announced() -> None:
    grid, told = with_weather(30)
    origin_hour = 24 * 20 + 9  # before noon: tomorrow is not known
    known = np.full(AHEAD, origin_hour - 1)
    lead = np.arange(1, AHEAD + 1)
    rows = Beside(grid, told, "UTC").rows(known, lead)
    ends = 24 * 21  # of the day at whose morning we are
    is_today = known + lead < ends
    assert np.isfinite(rows[is_today]).all()
    assert np.isnan(rows[~is_today]).all()
    other = list(told.values)
    other[ends:] = [1e6] * (len(other) - ends)
    again = Beside(grid, replace(told, values=other), "UTC").rows(known, lead)
    np.testing.assert_array_equal(again, rows)


@pytest.mark.parametrize(("hour", "is_known"), [(11, False), (12, True), (13, True)])
def test_a_day_is_there_from_its_publication_on(hour: int, *, is_known: bool) -> None:
    grid, told = with_weather(30)
    known = np.array([24 * 20 + hour - 1])
    rows = Beside(grid, told, "UTC").rows(known, np.array([24]))
    assert np.isfinite(rows).all() == is_known


@pytest.mark.parametrize("step_s", [900, 1800])
def test_steps_may_differ(step_s: int) -> None:
    fine = made_up(30, step_s=step_s)
    grid, told = with_weather(30)
    a_step = HOUR_S // step_s
    known, lead = np.array([24 * 20 + 14]), np.array([12])
    coarse = Beside(grid, told, "UTC").rows(known, lead)
    found = Beside(fine, told, "UTC").rows((known + 1) * a_step - 1, lead * a_step)
    assert found[0] == pytest.approx(coarse[0], rel=0.1)


def test_nothing_announced_gives_rows_of_unknowns() -> None:
    rows = Beside(made_up(20), Announced([], [], [], []), "UTC").rows(
        np.array([300]), np.array([5])
    )
    assert rows.shape == (1, 4)
    assert np.isnan(rows).all()


def test_a_model_is_told_what_helps_and_nothing_else() -> None:
    grid, told = with_weather()
    noise = announced(weather(len(told.values), 77))
    tellers = {"noise": noise, "prices": told}
    alone = learn(history_of(grid), zone="UTC", delay_s=0.0)
    best = learn(history_of(grid), zone="UTC", delay_s=0.0, announced=tellers)
    assert (alone.told_by, best.told_by) == ("", "prices")
    day = {score.up_to_h: score.mae for score in alone.hold_out}[24.0]
    told_day = {score.up_to_h: score.mae for score in best.hold_out}[24.0]
    assert told_day < 0.8 * day
    assert decode_model(best.model).is_told
    assert not decode_model(alone.model).is_told


def test_a_forecast_follows_what_is_announced_and_lives_without_it() -> None:
    grid, told = with_weather()
    learned = learn(history_of(grid), zone="UTC", delay_s=0.0, announced={"prices": told})
    origin_s = grid.start_s + len(grid.values) * HOUR_S

    def ahead(announced: Announced | None) -> np.ndarray:
        values = forecast(
            learned,
            history_of(grid),
            zone="UTC",
            origin_s=origin_s,
            ahead_s=24 * 3600.0,
            announced=announced,
        )
        return np.array([value.p50 for value in values])

    # It is midnight: the day that begins was announced at noon.
    first = len(grid.values)
    dear, cheap = list(told.values), list(told.values)
    dear[first : first + 24] = [100.0] * 24
    cheap[first : first + 24] = [20.0] * 24
    assert ahead(replace(told, values=dear)).mean() > ahead(replace(told, values=cheap)).mean() + 20
    without = ahead(None)
    assert len(without) == 24
    assert np.isfinite(without).all()
