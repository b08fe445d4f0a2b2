"""The recorded generation mixes, and the prices of their providers, give what is expected."""

import json
from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from pals_grid_connectors.carbon.eia import Eia
from pals_grid_connectors.entsoe_xml import load_xml
from pals_grid_connectors.price.energy_charts import EnergyCharts
from pals_grid_connectors.price.entsoe import FUELS, Entsoe, read_generation
from pals_grid_connectors.price.pjm import Pjm

from pals_grid.core.errors import FeedDataInvalid
from pals_grid.core.intervals import parse_instant
from pals_grid.core.mix import LIFECYCLE_G_PER_KWH, Fuel, Generation
from pals_grid.feeds.guard import parse_guarded
from tests.contract.recorded import KNOWN_AT, STEPS, expected

MIXES = {
    "A75_FR_2024-06-15_A03.xml": ("2024-06-14T22:00Z", 24),
    "A75_NL_2024-09-02_PT15M_A03.xml": ("2024-09-01T22:00Z", 96),
    "A75_SE4_production.xml": ("2025-10-20T11:00Z", 71),
}


# --- entsoe --------------------------------------------------------------------------------


def by_plant(payload: bytes) -> dict[str, list[Generation]]:
    """The reading of a mix, by the names of the expected figures."""
    found: dict[str, list[Generation]] = defaultdict(list)
    for item in read_generation(load_xml(payload), None):
        found[item.series + ("_consumption" if item.is_consumption else "")].append(item)
    return found


@pytest.mark.parametrize("file_name", MIXES)
def test_entsoe_reads_every_plant_of_a_mix(shared_data: Path, file_name: str) -> None:
    folder = shared_data / "fixtures" / "entsoe"
    found = by_plant((folder / file_name).read_bytes())
    figures = expected(folder)[file_name]
    assert found.keys() == figures.keys()
    for plant, wanted in figures.items():
        values = found[plant]
        edges = [(one.interval.end_at, other.interval.start_at) for one, other in pairwise(values)]
        assert len(values) == wanted["intervals"]
        assert sum(abs(item.net_mwh) for item in values) == pytest.approx(wanted["mwh"], abs=5e-4)
        assert {item.interval.end_at - item.interval.start_at for item in values} == {
            STEPS[wanted["resolution"]]
        }
        assert 1 + sum(end_at != start_at for end_at, start_at in edges) == wanted["periods"]


@pytest.mark.parametrize("file_name", MIXES)
@pytest.mark.parametrize("options", [{}, {"document": "A75"}])
def test_entsoe_gives_carbon_without_an_option_too(
    shared_data: Path, file_name: str, options: dict[str, str]
) -> None:
    payload = (shared_data / "fixtures" / "entsoe" / file_name).read_bytes()
    first, count = MIXES[file_name]
    found = parse_guarded(Entsoe(options), payload, KNOWN_AT)
    assert len(found) == count
    assert found[0].start_at == parse_instant("first", first)
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    assert all(12 < item.value < 1054 for item in found)


@pytest.mark.parametrize("file_name", ["A75_FR_2024-06-15_A03.xml", "A75_SE4_production.xml"])
def test_entsoe_carbon_adds_up_to_that_of_the_expected_energies(
    shared_data: Path, file_name: str
) -> None:
    """Where no plant takes more than it gives, grams are those of the whole span's energies."""
    folder = shared_data / "fixtures" / "entsoe"
    payload = (folder / file_name).read_bytes()
    figures = {
        plant: wanted["mwh"]
        for plant, wanted in expected(folder)[file_name].items()
        if FUELS[plant[:3]] is not Fuel.STORAGE
    }
    grams = sum(mwh * LIFECYCLE_G_PER_KWH[FUELS[plant]] for plant, mwh in figures.items())
    generated = defaultdict[datetime, float](float)
    for plant in figures:
        for item in by_plant(payload)[plant]:
            generated[item.interval.start_at] += item.net_mwh
    found = Entsoe({}).parse(payload, KNOWN_AT)
    total = sum(generated[item.start_at] * item.value for item in found)
    assert total == pytest.approx(grams, rel=1e-6)


# --- eia -----------------------------------------------------------------------------------


def test_eia(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "eia"
    assert expected(folder) == {}
    (gas,) = parse_guarded(Eia({}), (folder / "US-NW-PGE-with-nulls.json").read_bytes(), KNOWN_AT)
    assert gas.start_at == parse_instant("start", "2022-10-31T11:00Z")
    assert (gas.end_at - gas.start_at, gas.value) == (timedelta(hours=1), 490.0)
    empty = (folder / "US_CAR_SC-nuclear.json").read_bytes()
    assert Eia({}).parse(empty, KNOWN_AT) == []
    flows = (folder / "US-FLA-FPC_US-FLA-FPL_exchange.json").read_bytes()
    with pytest.raises(FeedDataInvalid, match="description: must say 'net generation"):
        Eia({}).parse(flows, KNOWN_AT)


# --- pjm -----------------------------------------------------------------------------------

PJM_G_PER_KWH = {
    "Coal": 820,
    "Gas": 490,
    "Hydro": 24,
    "Multiple Fuels": 700,
    "Nuclear": 12,
    "Oil": 840,
    "Other Renewables": 230,
    "Solar": 48,
    "Wind": 11,
}


def test_pjm_mix(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "pjm"
    for file_name, wanted in expected(folder).items():
        payload = (folder / file_name).read_bytes()
        raw = json.loads(payload)
        assert (len(raw["items"]), list(raw)) == (wanted["items"], wanted["keys"])
        hours: dict[str, dict[str, float]] = defaultdict(dict)
        for row in raw["items"]:
            if row["fuel_type"] != "Storage":
                hours[row["datetime_beginning_utc"]][row["fuel_type"]] = max(0, row["mw"])
        found = parse_guarded(Pjm({}), payload, KNOWN_AT)
        assert found == parse_guarded(Pjm({"feed": "gen_by_fuel"}), payload, KNOWN_AT)
        assert [item.start_at for item in found] == [
            parse_instant("hour", f"{hour}Z") for hour in sorted(hours)
        ]
        for item, (_, mix) in zip(found, sorted(hours.items()), strict=True):
            grams = sum(PJM_G_PER_KWH[fuel] * mw for fuel, mw in mix.items())
            assert item.value == pytest.approx(grams / sum(mix.values()))
        assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}


def test_pjm_feeds_that_are_no_prices_are_refused_by_name(shared_data: Path) -> None:
    path = shared_data / "fixtures/pjm/rt_marginal_value_2024-09-02_0.json"
    with pytest.raises(FeedDataInvalid, match=r"feed: must be .* got 'rt_marginal_value'"):
        Pjm({}).parse(path.read_bytes(), KNOWN_AT)


# --- energy-charts -------------------------------------------------------------------------


def test_energy_charts(shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "energycharts"
    for file_name, wanted in expected(folder).items():
        found = parse_guarded(EnergyCharts({}), (folder / file_name).read_bytes(), KNOWN_AT)
        assert len(found) == wanted["n"]
        assert found[0].start_at.timestamp() == wanted["first_unix"]
        assert found[0].value == wanted["first_price"]
        assert max(item.value for item in found) == wanted["max"]
        assert {item.unit for item in found} == {"EUR/MWh"}
        assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}
        assert all(one.end_at == other.start_at for one, other in pairwise(found))
