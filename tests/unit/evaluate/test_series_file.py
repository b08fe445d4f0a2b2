from __future__ import annotations

import gzip
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity
from pals_grid.evaluate.series_file import Columns, read_series_file

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.evaluate.series_file import SeriesFile


def read(
    folder: Path, text: str, quantity: str = "price", columns: Columns | None = None
) -> SeriesFile:
    path = folder / "series.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return read_series_file(path, Quantity(quantity), columns or Columns())


def times(found: SeriesFile) -> list[str]:
    return [datetime.fromtimestamp(at, UTC).strftime("%d %H:%M") for at in found.starts_s]


def test_usual_columns_are_found(tmp_path: Path) -> None:
    text = (
        "datetime,carbon_intensity_avg,marginal_carbon_avg,marginal_forecast_avg\n"
        "2022-01-01 00:00:00+00:00,27.5,1000,990\n"
        "2022-01-01 01:00:00+00:00,28.5,,991\n"
        "2022-01-01 02:00:00+00:00,29.5,1002,992\n"
    )
    average = read(tmp_path, text, "average_intensity")
    assert (average.columns.value, average.columns.time_format) == ("carbon_intensity_avg", "iso")
    assert average.values == [27.5, 28.5, 29.5]
    marginal = read(tmp_path, text, "marginal_intensity")
    assert (marginal.values, marginal.left_out) == ([1000, 1002], 1)


def test_hours_ending_and_a_repeated_local_hour(tmp_path: Path) -> None:
    text = "delivery_date,hour_ending,repeated_hour,HB_A,HB_B\n" + "".join(
        f"11/07/2021,{hour:02d}:00,{again},{number},1\n"
        for number, (hour, again) in enumerate([(1, "N"), (2, "N"), (2, "Y"), (3, "N"), (24, "N")])
    )
    columns = Columns(None, "HB_A", "%m/%d/%Y %H:%M", "America/Chicago")
    found = read(tmp_path, text, columns=columns)
    assert times(found) == ["07 05:00", "07 06:00", "07 07:00", "07 08:00", "08 05:00"]
    assert found.values == [0, 1, 2, 3, 4]
    assert found.ends_s[3] == found.starts_s[3] + 3600


def test_stamps_at_the_end_and_unix_times(tmp_path: Path) -> None:
    text = "ts,price\n3600,1\n7200,2\n5400,9\n7200,3\n"
    found = read(tmp_path, text, columns=Columns(stamp="end"))
    assert found.columns.time_format == "unix"
    assert (found.starts_s[0], found.values, found.left_out) == (1800, [1, 9, 3], 1)


def test_the_providers_own_forecasts_stand_by_minutes(tmp_path: Path) -> None:
    text = "time,moer,f1,f12\n" + "".join(
        f"2020-08-01 00:{5 * i:02d}:00+00:00,{i},{i + 1},{i + 12}\n" for i in range(3)
    )
    found = read(tmp_path, text, "marginal_intensity")
    assert found.own_forecasts == {5: [1, 2, 3], 60: [12, 13, 14]}
    named = read(tmp_path, text.replace("f1,f12", "f5min,f60min"), "marginal_intensity")
    assert named.own_forecasts == found.own_forecasts


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,2\n3,4\n", Columns(), "time_column: must be given: one of a, b"),
        ("time,b\n1,2\n3,4\n", Columns(value="c"), "column: must be one of time, b"),
        ("time,price\n1,x\n3,4\n", Columns(), "must hold two values in price or more"),
        ("time,price\nsoon,2\nlater,4\n", Columns(), "time_format: must be given"),
        ("time,price\n1,2\n3,4\n", Columns(timezone="Mars"), "must be an IANA time zone"),
        ("nothing", Columns(), "must be CSV with a header of two columns or more"),
        (
            "time,price\n2020-01-01,2\nsoon,4\n",
            Columns(time_format="iso"),
            "row 3, time: must be a time of the format iso",
        ),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, columns: Columns, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        read(tmp_path, text, columns=columns)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.gz"
    path.write_bytes(gzip.compress(b"time,price\n" * 100)[:30])
    with pytest.raises(InvalidValue, match="must be readable CSV"):
        read_series_file(path, Quantity.PRICE, Columns())
