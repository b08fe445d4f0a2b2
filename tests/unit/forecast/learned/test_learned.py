from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.forecast.issued import History
from pals_grid.forecast.learned.conformal import Widths, fit_widths
from pals_grid.forecast.learned.features import Features
from pals_grid.forecast.learned.grid import Grid, bridged, running_mean, to_grid
from pals_grid.forecast.learned.linear import fit_linear
from pals_grid.forecast.learned.live import forecast, learn, step_means
from pals_grid.forecast.learned.model import Quantiles, band_of, bucket_of, decode_model, fit_model
from pals_grid.forecast.learned.rolling import roll
from pals_grid.forecast.scoring import pooled
from tests.unit.forecast.learned.made_up import HOUR_S, MONDAY_S, made_up


def history_of(grid: Grid) -> History:
    known = np.flatnonzero(np.isfinite(grid.values))
    starts = grid.start_s + known * grid.step_s
    return History(starts.tolist(), (starts + grid.step_s).tolist(), grid.values[known].tolist())


def test_mixed_lengths_and_holes_go_on_one_grid() -> None:
    # Half-hours, one of them in two quarters; an hour is missing; the last step is torn.
    starts = [0, 1800, 2700, 3600, 5400, 10_800, 12_600]
    ends = [1800, 2700, 3600, 5400, 7200, 12_600, 13_000]
    grid = to_grid(starts, ends, [1, 2, 4, 5, 6, 9, 100])
    assert grid.step_s == 1800
    assert grid.values[:2].tolist() == [1, 3]
    assert np.isnan(grid.values[4:6]).all()
    assert grid.values[6] == 9
    assert len(grid.values) == 7
    filled = bridged(grid)
    assert filled[4:7].tolist() == [6, 6, 9]


def test_long_hole_stays_open() -> None:
    values = np.r_[1.0, np.full(20, np.nan), 2.0]
    filled = bridged(Grid(0, HOUR_S, values))
    assert np.isfinite(filled[:7]).all()
    assert np.isnan(filled[7:21]).all()


def test_running_mean_leaves_out_what_is_unknown() -> None:
    found = running_mean(np.array([np.nan, 1.0, 3.0, np.nan, 5.0]), 2)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1, 2, 3, 5]


def test_no_series_is_refused() -> None:
    with pytest.raises(InvalidValue, match="values: must be at least one"):
        to_grid([], [], [])


def test_inputs_read_nothing_after_the_origin() -> None:
    grid = made_up(40)
    known = np.full(60, 30 * 24)
    lead = np.arange(1, 61)
    torn = grid.values.copy()
    torn[30 * 24 + 1 :] = np.nan
    wild = grid.values.copy()
    wild[30 * 24 + 1 :] = 1e6
    base = np.zeros(60)
    rows = []
    for values in (grid.values, torn, wild):
        features = Features(Grid(grid.start_s, grid.step_s, values), "Europe/Berlin")
        calendar = features.calendar(known, lead)
        rivals = features.rivals(known, lead)
        rows.append(
            (
                features.linear(known, lead, calendar),
                features.boosted(known, lead, calendar, base),
                np.column_stack([rivals.day, rivals.week, rivals.days7]),
                np.column_stack(features.scale(known)),
            )
        )
    for other in rows[1:]:
        for mine, theirs in zip(rows[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_rivals_are_the_latest_known_of_the_same_time() -> None:
    features = Features(Grid(0, HOUR_S, np.arange(24.0 * 20)))
    known = np.full(3, 400)
    rivals = features.rivals(known, np.array([1, 24, 25]))
    assert rivals.day.tolist() == [377, 400, 377]
    assert rivals.week.tolist() == [401 - 168, 424 - 168, 425 - 168]


def test_calendar_is_local_through_a_change_of_clocks() -> None:
    # 2021-03-28: at 01:00Z Berlin's clocks go from 2 to 3.
    start_s = 1_616_889_600
    features = Features(Grid(start_s, HOUR_S, np.ones(48)), "Europe/Berlin")
    hours = features.calendar(np.zeros(3, dtype=np.int64), np.arange(3)).hour
    assert hours.tolist() == [1, 3, 4]


def test_least_absolute_deviations_are_not_drawn_by_a_spike() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 2))
    targets = 3 * rows[:, 0] + 1
    targets[::40] += 1000
    fitted = fit_linear(rows, targets, np.ones(400), np.array([2.5, 0.0]), 0.03)
    assert fitted.offset == pytest.approx(1, abs=0.2)
    assert fitted.slopes == pytest.approx([3, 0], abs=0.3)


