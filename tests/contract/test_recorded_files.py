"""Recorded files of many kinds give what is expected through the generic connector."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from zoneinfo import ZoneInfo

import pytest
from pals_grid_connectors.file import File

from pals_grid.core.errors import FeedDataInvalid
from pals_grid.core.series import Observation, Quantity
from pals_grid.feeds.guard import check_observations, parse_guarded
from tests.contract.recorded import FIVE_MINUTES, KNOWN_AT, at, expected

# --- long series through the generic file ------------------------------------------------

AGILE = {
    "quantity": "price",
    "unit": "p/kWh",
    "start_column": "Period from",
    "value_column": "Agile Import price (p/kWh)",
    "time_format": "%d/%m/%Y %H:%M",
    "timezone": "Europe/London",
}
POLLED = {
    "quantity": "average_intensity",
    "unit": "gCO2eq/kWh",
    "start_column": "zone_datetime",
    "interval_s": "3600",
    "value_column": "carbon_intensity_avg",
    "known_at_column": "timestamp",
    "known_at_format": "unix",
}


@pytest.mark.parametrize("length", [{"end_column": "Period to"}, {"interval_s": "1800"}])
def test_agile_by_uk_clocks(shared_data: Path, length: dict[str, str]) -> None:
    path = shared_data / "series/price_agile_GB_2022-11_2023-12_halfhour.csv.gz"
    found = parse_guarded(File(AGILE | length), path.read_bytes(), KNOWN_AT)
    assert len(found) == 19918
    assert (found[0].start_at, found[0].value) == (at("2022-11-01T00:00Z"), 126.1)
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=30)}
    zone = ZoneInfo("Europe/London")
    spring = [i for i in found if i.start_at.astimezone(zone).strftime("%m-%d") == "03-26"]
    assert len(spring) == 46
    assert all(one.end_at == other.start_at for one, other in pairwise(spring))
    gap = (at("2023-10-29T01:00Z"), at("2023-10-29T02:00Z"))
    assert gap in [(one.end_at, other.start_at) for one, other in pairwise(found)]


def test_polled_carbon_keeps_every_revision(shared_data: Path) -> None:
    path = shared_data / "series/carbon_polled_GB_2021-10_2022-12.csv.gz"
    found = parse_guarded(File(POLLED), path.read_bytes(), KNOWN_AT)
    assert len(found) == 17738
    first = min(found, key=lambda item: item.known_at)
    assert (first.start_at, first.value) == (at("2021-10-08T04:00Z"), 231.0)
    assert first.known_at == datetime.fromtimestamp(1633671337, UTC)
    assert len({item.start_at for item in found}) < len(found)
    assert check_observations(found, Quantity.AVERAGE_INTENSITY) == found


# --- further providers through the generic file ------------------------------------------

EURO = {"quantity": "price", "unit": "EUR/MWh"}
AWATTAR = EURO | {
    "records": "data",
    "start_column": "start_timestamp",
    "end_column": "end_timestamp",
    "time_format": "unix_ms",
    "value_column": "marketprice",
}
ENERGYZERO = {
    "quantity": "price",
    "unit": "EUR/kWh",
    "records": "base",
    "start_column": "start",
    "end_column": "end",
    "value_column": "price.value",
}
TIBBER = {
    "quantity": "price",
    "unit": "EUR/kWh",
    "records": "data.viewer.homes.0.currentSubscription.priceInfo.today",
    "start_column": "startsAt",
    "interval_s": "3600",
    "value_column": "total",
}
NORDPOOL = EURO | {
    "records": "multiAreaEntries",
    "start_column": "deliveryStart",
    "end_column": "deliveryEnd",
    "value_column": "entryPerArea.SE3",
}
NORDPOOL_AUCTION = EURO | {
    "records": "0.prices",
    "start_column": "deliveryStart",
    "end_column": "deliveryEnd",
    "value_column": "price",
}
AEMO = {
    "quantity": "price",
    "unit": "AUD/MWh",
    "start_column": "SETTLEMENTDATE",
    "stamp": "end",
    "interval_s": "300",
    "time_format": "%Y/%m/%d %H:%M:%S",
    "timezone": "Australia/Brisbane",  # the market's own time, without summer time
    "value_column": "RRP",
}
AEMO_TABLES = {
    "PUBLIC_DVD_DISPATCHPRICE_202407010000.zip": "DISPATCH,PRICE",
    "PUBLIC_ARCHIVE_TRADINGPRICE_FILE01_202408010000.zip": "TRADING,PRICE",
}


def by_file(path: Path, options: dict[str, str]) -> list[Observation]:
    return parse_guarded(File(options), path.read_bytes(), KNOWN_AT)


def test_awattar(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "awattar"
    for file_name, wanted in expected(folder).items():
        found = by_file(folder / file_name, AWATTAR)
        per_wh = {str(int(item.start_at.timestamp())): item.value / 1e6 for item in found}
        assert per_wh == pytest.approx(wanted["their_expected"], rel=1e-12)
        assert list(per_wh) == list(wanted["their_expected"])
        assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}


def test_energyzero(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "energyzero"
    for file_name, wanted in expected(folder).items():
        found = by_file(folder / file_name, ENERGYZERO)
        per_kwh = [round(item.value / 1000, 6) for item in found]
        assert len(found) == wanted["n_base"]
        assert (per_kwh[0], per_kwh[-1]) == (wanted["first"], wanted["last"])
        assert (min(per_kwh), max(per_kwh)) == (wanted["min"], wanted["max"])
        assert fmean(per_kwh) == pytest.approx(wanted["mean"], abs=5.1e-7)
        assert found[0].start_at == at(wanted["range"]["start"])
        assert found[-1].end_at == at(wanted["range"]["end"])


def test_tibber(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "tibber"
    for file_name, wanted in expected(folder).items():
        found = by_file(folder / file_name, TIBBER)
        assert len(found) == wanted["n"]
        assert [round(found[i].value / 1000, 6) for i in (0, -1)] == [
            wanted["first"],
            wanted["last"],
        ]
        assert found[0].start_at == at("2024-06-15T00:00+02:00")
        assert all(one.end_at == other.start_at for one, other in pairwise(found))


def test_nordpool(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "nordpool"
    path = folder / "DayAheadPrices_SE3_2024-11-05.json"
    found = by_file(path, NORDPOOL)
    raw = json.loads(path.read_text())["multiAreaEntries"]
    assert [item.value for item in found] == [entry["entryPerArea"]["SE3"] for entry in raw]
    assert (found[0].start_at, found[0].value) == (at("2024-11-04T23:00Z"), 21.54)
    assert len(found) == 24
    path = folder / "AuctionPricesByAreas_SE4_se_current_day_price.json"
    auction = by_file(path, NORDPOOL_AUCTION)
    raw = json.loads(path.read_text())[0]["prices"]
    assert [item.value for item in auction] == [entry["price"] for entry in raw]
    with pytest.raises(FeedDataInvalid, match="SE4"):
        by_file(
            folder / "DayAheadPrices_SE3_2024-11-05.json",
            NORDPOOL | {"value_column": "entryPerArea.SE4"},
        )


def test_aemo(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "aemo"
    zone = ZoneInfo("Australia/Brisbane")
    for file_name, regions in expected(folder).items():
        table = AEMO_TABLES[file_name]
        form = AEMO | {"header_prefix": f"I,{table}", "row_prefix": f"D,{table}"}
        for region, wanted in regions.items():
            found = by_file(folder / file_name, form | {"where": f"REGIONID={region}"})
            values = [item.value for item in found]
            assert len(found) == wanted["n"]
            for key, index in (("first", 0), ("last", -1)):
                end = datetime.strptime(wanted[key][0], "%Y/%m/%d %H:%M:%S").replace(tzinfo=zone)
                assert (found[index].end_at, found[index].value) == (end, wanted[key][1])
            assert (min(values), max(values)) == (wanted["min"], wanted["max"])
            assert fmean(values) == pytest.approx(wanted["mean"], abs=5.1e-5)
            assert {item.end_at - item.start_at for item in found} == {FIVE_MINUTES}
        with pytest.raises(FeedDataInvalid, match="where: must fit at least one row"):
            by_file(folder / file_name, form | {"where": "REGIONID=NSW2"})
