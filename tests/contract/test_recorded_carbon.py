"""Recorded carbon intensities give the values that are expected of them."""

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from pals_grid_connectors.carbon.electricity_maps import ElectricityMaps
from pals_grid_connectors.carbon.neso import Neso
from pals_grid_connectors.carbon.watttime import WattTime

from pals_grid.core.errors import FeedDataInvalid, FeedRejected
from pals_grid.core.series import ValueKind
from pals_grid.feeds.guard import parse_guarded
from tests.contract.recorded import KNOWN_AT, at, expected

# --- neso --------------------------------------------------------------------------------

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


# --- electricity maps --------------------------------------------------------------------


def test_electricity_maps(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "electricitymaps"
    history = (folder / "carbon_intensity_history.json").read_bytes()
    found = parse_guarded(ElectricityMaps({"zone": "DE"}), history, KNOWN_AT)
    raw = json.loads(history)["history"]
    assert [item.value for item in found] == [float(record["carbonIntensity"]) for record in raw]
    assert (found[0].start_at, found[0].value) == (at("2024-03-05T20:00Z"), 599.0)
    assert found[0].known_at == at("2024-03-06T15:48:54.012Z")
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    for item, record in zip(found, raw, strict=True):
        assert (item.kind is ValueKind.FORECAST) == record["isEstimated"]
    latest = (folder / "latest_carbon_intensity.json").read_bytes()
    (now,) = parse_guarded(ElectricityMaps({"zone": "US-CAR-DUK"}), latest, KNOWN_AT)
    assert (now.value, now.kind) == (216.0, ValueKind.FORECAST)
    assert now.known_at == at("2024-03-06T18:48:27.926Z")


def test_electricity_maps_without_intensities(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "electricitymaps"
    assert (
        ElectricityMaps({}).parse((folder / "no-data-response.json").read_bytes(), KNOWN_AT) == []
    )
    for name, told in (("unknown-response", "idk-what-happened"), ("response", "CO2 Signal")):
        with pytest.raises(FeedRejected, match=told):
            ElectricityMaps({}).parse((folder / f"{name}.json").read_bytes(), KNOWN_AT)
    breakdown = (folder / "latest_power_breakdown.json").read_bytes()
    with pytest.raises(FeedDataInvalid, match="a power breakdown"):
        ElectricityMaps({}).parse(breakdown, KNOWN_AT)


# --- watttime ----------------------------------------------------------------------------


def test_watttime(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "watttime"
    for file_name, wanted in expected(folder).items():
        payload = (folder / file_name).read_bytes()
        found = parse_guarded(WattTime({"region": "CAISO_NORTH"}), payload, KNOWN_AT)
        values = [item.value for item in found]
        assert len(found) == wanted["n"]
        assert round(fmean(values), 6) == wanted["mean_g_per_kWh"]
        assert values[0] == wanted["first_g_per_kWh"]
        assert (min(values), max(values)) == (wanted["min"], wanted["max"])
        assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}
        assert {item.kind for item in found} == {ValueKind.MEASURED}


@pytest.mark.parametrize(
    ("name", "signal", "count", "first_lb_per_mwh", "known_at"),
    [
        ("historical", "co2_moer", 2, 870, None),
        ("forecast", "co2_moer", 2, 1048.4131919701972, "2022-07-15T00:00Z"),
        ("forecast_historical", "co2_moer", 2, 870, "2022-07-15T00:00Z"),
        ("historical_aoer_imputed", "co2_aoer", 2, 1267.717268507, None),
    ],
)
def test_watttime_samples(
    shared_data: Path,
    name: str,
    signal: str,
    count: int,
    first_lb_per_mwh: float,
    known_at: str | None,
) -> None:
    payload = (shared_data / f"fixtures/watttime/DOC_v3_{name}.json").read_bytes()
    found = parse_guarded(WattTime({"signal_type": signal}), payload, KNOWN_AT)
    assert len(found) == count
    assert found[0].value == pytest.approx(first_lb_per_mwh * 0.45359237, rel=1e-12)
    assert {item.known_at for item in found} == {at(known_at) if known_at else KNOWN_AT}
    if signal == "co2_aoer":
        with pytest.raises(FeedDataInvalid, match="signal_type: must be co2_moer"):
            WattTime({}).parse(payload, KNOWN_AT)