def test_leads_belong_to_the_bucket_that_ends_with_them() -> None:
    assert bucket_of(np.array([1.0, 1.5])).tolist() == [3, 4]
    assert band_of(np.array([1.0, 3.0, 24.0, 24.5])).tolist() == [0, 0, 2, 3]


def test_widths_bring_each_side_to_nine_tenths() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0, 3, 5000)
    one = np.ones(5000)
    found = Quantiles(-one, 0 * one, 10 * one)
    widths = fit_widths(found, values, one)
    now = widths.apply(found, one)
    assert np.mean(values < now.p10) == pytest.approx(0.1, abs=0.002)
    assert np.mean(values > now.p90) == pytest.approx(0.1, abs=0.002)
    np.testing.assert_array_equal(Widths({}).apply(found, one).p10, found.p10)


def test_rolling_forecasts_beat_both_rivals_and_cover_what_they_say() -> None:
    grid = made_up(200)
    made = roll(grid, zone="UTC", first=140 * 24, leads=[1, 24, 48], stride=3)
    day = made.lead == 24
    assert np.isfinite(made.values[day]).sum() > 400
    known = np.isfinite(made.values)
    for lead, least in ((1, 0.5), (24, 0.1)):
        mine = known & (made.lead == lead)
        error = np.abs(made.values - made.found.p50)[mine].mean()
        rivals = (made.rivals.day, made.rivals.week)
        rival = min(np.abs(made.values - one)[mine].mean() for one in rivals)
        assert error < (1 - least) * rival
    inside = (made.values >= made.found.p10) & (made.values <= made.found.p90)
    assert 0.7 < inside[known].mean() < 0.9
    assert (made.found.p10 < made.found.p50).all()
    assert (made.found.p50 < made.found.p90).all()


def test_model_is_the_same_again_and_through_its_bytes() -> None:
    grid = made_up(60)
    features = Features(grid)
    known, lead = np.full(48, 59 * 24), np.arange(1, 49)
    first = fit_model(features, 59 * 24)
    again = decode_model(fit_model(features, 59 * 24).encode())
    assert first.encode() == fit_model(features, 59 * 24).encode()
    for name in ("p10", "p50", "p90"):
        np.testing.assert_array_equal(
            getattr(first.predict(features, known, lead), name),
            getattr(again.predict(features, known, lead), name),
        )


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(InvalidValue, match="history: must be 28 days or more"):
        fit_model(Features(made_up(20)), 20 * 24)
    with pytest.raises(InvalidValue, match="56 days of final values"):
        learn(history_of(made_up(40)), zone="UTC", delay_s=0)
    with pytest.raises(InvalidValue, match="history: must be 56 days"):
        learn(History([], [], []), zone="UTC", delay_s=0)


def test_a_lead_beyond_the_models_is_refused() -> None:
    features = Features(made_up(60))
    model = fit_model(features, 50 * 24)
    with pytest.raises(InvalidValue, match="lead: must be up to 56 h"):
        model.predict(features, np.array([1000]), np.array([57]))


def test_history_with_many_holes_is_refused() -> None:
    grid = made_up(100)
    values = grid.values.copy()
    values[200:1000] = np.nan
    with pytest.raises(InvalidValue, match="80% known"):
        learn(history_of(replace(grid, values=values)), zone="UTC", delay_s=0)


def test_live_forecast_starts_at_the_origin_and_carries_the_rival() -> None:
    grid = made_up(70)
    history = history_of(grid)
    learned = learn(history, zone="UTC", delay_s=2 * HOUR_S)
    assert learned.history_start_s == MONDAY_S
    assert {score.up_to_h for score in learned.hold_out} == {1, 3, 6, 12, 18, 24, 48}
    record = pooled(learned.hold_out)
    assert record is not None
    assert record.mae < 0.9 * record.rival_mae
    end_s = MONDAY_S + 70 * 86_400
    found = forecast(learned, history, zone="UTC", origin_s=end_s + 2 * HOUR_S, ahead_s=48 * HOUR_S)
    assert len(found) == 48
    assert found[0].start_s == end_s + 2 * HOUR_S
    assert all(one.p10 < one.p50 < one.p90 for one in found)
    hour = 2
    lag = {"day": 24, "week": 168}[learned.rival]
    assert found[0].rival == pytest.approx(grid.values[70 * 24 + hour - lag])


def test_step_means_give_what_came() -> None:
    found = step_means(History([0, 1800, 3600], [1800, 3600, 5400], [1, 2, 3]), 3600)
    assert found == [(0, 1.5)]
