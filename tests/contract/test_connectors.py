"""One suite that every connector passes, whatever its provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

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
    """How to make a connector, a payload of its own (none where it reads none), its fixtures."""

    options: Mapping[str, str] = field(default_factory=dict)
    payload: bytes | None = None
    folder: str = ""


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
    return REGISTRY.create(name, CASES[name].options if options is None else options)


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
    assert set(REGISTRY.names()) == set(CASES)


def test_it_says_what_it_is_and_what_it_asks_for(name: str) -> None:
    kind = REGISTRY.load(name)
    assert kind.summary
    assert "\n" not in kind.summary
    assert len({option.name for option in kind.options}) == len(kind.options)
    assert all(option.help for option in kind.options)


def test_unknown_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"options\.colour: unknown option"):
        make(name, {**CASES[name].options, "colour": "red"})


def test_required_options_are_asked_for(name: str) -> None:
    for option in REGISTRY.load(name).options:
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
    context = FetchContext(RecordedHttp({}), KNOWN_AT, secret="s3cret")
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
    if other == name:
        make(name).parse(own_payload(other), KNOWN_AT)
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
        assert reader == "file"
        assert found == whole[: len(found)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
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
