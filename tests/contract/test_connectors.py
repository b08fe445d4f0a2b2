"""One suite that every connector passes, whatever its provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pals_grid.core.errors import FeedDataInvalid, FeedError, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import Connector, FetchContext
from pals_grid.core.series import Observation
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.feeds.registry import ConnectorRegistry

KNOWN_AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
WINDOW = Interval(KNOWN_AT - timedelta(hours=6), KNOWN_AT + timedelta(hours=24))
REGISTRY = ConnectorRegistry()


@dataclass(frozen=True)
class Case:
    """How to make a connector, a payload of its own (none where it reads none), its fixtures.

    ``secret`` is of the form that it wants. ``by_line``: the payload is bare CSV, in which a tear
    between two lines cannot be seen.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    payload: bytes | None = None
    folder: str = ""
    secret: str = "s3cret"
    by_line: bool = False


def zipped(text: str) -> bytes:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("20250301_20250301_PRC_LMP_DAM_v12.csv", text)
    return packed.getvalue()


CASES = {
    "octopus_agile": Case(
        payload=b"""{"next": null, "results": [
            {"value_exc_vat": 7.48, "value_inc_vat": 7.854, "payment_method": null,
             "valid_from": "2025-03-01T12:30:00Z", "valid_to": "2025-03-01T13:00:00Z"},
            {"value_exc_vat": -1.2, "value_inc_vat": -1.26, "payment_method": null,
             "valid_from": "2025-03-01T12:00:00Z", "valid_to": "2025-03-01T12:30:00Z"}]}""",
        folder="octopus",
    ),
    "neso": Case(
        payload=b"""{"data": [{"from": "2025-03-01T12:00Z", "to": "2025-03-01T12:30Z",
            "intensity": {"forecast": 120, "actual": 118, "index": "moderate"}}]}""",
        folder="neso_carbon",
    ),
    "electricity_maps": Case(
        {"zone": "DE"},
        payload=b"""{"zone": "DE", "history": [
            {"zone": "DE", "carbonIntensity": 380, "datetime": "2025-03-01T11:00:00.000Z",
             "isEstimated": false},
            {"zone": "DE", "carbonIntensity": 371.5, "datetime": "2025-03-01T12:00:00.000Z",
             "isEstimated": true}]}""",
        folder="electricitymaps",
    ),
    "watttime": Case(
        {"region": "CAISO_NORTH"},
        payload=b"""{"data": [{"point_time": "2025-03-01T12:00:00+00:00", "value": 900},
             {"point_time": "2025-03-01T12:05:00+00:00", "value": 905.5}],
            "meta": {"data_point_period_seconds": 300, "region": "CAISO_NORTH", "warnings": [],
             "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}}""",
        folder="watttime",
        secret="someone:s3cret",
    ),
    "entsoe": Case(
        {"zone": "NL"},
        payload=b"""<Publication_MarketDocument xmlns="urn:x:7:3"><type>A44</type><TimeSeries>
            <in_Domain.mRID>10YNL----------L</in_Domain.mRID>
            <currency_Unit.name>EUR</currency_Unit.name>
            <price_Measure_Unit.name>MWH</price_Measure_Unit.name><curveType>A03</curveType>
            <Period><timeInterval><start>2025-03-01T12:00Z</start><end>2025-03-01T14:00Z</end>
            </timeInterval><resolution>PT60M</resolution><Point><position>1</position>
            <price.amount>-3.5</price.amount></Point></Period></TimeSeries>
            </Publication_MarketDocument>""",
        folder="entsoe",
    ),
    "entsoe generation": Case(
        {"zone": "NL", "document": "A75"},
        payload=b"""<GL_MarketDocument xmlns="urn:x:3:0"><type>A75</type><TimeSeries>
            <inBiddingZone_Domain.mRID>10YNL----------L</inBiddingZone_Domain.mRID>
            <quantity_Measure_Unit.name>MAW</quantity_Measure_Unit.name>
            <curveType>A03</curveType><MktPSRType><psrType>B04</psrType></MktPSRType>
            <Period><timeInterval><start>2025-03-01T12:00Z</start><end>2025-03-01T12:30Z</end>
            </timeInterval><resolution>PT15M</resolution><Point><position>1</position>
            <quantity>350</quantity></Point></Period></TimeSeries></GL_MarketDocument>""",
        folder="entsoe",
    ),
    "energy_charts": Case(
        {"zone": "NL"},
        payload=b"""{"license_info": "", "unix_seconds": [1740830400, 1740834000],
            "price": [-3.5, 12], "unit": "EUR / MWh", "deprecated": false}""",
        folder="energycharts",
    ),
    "eia": Case(
        {"respondent": "PJM"},
        payload=b"""{"response": {"total": "2", "frequency": "hourly", "data": [
            {"period": "2025-03-01T12", "respondent": "PJM", "fueltype": "NG", "value": "41",
             "value-units": "megawatthours"},
            {"period": "2025-03-01T13", "respondent": "PJM", "fueltype": "NG", "value": "43",
             "value-units": "megawatthours"}]}, "apiVersion": "2.1.8"}""",
        folder="eia",
    ),
    "pjm": Case(
        {"pnode_id": "34964545"},
        payload=b"""{"links": [{"rel": "self",
            "href": "https://api.pjm.com/api/v1/rt_unverified_fivemin_lmps?startRow=1"}],
            "items": [{"datetime_beginning_utc": "2025-03-01T12:00:00", "pnode_id": 34964545,
             "pnode_name": "DOM", "total_lmp_rt": 31.5},
            {"datetime_beginning_utc": "2025-03-01T12:05:00", "pnode_id": 34964545,
             "pnode_name": "DOM", "total_lmp_rt": -2.25}], "totalRows": 2}""",
        folder="pjm",
    ),
    "pjm generation": Case(
        {"feed": "gen_by_fuel"},
        payload=b"""{"items": [
            {"datetime_beginning_utc": "2025-03-01T11:00:00", "fuel_type": "Gas", "mw": 41},
            {"datetime_beginning_utc": "2025-03-01T12:00:00", "fuel_type": "Gas", "mw": 43}],
            "totalRows": 2}""",
        folder="pjm",
    ),
    "file": Case(
        {
            "quantity": "price",
            "unit": "EUR/MWh",
            "start_column": "begins",
            "value_column": "price",
            "interval_s": "1800",
            "url": "https://files.example/prices.csv",
        },
        payload=b"price,begins\n41.5,2025-03-01T12:00Z\n39,2025-03-01T12:30Z\n",
        by_line=True,
    ),
    "caiso": Case(
        {"location": "NODE_1"},
        payload=zipped(
            "INTERVALSTARTTIME_GMT,INTERVALENDTIME_GMT,OPR_DT,NODE,MARKET_RUN_ID,LMP_TYPE,MW\n"
            "2025-03-01T13:00:00-00:00,2025-03-01T14:00:00-00:00,2025-03-01,NODE_1,DAM,LMP,-4.5\n"
            "2025-03-01T12:00:00-00:00,2025-03-01T13:00:00-00:00,2025-03-01,NODE_1,DAM,LMP,41.25\n"
        ),
        folder="caiso",
    ),
    "ercot": Case(
        {"location": "HB_NORTH"},
        payload=b"""{"fields": [{"name": "deliveryDate"}, {"name": "hourEnding"},
            {"name": "settlementPoint"}, {"name": "settlementPointPrice"}, {"name": "DSTFlag"}],
            "data": [["2025-03-01", "06:00", "HB_NORTH", 21.5, false],
                     ["2025-03-01", "07:00", "HB_NORTH", -3, false]]}""",
        folder="ercot",
        secret="user@example.com:s3cret:0123456789",
    ),
    "miso": Case(
        {"location": "INDIANA.HUB", "market": "real_time"},
        payload=b"""{"headers": ["INTERVAL", "CPNODE", "LMP", "MLC", "MCC"],
            "data": [["2025-03-01T07:00:00", "INDIANA.HUB", "31.20", "0.4", "-1.1"],
                     ["2025-03-01T07:05:00", "INDIANA.HUB", "-2.07", "0.1", "-9"]]}""",
        folder="miso",
    ),
    "nyiso": Case(
        {"location": "N.Y.C."},
        payload=b"""Time Stamp,Name,PTID,LBMP ($/MWHr),Marginal Cost Losses ($/MWHr)
03/01/2025 07:00,N.Y.C.,61761,48.02,2.1
03/01/2025 08:00,N.Y.C.,61761,51.9,2.4
""",
        folder="nyiso",
        by_line=True,
    ),
    "spp": Case(
        {"location": "SPPNORTH_HUB", "market": "real_time"},
        payload=b"""Interval,GMTIntervalEnd,Settlement Location,Pnode,LMP,MLC
03/01/2025 06:05:00,03/01/2025 12:05:00,SPPNORTH_HUB,SPPNORTH_HUB,-12.5,0.1
03/01/2025 06:10:00,03/01/2025 12:10:00,SPPNORTH_HUB,SPPNORTH_HUB,18.25,0.2
""",
        folder="spp",
        by_line=True,
    ),
    "synthetic": Case(),
}
# What a payload may be instead of what it should be.
WRECKS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"data": []',
    b'{"data": {"data": null}}',
    b'{"results": [null]}',
    b'{"data": [[]]}',
    b"<html><body>Service Unavailable</body></html>",
    b"<Publication_MarketDocument/>",
    b"\x1f\x8b\x08torn",
    b"PK\x03\x04",
    b"\x00" * 64,
    b"[" * 100_000,
]


