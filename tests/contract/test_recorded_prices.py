"""Recorded prices of Octopus and ENTSO-E give the values that are expected of them."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from pals_grid_connectors.price.entsoe import Entsoe
from pals_grid_connectors.price.octopus_agile import OctopusAgile

from pals_grid.core.errors import FeedDataInvalid
from pals_grid.core.series import Observation
from pals_grid.feeds.guard import parse_guarded
from tests.contract.recorded import KNOWN_AT, STEPS, at, expected

# --- octopus -----------------------------------------------------------------------------


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


# --- entsoe ------------------------------------------------------------------------------


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
    for document, others in (("A44", "A75_*.xml"), ("A75", "*A44_*.xml")):
        for path in folder.glob(others):
            with pytest.raises(FeedDataInvalid, match=f"documentType: must be {document} in"):
                Entsoe({"document": document}).parse(path.read_bytes(), KNOWN_AT)
