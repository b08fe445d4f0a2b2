from __future__ import annotations

import numpy as np

from pals_grid.evaluate.backtest.foretell import ProfileForecast

PER_DAY = 24
DAYS = 30
NOW = 25 * PER_DAY
END = NOW + 36


def make() -> tuple[ProfileForecast, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    hours = np.arange(DAYS * PER_DAY)
    values = 100 + 50 * np.sin((hours % PER_DAY) / PER_DAY * 2 * np.pi)
    return ProfileForecast(PER_DAY, np.zeros(len(hours), bool)), values


def test_what_is_known_stays_and_the_rest_follows_the_time_of_day() -> None:
    forecast, values = make()
    known = values.copy()
    known[NOW + 6 :] = np.nan
    known[NOW + 3] = 400.0
    found = forecast.fill(known, NOW, END)
    assert found[3] == 400.0
    np.testing.assert_allclose(found[:3], values[NOW : NOW + 3])
    # Hours later the deviation has faded; the shape is the days' own.
    np.testing.assert_allclose(found[12:], values[NOW + 12 : END], atol=5)


def test_nothing_but_the_known_is_looked_at() -> None:
    forecast, values = make()
    known = values.copy()
    known[NOW:] = np.nan
    found = forecast.fill(known, NOW, END)
    other = known.copy()
    other[END:] = 9999.0
    np.testing.assert_array_equal(forecast.fill(other, NOW, END), found)


def test_a_spike_of_last_week_does_not_make_tomorrow_dear() -> None:
    forecast, values = make()
    known = values.copy()
    known[NOW - 4 * PER_DAY : NOW - 3 * PER_DAY] = 9000.0
    known[NOW:] = np.nan
    found = forecast.fill(known, NOW, END)
    assert found.max() < 400
    assert np.argmax(found[:PER_DAY]) == 6


def test_a_deviation_of_the_last_hour_fades() -> None:
    hours = np.arange(DAYS * PER_DAY)
    rng = np.random.default_rng(1)
    noise = np.zeros(len(hours))
    for i in range(1, len(hours)):
        noise[i] = 0.8 * noise[i - 1] + rng.standard_normal()
    known = 100 + 10 * noise
    known[NOW - 1] = 180.0
    known[NOW:] = np.nan
    found = ProfileForecast(PER_DAY, np.zeros(len(hours), bool)).fill(known, NOW, END)
    assert 110 < found[0] < 180
    assert found[0] > found[3] > found[12]


def test_working_days_and_weekends_are_told_apart() -> None:
    hours = np.arange(DAYS * PER_DAY)
    weekend = hours // PER_DAY % 7 >= 5
    known = np.where(weekend, 40.0, 100.0) + 5 * np.sin(hours)
    known[NOW:] = np.nan
    found = ProfileForecast(PER_DAY, weekend).fill(known, NOW, NOW + 3 * PER_DAY)
    later = weekend[NOW : NOW + 3 * PER_DAY]
    assert 25 * PER_DAY % (7 * PER_DAY) // PER_DAY == 4  # a Friday
    assert found[later].mean() < 75 < found[~later].mean()


def test_without_any_past_nothing_is_said() -> None:
    forecast, values = make()
    nothing = np.full_like(values, np.nan)
    assert np.isnan(forecast.fill(nothing, NOW, END)).all()
    assert np.isnan(forecast.fill(nothing, 3, 10)).all()


def test_a_flat_signal_stays_flat() -> None:
    forecast, values = make()
    known = np.full_like(values, 7.0)
    known[NOW:] = np.nan
    assert forecast.fill(known, NOW, END).tolist() == [7.0] * 36