def make(name: str, options: Mapping[str, str] | None = None) -> Connector:
    return REGISTRY.create(connector(name), CASES[name].options if options is None else options)


def connector(name: str) -> str:
    """The connector of a case; what follows it tells its cases apart."""
    return name.partition(" ")[0]


def own_payload(name: str) -> bytes:
    payload = CASES[name].payload
    assert payload is not None
    return payload


def require_sound(found: list[Observation]) -> None:
    assert all(item.start_at < item.end_at for item in found)
    assert all(item.start_at.utcoffset() == timedelta(0) for item in found)
    assert all(one.start_at <= other.start_at for one, other in pairwise(found))


# ``synthetic`` reads no payload and asks nobody.
READERS = sorted(name for name, case in CASES.items() if case.payload is not None)


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_installed_connector_is_in_this_suite() -> None:
    assert set(REGISTRY.names()) == {connector(name) for name in CASES}


def test_it_says_what_it_is_and_what_it_asks_for(name: str) -> None:
    kind = REGISTRY.load(connector(name))
    assert kind.summary
    assert "\n" not in kind.summary
    assert len({option.name for option in kind.options}) == len(kind.options)
    assert all(option.help for option in kind.options)


def test_unknown_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"options\.colour: unknown option"):
        make(name, {**CASES[name].options, "colour": "red"})


