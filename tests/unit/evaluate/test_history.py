from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.evaluate.history import day_ahead_known_at, past_registry
from pals_grid.evaluate.presets import CARBON_PRESETS, PRICE_PRESETS, file_options
from pals_grid.feeds.recorded import RecordedHttp

if TYPE_CHECKING:
    from pathlib import Path


LONDON = ZoneInfo("Europe/London")
PRICES = """Period from,Period to,Agile Import price (p/kWh),Agile Export price (p/kWh)
01/12/2022 22:00,01/12/2022 22:30,30.0,1
01/12/2022 22:30,01/12/2022 23:00,31.0,1
01/12/2022 23:00,01/12/2022 23:30,32.0,1
01/12/2022 23:30,02/12/2022 00:00,33.0,1
"""
# Polls at 10:10, 11:10 and 12:10 UTC; the second revises the hour of the first.
CARBON = """timestamp,zone_datetime,carbon_intensity_avg,fossilFuelPercentage
1669889400,2022-12-01T10:00:00.000Z,300,40
1669893000,2022-12-01T10:00:00.000Z,310,40
1669896600,2022-12-01T11:00:00.000Z,320,40
"""


def values_at(path: Path, quantity: str, now: datetime) -> list[float]:
    presets = PRICE_PRESETS if quantity == "price" else CARBON_PRESETS
    options = file_options("path", path, quantity, None, presets)
    connector = past_registry("Europe/London").create("file", options)
    window = Interval(now - timedelta(hours=48), now + timedelta(hours=48))
    return [item.value for item in connector.fetch(window, FetchContext(RecordedHttp({}), now))]


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES)
    return path


def test_a_price_is_known_from_four_in_the_afternoon_before_its_day_of_delivery() -> None:
    winter = datetime(2022, 12, 1, 22, 30, tzinfo=UTC)
    assert day_ahead_known_at(winter, LONDON) == datetime(2022, 11, 30, 16, tzinfo=UTC)
    # From 23:00 on it is the next day of delivery.
    late = datetime(2022, 12, 1, 23, tzinfo=UTC)
    assert day_ahead_known_at(late, LONDON) == datetime(2022, 12, 1, 16, tzinfo=UTC)
    summer = datetime(2022, 7, 1, 12, tzinfo=UTC)
    assert day_ahead_known_at(summer, LONDON) == datetime(2022, 6, 30, 15, tzinfo=UTC)


def test_tomorrows_prices_are_not_told_before_they_are_out(prices: Path) -> None:
    before = datetime(2022, 12, 1, 15, 59, tzinfo=UTC)
    assert values_at(prices, "price", before) == [300.0, 310.0]
    assert values_at(prices, "price", before + timedelta(minutes=1)) == [300, 310, 320, 330]


def test_a_polled_value_is_told_from_its_poll_on_with_its_revision(tmp_path: Path) -> None:
    path = tmp_path / "carbon.csv"
    path.write_text(CARBON)
    ten = datetime(2022, 12, 1, 10, tzinfo=UTC)
    told = [
        values_at(path, "average_intensity", ten + timedelta(minutes=minutes))
        for minutes in (9, 10, 70, 130)
    ]
    assert told == [[], [300.0], [300.0, 310.0], [300.0, 310.0, 320.0]]


def test_a_mapping_stands_before_the_presets(prices: Path) -> None:
    mapping = {"unit": "p/kWh", "start_column": "Period from", "value_column": "x"}
    options = file_options("price_path", prices, "price", mapping, PRICE_PRESETS)
    assert options["value_column"] == "x"
    assert options["path"] == str(prices.resolve())


def test_a_file_that_no_preset_knows_is_refused_by_name(prices: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="carbon_path: has columns that no preset knows"):
        file_options("carbon_path", prices, "average_intensity", None, CARBON_PRESETS)
    with pytest.raises(InvalidValue, match="price_path: must be a readable CSV file"):
        file_options("price_path", tmp_path / "none.csv", "price", None, PRICE_PRESETS)


def test_the_shared_files_are_recognised(shared_data: Path) -> None:
    series = shared_data / "series"
    now = datetime(2022, 12, 1, tzinfo=UTC)
    price = series / "price_agile_GB_2022-11_2023-12_halfhour.csv.gz"
    # 48 h back, and ahead to 23:00 of the day of delivery that is known.
    assert len(values_at(price, "price", now)) == 2 * (48 + 23)
    carbon = values_at(series / "carbon_polled_GB_2021-10_2022-12.csv.gz", "average_intensity", now)
    assert min(carbon) > 300
