"""The recorded payloads of the providers give the values that are expected of them."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pals_grid_connectors.carbon.neso import Neso
from pals_grid_connectors.file import File
from pals_grid_connectors.price.entsoe import Entsoe
from pals_grid_connectors.price.octopus_agile import OctopusAgile

from pals_grid.core.errors import FeedDataInvalid
from pals_grid.core.intervals import parse_instant
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.feeds.guard import check_observations, parse_guarded

KNOWN_AT = datetime(2026, 5, 7, tzinfo=UTC)


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "EXPECTED.json").read_text())
    return found


def at(text: str) -> datetime:
    return parse_instant("expected", text)


# --- octopus -------------------------------------------------------------------------------


def test_octopus(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "octopus"
    for file_name, wanted in expected(folder).items():
        payload = (folder / file_name).read_bytes()
        plain = parse_guarded(OctopusAgile({}), payload, KNOWN_AT)
        taxed = parse_guarded(OctopusAgile({"vat": "include"}), payload, KNOWN_AT)
        assert len(plain) == wanted["n"]
        for key, index in (("oldest", 0), ("newest", -1)):
            edge = wanted[key]
            assert plain[index].start_at == at(edge["valid_from"])
            assert plain[index].end_at == at(edge["valid_to"])
            assert plain[index].value == round(edge["value_exc_vat"] * 10, 6)
            assert taxed[index].value == round(edge["value_inc_vat"] * 10, 6)
        assert all(one.end_at == other.start_at for one, other in pairwise(plain))


def test_octopus_with_a_rate_without_an_end(shared_data: Path) -> None:
    payload = (shared_data / "fixtures/octopus/get_tariff_response_paged.json").read_bytes()
    found = parse_guarded(OctopusAgile({}), payload, KNOWN_AT)
    assert [item.value for item in found] == [180.0, 184.6, 184.6, 184.6, 206.4]
    assert found[-1].end_at == KNOWN_AT + timedelta(hours=48)


# --- neso ----------------------------------------------------------------------------------

NOT_INTENSITIES = {"get_factors.json", "get_mix.json"}


def test_neso(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "neso_carbon"
    for file_name, wanted in expected(folder).items():
        payload = (folder / file_name).read_bytes()
        if file_name in NOT_INTENSITIES:
            with pytest.raises(FeedDataInvalid):
                Neso({}).parse(payload, KNOWN_AT)
            continue
        found = parse_guarded(Neso({}), payload, KNOWN_AT)
        forecast = [item for item in found if item.kind is ValueKind.FORECAST]
        measured = [item for item in found if item.kind is ValueKind.MEASURED]
        assert len(found) == len(forecast) + len(measured)
        if "n" in wanted:
            assert len(forecast) == wanted["n"]
            assert len(measured) == wanted["n"] - wanted["actual_nulls"]
        if "forecast_mean" in wanted:
            mean = round(fmean(item.value for item in forecast), 3)
            assert mean == pytest.approx(wanted["forecast_mean"], abs=5e-4)
            assert forecast[0].start_at == at(wanted["first_from"])
            assert forecast[-1].end_at == at(wanted["last_to"])


def test_neso_regions(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "neso_carbon"
    by_postcode = parse_guarded(
        Neso({"postcode": "EN2"}), (folder / "pc_with_dates.json").read_bytes(), KNOWN_AT
    )
    raw = json.loads((folder / "pc_with_dates.json").read_text())["data"]["data"]
    assert [item.value for item in by_postcode] == [
        float(slot["intensity"]["forecast"]) for slot in raw
    ]
    assert {item.kind for item in by_postcode} == {ValueKind.FORECAST}
    (london,) = parse_guarded(
        Neso({"region": "13"}), (folder / "reg_no_dates.json").read_bytes(), KNOWN_AT
    )
    assert (london.value, london.start_at) == (210.0, at("2021-04-30T22:30Z"))


# --- entsoe --------------------------------------------------------------------------------

STEPS = {"PT15M": timedelta(minutes=15), "PT60M": timedelta(hours=1)}


def require_day(day: list[Observation], wanted: dict[str, Any]) -> None:
    step = STEPS[wanted["resolution"]]
    values = [item.value for item in day]
    assert len(day) == wanted["intervals_after_A03_fill"]
    assert day[0].value == wanted["first"][1]
    assert day[-1].start_at == at(wanted["last"][0])
    assert day[-1].value == wanted["last"][1]
    assert (min(values), max(values)) == (wanted["min"], wanted["max"])
    assert fmean(values) == pytest.approx(wanted["mean"], abs=5.1e-5)
    assert {item.end_at - item.start_at for item in day} == {step}
    assert all(one.end_at == other.start_at for one, other in pairwise(day))
    assert {item.unit for item in day} == {"EUR/MWh"}


def test_entsoe_day_ahead_prices(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "entsoe"
    prices = {name: days for name, days in expected(folder).items() if "A44" in name}
    assert len(prices) == 6
    for file_name, days in prices.items():
        payload = (folder / file_name).read_bytes()
        for wanted in days:
            options = {} if wanted["sequence"] == "-" else {"sequence": wanted["sequence"]}
            found = parse_guarded(Entsoe(options), payload, KNOWN_AT)
            first_at, last_at = at(wanted["first"][0]), at(wanted["last"][0])
            require_day([item for item in found if first_at <= item.start_at <= last_at], wanted)
            same_series = [day for day in days if day["sequence"] == wanted["sequence"]]
            assert len(found) == sum(day["intervals_after_A03_fill"] for day in same_series)


def test_entsoe_takes_sequence_1_unless_told(shared_data: Path) -> None:
    path = shared_data / "fixtures/entsoe/A44_DE-LU_2024-10-06_07_seq1_PT60M_seq2_PT15M.xml"
    found = Entsoe({"zone": "DE-LU"}).parse(path.read_bytes(), KNOWN_AT)
    assert found == Entsoe({"sequence": "1"}).parse(path.read_bytes(), KNOWN_AT)
    assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}


def test_entsoe_without_data_and_other_documents(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "entsoe"
    acknowledgements = sorted(folder.glob("ACK_*.xml"))
    assert len(acknowledgements) == 3
    # One is named after an invalid request, but what it says is "No matching data found".
    for path in acknowledgements:
        assert Entsoe({}).parse(path.read_bytes(), KNOWN_AT) == []
    others = sorted(folder.glob("A75_*.xml"))
    assert len(others) == 3
    for path in others:
        with pytest.raises(FeedDataInvalid, match=r"documentType: must be A44.*'A75'"):
            Entsoe({}).parse(path.read_bytes(), KNOWN_AT)


# --- long series through the generic file --------------------------------------------------

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