def test_required_options_are_asked_for(name: str) -> None:
    for option in REGISTRY.load(connector(name)).options:
        if option.default is None:
            others = {key: text for key, text in CASES[name].options.items() if key != option.name}
            with pytest.raises(InvalidValue, match=rf"options\.{option.name}: is required"):
                make(name, others)


def test_its_own_payload_gives_sound_values_known_when_told(reader: str) -> None:
    found = parse_guarded(make(reader), own_payload(reader), KNOWN_AT)
    assert found == make(reader).parse(own_payload(reader), KNOWN_AT)
    require_sound(found)
    assert len(found) == 2
    assert {item.known_at for item in found} == {KNOWN_AT}


def test_without_an_answer_it_is_unavailable_and_keeps_the_secret(reader: str) -> None:
    context = FetchContext(RecordedHttp({}), KNOWN_AT, secret=CASES[reader].secret)
    with pytest.raises(FeedUnavailable) as caught:
        fetch_guarded(make(reader), WINDOW, context)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("wreck", WRECKS, ids=lambda wreck: repr(wreck[:24]))
def test_wrecks_are_refused_in_a_sentence(name: str, wreck: bytes) -> None:
    with pytest.raises(FeedDataInvalid) as caught:
        make(name).parse(wreck, KNOWN_AT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", READERS)
def test_another_provider_s_payload_is_refused(name: str, other: str) -> None:
    if connector(other) == connector(name):
        # A connector may tell its documents apart by themselves.
        make(other).parse(own_payload(other), KNOWN_AT)
        return
    with pytest.raises(FeedDataInvalid):
        make(name).parse(own_payload(other), KNOWN_AT)


def test_a_torn_payload_is_refused_or_gives_only_whole_lines(reader: str) -> None:
    payload = own_payload(reader)
    whole = make(reader).parse(payload, KNOWN_AT)
    for length in range(len(payload.rstrip()) - 1):
        try:
            found = make(reader).parse(payload[:length], KNOWN_AT)
        except FeedDataInvalid:
            continue
        # In CSV a tear between two lines cannot be seen; what is left is right all the same.
        assert CASES[reader].by_line
        assert found == whole[: len(found)]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
)
@given(st.binary(max_size=200), st.integers(0, 600))
def test_no_damage_raises_anything_else(name: str, junk: bytes, at: int) -> None:
    payload = CASES[name].payload or b""
    damaged = payload[:at] + junk + payload[at + len(junk) :]
    for candidate in (junk, damaged):
        try:
            found = make(name).parse(candidate, KNOWN_AT)
        except FeedError:
            continue
        require_sound(found)


def test_every_recorded_payload_of_another_provider_is_refused(
    name: str, shared_data: Path
) -> None:
    read = 0
    for path in sorted((shared_data / "fixtures").glob("*/*")):
        own = path.parent.name == CASES[name].folder
        if own or path.name in {"SOURCES.md", "EXPECTED.json"}:
            continue
        # Without the option zone, so that no chance mismatch of zones hides a misreading.
        options = {key: text for key, text in CASES[name].options.items() if key != "zone"}
        with pytest.raises(FeedDataInvalid) as caught:
            make(name, options).parse(path.read_bytes(), KNOWN_AT)
        assert "\n" not in str(caught.value), path
        read += 1
    assert read > 40
