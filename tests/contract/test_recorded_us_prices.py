"""Recorded prices of the US market operators give the values that are expected of them."""

import gzip
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from zoneinfo import ZoneInfo

import pytest
from pals_grid_connectors.price.caiso import Caiso
from pals_grid_connectors.price.ercot import Ercot
from pals_grid_connectors.price.miso import Miso
from pals_grid_connectors.price.nyiso import Nyiso
from pals_grid_connectors.price.spp import Spp, read_rows

from pals_grid.core.errors import FeedDataInvalid, FeedRejected
from pals_grid.core.series import Observation, ValueKind
from pals_grid.feeds.guard import parse_guarded
from tests.contract.recorded import FIVE_MINUTES, KNOWN_AT, at, expected

HOUR = timedelta(hours=1)


def require_hours(found: list[Observation], first: str, count: int) -> None:
    assert found[0].start_at == at(first)
    assert len(found) == count
    assert {item.end_at - item.start_at for item in found} == {HOUR}
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    assert {(item.unit, item.kind) for item in found} == {("USD/MWh", ValueKind.MEASURED)}


def test_caiso(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "caiso"
    ((file_name, wanted),) = expected(folder).items()
    found = parse_guarded(Caiso({}), (folder / file_name).read_bytes(), KNOWN_AT)
    require_hours(found, "2026-07-14T07:00Z", 5)
    assert fmean(item.value for item in found) == pytest.approx(wanted["mean5"], abs=5.1e-6)
    assert found[0].value == 55.5152


@pytest.mark.parametrize(
    ("file_name", "says"),
    [
        ("SLD_FCST_7DA_20250219.zip", "must have a header with .*LMP_TYPE"),
        ("sld_forecast.xml", "must be CSV, or an error of OASIS"),
        ("oasis_429_body.html", "Please retry your request after 5 seconds"),
        ("20171106_DailyRenewablesWatch.txt", "must have a header with .*LMP_TYPE"),
    ],
)
def test_caiso_refuses_what_is_no_price(shared_data: Path, file_name: str, says: str) -> None:
    payload = (shared_data / "fixtures" / "caiso" / file_name).read_bytes()
    with pytest.raises(FeedDataInvalid, match=says):
        Caiso({}).parse(payload, KNOWN_AT)


def test_ercot(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "ercot"
    ((file_name, wanted),) = expected(folder).items()
    payload = (folder / file_name).read_bytes()
    found = parse_guarded(Ercot({"location": "HB_NORTH"}), payload, KNOWN_AT)
    require_hours(found, "2022-07-13T05:00Z", wanted["HB_NORTH_hours"])
    assert [item.value for item in found] == [price for _, _, price in wanted["HB_NORTH"]]
    with pytest.raises(
        FeedRejected, match=r"location is needed.* HB_BUSAVG, .* and 5 more"
    ) as caught:
        Ercot({}).parse(payload, KNOWN_AT)
    points = str(caught.value).partition("are ")[2].partition(" and 5")[0].split(", ")
    points += ["LZ_LCRA", "LZ_NORTH", "LZ_RAYBN", "LZ_SOUTH", "LZ_WEST"]
    rows = [len(parse_guarded(Ercot({"location": p}), payload, KNOWN_AT)) for p in points]
    assert sum(rows) == wanted["rows"]


def test_ercot_refuses_the_fuel_mix(shared_data: Path) -> None:
    path = shared_data / "fixtures" / "ercot" / "ERCOT_fuel_mix_dashboard.json.gz"
    with pytest.raises(FeedDataInvalid, match="fields: must be there"):
        Ercot({}).parse(gzip.decompress(path.read_bytes()), KNOWN_AT)


def test_ercot_wide_series(shared_data: Path) -> None:
    path = shared_data / "series" / "price_da_ERCOT_2021_hourly.csv.gz"
    payload = gzip.decompress(path.read_bytes())
    found = parse_guarded(Ercot({"location": "HB_NORTH"}), payload, KNOWN_AT)
    require_hours(found, "2021-01-01T06:00Z", 8760)
    assert max(item.value for item in found) >= 8000
    zone = ZoneInfo("America/Chicago")
    by_day = Counter(item.start_at.astimezone(zone).date().isoformat() for item in found)
    assert (by_day["2021-03-14"], by_day["2021-11-07"]) == (23, 25)
    assert set(by_day.values()) == {23, 24, 25}
    values = {item.start_at: item.value for item in found}
    assert [values[at(f"2021-11-07T0{hour}:00Z")] for hour in (6, 7, 8)] == [27.57, 28.59, 29.02]
    assert [values[at(f"2021-03-14T0{hour}:00Z")] for hour in (7, 8)] == [15.73, 14.54]


def test_nyiso(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "nyiso"
    payload = (folder / "realtime_zone_lmp_2016-02-18.csv").read_bytes()
    found = parse_guarded(Nyiso({"location": "N.Y.C."}), payload, KNOWN_AT)
    assert [item.value for item in found] == [21.85, 21.72, 21.70]
    # The recorded excerpt has every third stamp; each is the end of 5 min, the rest are gaps.
    ends = [at(f"2016-02-18T05:{minute}Z") for minute in (15, 30, 45)]
    assert [item.end_at for item in found] == ends
    assert {item.end_at - item.start_at for item in found} == {FIVE_MINUTES}
    with pytest.raises(FeedRejected, match=r"location is needed.* CAPITL, .* and 5 more") as caught:
        Nyiso({}).parse(payload, KNOWN_AT)
    zones = str(caught.value).partition("are ")[2].partition(" and 5")[0].split(", ")
    for zone in [*zones, "NORTH", "NPX", "O H", "PJM", "WEST"]:
        prices = [
            item.value for item in parse_guarded(Nyiso({"location": zone}), payload, KNOWN_AT)
        ]
        assert len(prices) == 3
        assert all(18 < price < 22 for price in prices)


def test_nyiso_refuses_the_fuel_mix(shared_data: Path) -> None:
    path = shared_data / "fixtures" / "nyiso" / "20171122rtfuelmix.csv"
    with pytest.raises(FeedDataInvalid, match="must have a header with Time Stamp, Name, LBMP"):
        Nyiso({}).parse(path.read_bytes(), KNOWN_AT)


def test_miso(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "miso"
    ((file_name, wanted),) = expected(folder).items()
    payload = (folder / file_name).read_bytes()
    found = parse_guarded(Miso({"location": "INDIANA.HUB"}), payload, KNOWN_AT)
    require_hours(found, "2026-07-14T05:00Z", 24)
    mean = fmean(item.value for item in found)
    assert mean == pytest.approx(wanted["INDIANA.HUB_LMP_daily_mean"], abs=5e-3)
    assert (found[0].value, found[-1].value) == (37.82, 65.9)
    with pytest.raises(FeedRejected, match=r"are ILLINOIS\.HUB, INDIANA\.HUB, MICHIGAN\.HUB"):
        Miso({}).parse(payload, KNOWN_AT)


def test_spp(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "spp"
    for file_name, wanted in expected(folder).items():
        payload = (folder / file_name).read_bytes()
        rows = read_rows(payload)
        prices = [float(row.cells["LMP"]) for row in rows]
        assert len({row.cells["Settlement Location"] for row in rows}) == wanted["rows"]
        assert len(rows) == wanted["rows"]
        assert fmean(prices) == pytest.approx(wanted["LMP_mean"], abs=5.1e-5)
        assert (min(prices), max(prices)) == (wanted["LMP_min"], wanted["LMP_max"])
        end_at = datetime.strptime(file_name, "RTBM-LMP-SL-%Y%m%d%H%M.csv").replace(
            tzinfo=ZoneInfo("America/Chicago")
        )
        for row in rows[::100]:
            (found,) = parse_guarded(
                Spp({"location": row.cells["Settlement Location"]}), payload, KNOWN_AT
            )
            assert found.value == float(row.cells["LMP"])
            assert (found.start_at, found.end_at) == (end_at - FIVE_MINUTES, end_at)
