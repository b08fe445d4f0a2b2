from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Observation, ValueKind
from pals_grid.evaluate.backtest.config import HourEnding, Known, Series
from pals_grid.evaluate.backtest.grid import grid_of
from pals_grid.evaluate.backtest.signals import known_at, load_signal, require_covered

if TYPE_CHECKING:
    from pathlib import Path

DAY = datetime(2022, 6, 2, tzinfo=UTC)
HOURLY = {"unit": "EUR/MWh", "start_column": "t", "value_column": "v", "interval_s": "3600"}


def hour(start_at: datetime) -> Observation:
    end_at = start_at + timedelta(hours=1)
    return Observation(start_at, end_at, 1.0, "EUR/MWh", ValueKind.MEASURED, start_at)


def test_day_ahead_prices_are_known_at_local_noon_the_day_before() -> None:
    zone = ZoneInfo("Europe/Amsterdam")
    rule = Known(published_at="13:00")
    # 23:00 UTC of the 1st is 01:00 of the 2nd in Amsterdam.
    late = hour(datetime(2022, 6, 1, 23, tzinfo=UTC))
    assert known_at(late, rule, zone) == datetime(2022, 6, 1, 11, tzinfo=UTC)
    early = hour(datetime(2022, 6, 1, 21, tzinfo=UTC))
    assert known_at(early, rule, zone) == datetime(2022, 5, 31, 11, tzinfo=UTC)


def test_a_day_of_delivery_may_begin_before_midnight() -> None:
    rule = Known(published_at="16:00", day_shift_h=1)
    item = hour(datetime(2022, 12, 1, 23, tzinfo=UTC))
    assert known_at(item, rule, ZoneInfo("Europe/London")) == datetime(2022, 12, 1, 16, tzinfo=UTC)


def test_real_time_values_are_known_after_their_interval() -> None:
    item = hour(DAY)
    rule = Known(rule="after", lag_s=600)
    assert known_at(item, rule, ZoneInfo("UTC")) == DAY + timedelta(minutes=70)


def test_a_view_tells_nothing_before_its_time(tmp_path: Path) -> None:
    rows = [f"{(DAY + timedelta(hours=i)).isoformat()},{i}" for i in range(48)]
    (tmp_path / "p.csv").write_text("\n".join(["t,v", *rows]) + "\n")
    grid = grid_of(DAY, DAY + timedelta(days=2), 1800)
    series = Series(path="p.csv", mapping=HOURLY, known=Known(published_at="13:00"))
    signal = load_signal(series, "price", grid, "UTC", tmp_path)
    view = signal.view()
    view.advance(DAY + timedelta(hours=12, minutes=59))
    assert not np.isnan(view.values[:48]).any()
    assert np.isnan(view.values[48:]).all()
    view.advance(DAY + timedelta(hours=13))
    assert view.values[48:].tolist() == [24 + i // 2 for i in range(48)]
    assert signal.truth.tolist() == view.values.tolist()


def test_revisions_replace_each_other_as_they_become_known(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "t,v,seen\n"
        "2022-06-02T00:00:00Z,300,2022-06-02T01:10:00Z\n"
        "2022-06-02T00:00:00Z,310,2022-06-02T02:10:00Z\n"
    )
    mapping = HOURLY | {"unit": "gCO2eq/kWh", "known_at_column": "seen"}
    grid = grid_of(DAY, DAY + timedelta(hours=3), 3600)
    series = Series(path="c.csv", mapping=mapping, known=Known(rule="column"), hold_s=3600)
    view = load_signal(series, "average_intensity", grid, "UTC", tmp_path).view()
    view.advance(DAY + timedelta(hours=1))
    assert np.isnan(view.values).all()
    view.advance(DAY + timedelta(hours=2))
    assert view.values[0] == 300
    view.advance(DAY + timedelta(hours=3))
    # A hole is filled with the value before it, for an hour at most.
    assert view.values[:2].tolist() == [310, 310]
    assert np.isnan(view.values[2])


def test_short_values_are_averaged_and_known_with_the_last(tmp_path: Path) -> None:
    rows = [f"{(DAY + timedelta(minutes=5 * i)).isoformat()},{i}" for i in range(6)]
    (tmp_path / "p.csv").write_text("\n".join(["t,v", *rows]) + "\n")
    grid = grid_of(DAY, DAY + timedelta(minutes=30), 900)
    mapping = HOURLY | {"interval_s": "300"}
    series = Series(path="p.csv", mapping=mapping, known=Known(rule="after"))
    view = load_signal(series, "price", grid, "UTC", tmp_path).view()
    view.advance(DAY + timedelta(minutes=14))
    assert np.isnan(view.values).all()
    view.advance(DAY + timedelta(minutes=15))
    assert view.values[0] == 1.0


def test_a_signal_with_a_hole_is_refused_where_it_counts(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "t,v\n2022-06-02T00:00:00Z,1\n2022-06-02T03:00:00Z,1\n2022-06-02T04:00:00Z,1\n"
    )
    grid = grid_of(DAY, DAY + timedelta(hours=5), 3600)
    signal = load_signal(Series(path="p.csv", mapping=HOURLY), "price", grid, "UTC", tmp_path)
    require_covered("price", signal, grid, 3, 5)
    with pytest.raises(InvalidValue, match=r"price at 2022-06-02T01:00:00.*2 have none"):
        require_covered("price", signal, grid, 0, 5)


def test_hours_that_end_are_read_through_the_end_of_summer_time(tmp_path: Path) -> None:
    rows = ["11/07/2021,01:00,N,1", "11/07/2021,02:00,N,2", "11/07/2021,02:00,Y,3"]
    rows += ["11/07/2021,03:00,N,4", "11/07/2021,04:00,N,5"]
    (tmp_path / "e.csv").write_text("\n".join(["date,hour,again,hub", *rows]) + "\n")
    start_at = datetime(2021, 11, 7, 5, tzinfo=UTC)
    grid = grid_of(start_at, start_at + timedelta(hours=5), 3600)
    series = Series(
        path="e.csv",
        mapping={"unit": "USD/MWh", "value_column": "hub"},
        hour_ending=HourEnding(date_column="date", hour_column="hour", repeated_column="again"),
        timezone="America/Chicago",
    )
    signal = load_signal(series, "price", grid, "UTC", tmp_path)
    assert signal.truth.tolist() == [1, 2, 3, 4, 5]


def test_hour_ending_files_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("date,hour,hub\n01/01/2021,25:00,1\n")
    columns = HourEnding(date_column="date", hour_column="hour")
    grid = grid_of(DAY, DAY + timedelta(hours=5), 3600)
    series = Series(
        path="e.csv", mapping={"unit": "USD/MWh", "value_column": "hub"}, hour_ending=columns
    )
    with pytest.raises(InvalidValue, match="from 1 to 24"):
        load_signal(series, "price", grid, "UTC", tmp_path)
    other = Series(path="e.csv", mapping={"unit": "USD/MWh"}, hour_ending=columns)
    with pytest.raises(InvalidValue, match="must give value_column and unit"):
        load_signal(other, "price", grid, "UTC", tmp_path)
