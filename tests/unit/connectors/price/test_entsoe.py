from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pals_grid_connectors.entsoe_zones import ZONES, is_eic
from pals_grid_connectors.price.entsoe import Entsoe

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 3, 1, 23, tzinfo=UTC)
BASE = "https://entsoe.example/api"
TOKEN = "a-security-token"
WINDOW = Interval(START_AT, START_AT + timedelta(hours=3))


def document(*series: str, document_type: str = "A44", version: str = "7:3") -> bytes:
    space = f"urn:iec62325.351:tc57wg16:451-3:publicationdocument:{version}"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Publication_MarketDocument xmlns="{space}">'
        f"<type>{document_type}</type>{''.join(series)}</Publication_MarketDocument>"
    ).encode()


def series(
    *points: tuple[object, object],
    curve: str | None = "A03",
    sequence: int | None = None,
    resolution: str = "PT60M",
    hours: int = 3,
    **changes: str,
) -> str:
    fields = {
        "in_Domain.mRID": ZONES["NL"],
        "contract_MarketAgreement.type": "A01",
        "currency_Unit.name": "EUR",
        "price_Measure_Unit.name": "MWH",
    } | {name.replace("__", "."): text for name, text in changes.items()}
    if sequence is not None:
        fields["classificationSequence_AttributeInstanceComponent.position"] = str(sequence)
    if curve is not None:
        fields["curveType"] = curve
    start, end = (
        instant.strftime("%Y-%m-%dT%H:%MZ")
        for instant in (START_AT, START_AT + timedelta(hours=hours))
    )
    rows = "".join(
        f"<Point><position>{position}</position><price.amount>{price}</price.amount></Point>"
        for position, price in points
    )
    head = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return (
        f"<TimeSeries>{head}<Period><timeInterval><start>{start}</start><end>{end}</end>"
        f"</timeInterval><resolution>{resolution}</resolution>{rows}</Period></TimeSeries>"
    )


def acknowledgement(*reasons: tuple[str, str]) -> bytes:
    said = "".join(
        f"<Reason><code>{code}</code><text>{text}</text></Reason>" for code, text in reasons
    )
    return (
        "<Acknowledgement_MarketDocument xmlns='urn:iec62325.351:tc57wg16:451-1:x:7:0'>"
        f"{said}</Acknowledgement_MarketDocument>"
    ).encode()


def values(payload: bytes, **options: str) -> list[tuple[int, float]]:
    return [
        (round((item.start_at - START_AT).total_seconds() / 60), item.value)
        for item in Entsoe(options).parse(payload, START_AT)
    ]


def fetch(body: bytes, status: int = 200, **options: str) -> list[float]:
    http = RecordedHttp({BASE: HttpResponse(BASE, status, {}, body)})
    context = FetchContext(http, START_AT, TOKEN)
    connector = Entsoe({"zone": "NL", "base_url": BASE} | options)
    return [item.value for item in connector.fetch(WINDOW, context)]


def test_prices_are_measured_in_the_currency_of_the_zone() -> None:
    payload = document(series((1, "-0.01"), (2, "12.5"), (3, "3"), currency_Unit__name="PLN"))
    found = Entsoe({}).parse(payload, START_AT)
    assert [item.value for item in found] == [-0.01, 12.5, 3.0]
    assert {(item.unit, item.kind) for item in found} == {("PLN/MWh", ValueKind.MEASURED)}
    assert Entsoe({}).quantity is Quantity.PRICE


@pytest.mark.parametrize("version", ["7:0", "7:3", "8:1"])
def test_any_version_of_the_schema_is_read(version: str) -> None:
    assert values(document(series((1, 1), hours=1), version=version)) == [(0, 1.0)]


def test_a03_repeats_what_is_left_out_and_a01_leaves_a_gap() -> None:
    points = [(1, 10), (3, 30)]
    assert values(document(series(*points))) == [(0, 10), (60, 10), (120, 30)]
    assert values(document(series(*points, curve="A01"))) == [(0, 10), (120, 30)]
    assert values(document(series(*points, curve=None))) == [(0, 10), (120, 30)]


def test_a03_repeats_to_the_end_but_not_before_the_first_nor_into_the_next_period() -> None:
    assert values(document(series((2, 5)))) == [(60, 5), (120, 5)]
    later = series((2, 7)).replace(
        "2025-03-01T23:00Z</start><end>2025-03-02T02:00Z",
        "2025-03-02T02:00Z</start><end>2025-03-02T05:00Z",
    )
    assert values(document(series((1, 5)), later)) == [
        (0, 5),
        (60, 5),
        (120, 5),
        (240, 7),
        (300, 7),
    ]


@given(st.dictionaries(st.integers(1, 100), st.integers(-500, 4000), min_size=1))
def test_a03_equals_the_last_point_at_or_before_each_position(points: dict[int, int]) -> None:
    payload = document(series(*points.items(), resolution="PT15M", hours=25))
    expected = [
        ((position - 1) * 15, points[max(held for held in points if held <= position)])
        for position in range(min(points), 101)
    ]
    assert values(payload) == expected


@pytest.mark.parametrize(("resolution", "count"), [("PT15M", 12), ("PT30M", 6), ("PT60M", 3)])
def test_resolutions(resolution: str, count: int) -> None:
    found = values(document(series((1, 1), resolution=resolution)))
    assert found == [(index * 180 // count, 1.0) for index in range(count)]


def test_sequence_1_is_pinned() -> None:
    both = document(series((1, 1), sequence=1), series((1, 2), sequence=2, resolution="PT15M"))
    assert {value for _, value in values(both)} == {1.0}
    assert {value for _, value in values(both, sequence="2")} == {2.0}


def test_sequence_2_alone_is_no_data() -> None:
    assert values(document(series((1, 2), sequence=2))) == []


def test_intraday_auctions_are_not_day_ahead() -> None:
    assert values(document(series((1, 2), contract_MarketAgreement__type="A07"))) == []


def test_another_zone_is_refused() -> None:
    with pytest.raises(FeedDataInvalid, match=r"in_Domain\.mRID: must be 10YFR"):
        values(document(series((1, 2))), zone="FR")


def test_no_matching_data_gives_no_values() -> None:
    payload = acknowledgement(("999", "No matching data found for Data item Energy Prices"))
    assert values(payload) == []
    assert fetch(payload) == []
    assert fetch(payload, status=400) == []


def test_any_other_acknowledgement_is_rejected_with_its_reason() -> None:
    payload = acknowledgement(("999", "The amount of requested data exceeds allowed limit"))
    with pytest.raises(FeedRejected, match="reason 999, The amount of requested data exceeds"):
        values(payload)
    with pytest.raises(FeedRejected, match=r"HTTP 400.*reason 999, The amount of requested"):
        fetch(payload, status=400)


@pytest.mark.parametrize(
    "reasons",
    [
        [("999", "Delivered time interval is not valid")],
        [("A59", "No matching data found, because the document was refused")],
        [("999", "The zone is unknown; no matching data found for it")],
        [("999", "No matching data found"), ("999", "Unauthorised")],
        [("999", "")],
        [],
    ],
)
def test_whatever_else_an_acknowledgement_says_is_an_error(reasons: list[tuple[str, str]]) -> None:
    payload = acknowledgement(*reasons)
    with pytest.raises(FeedRejected, match=r"acknowledgement without a reason|reason "):
        values(payload)
    for status in (200, 400):
        with pytest.raises(FeedRejected):
            fetch(payload, status=status)


def test_an_error_page_is_quoted_without_its_tags() -> None:
    with pytest.raises(FeedRejected, match=r"HTTP 401 .*: Unauthorized Missing token$"):
        fetch(b"<html><h1>Unauthorized</h1> Missing token</html>", status=401)
    with pytest.raises(FeedUnavailable, match=r"HTTP 503 .*: down$"):
        fetch(b"down", status=503)


def test_the_request_is_in_whole_hours_of_utc_and_the_answer_cut_to_the_window() -> None:
    http = RecordedHttp({BASE: document(series(*((hour, hour) for hour in range(1, 4))))})
    window = Interval(START_AT + timedelta(minutes=75), START_AT + timedelta(minutes=90))
    connector = Entsoe({"zone": "nl", "base_url": BASE})
    found = connector.fetch(window, FetchContext(http, START_AT, TOKEN))
    assert [item.value for item in found] == [2.0]
    ((url, params),) = http.asked
    assert url == BASE
    assert params == {
        "securityToken": TOKEN,
        "documentType": "A44",
        "in_Domain": "10YNL----------L",
        "out_Domain": "10YNL----------L",
        "contract_MarketAgreement.type": "A01",
        "periodStart": "202503020000",
        "periodEnd": "202503020100",
    }


def test_zone_and_token_are_needed_to_fetch() -> None:
    context = FetchContext(RecordedHttp({}), START_AT)
    with pytest.raises(FeedRejected, match="zone is needed"):
        Entsoe({}).fetch(WINDOW, context)
    with pytest.raises(FeedRejected, match="token is needed"):
        Entsoe({"zone": "NL"}).fetch(WINDOW, context)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"{}", "must be XML"),
        (b"<a>", "must be XML"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "must be XML"),
        (document(series((1, 1)), document_type="A75"), "documentType: must be A44.*'A75'"),
        (b"<GL_MarketDocument><type>A44</type></GL_MarketDocument>", "GL_MarketDocument.*'A44'"),
        (document(series((1, 1)), document_type="A61"), "documentType: must be A44.*or A75.*'A61'"),
        (b"<html/>", "documentType"),
        (document(series((1, "NaN"))), r"price\.amount: must be a finite number, got 'NaN'"),
        (document(series((1, ""))), r"price\.amount"),
        (document(series((4, 1))), "position: must be from 1 to 3, each once, got '4'"),
        (document(series((0, 1))), "position"),
        (document(series((1, 1), (1, 2))), "position"),
        (document(series(("one", 1))), "position"),
        (document(series()), "Point: must be there"),
        (document(series((1, 1), resolution="P1Y")), "resolution: must be one of PT15M"),
        (document(series((1, 1), curve="A05")), "curveType"),
        (document(series((1, 1), currency_Unit__name="euro")), r"currency_Unit\.name"),
        (document(series((1, 1), price_Measure_Unit__name="KWH")), r"price_Measure_Unit\.name"),
        (document(series((1, 1)).replace("02:00Z", "02:30Z")), "must be a multiple of PT60M"),
        (document(series((1, 1)).replace("timeInterval", "span")), "timeInterval: must be there"),
        (document(series((1, 1)).replace("23:00Z", "23:00")), "must carry a UTC offset"),
    ],
)
def test_bad_payloads_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        Entsoe({}).parse(payload, START_AT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zone", "ATLANTIS"),
        ("zone", "10YNL----------M"),
        ("sequence", "0"),
        ("document", "A61"),
        ("factors", "none"),
        ("other_g_per_kwh", "-1"),
        ("other_g_per_kwh", "5001"),
        ("other_g_per_kwh", "some"),
        ("base_url", "x"),
        ("token", "x"),
    ],
)
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}.*{value}"):
        Entsoe({name: value})


def test_every_zone_has_a_code_with_its_check_character() -> None:
    assert [zone for zone, code in ZONES.items() if not is_eic(code)] == []


def test_a_curve_of_one_point_for_a_thousand_years_is_refused() -> None:
    bomb = document(series((1, 5), hours=1000 * 8760, resolution="PT15M"))
    with pytest.raises(FeedDataInvalid, match="must give at most 200000 values"):
        Entsoe({"zone": "NL"}).parse(bomb, START_AT)
