import json
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.carbon.neso import Neso

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.recorded import RecordedHttp

NOW = datetime(2025, 3, 1, 12, 10, tzinfo=UTC)
BASE = "https://neso.example"


def slot(start: str, end: str, forecast: object, *actual: object) -> dict[str, object]:
    intensity = {"forecast": forecast, "index": "low"}
    if actual:
        intensity["actual"] = actual[0]
    return {"from": start, "to": end, "intensity": intensity}


NOON = slot("2025-03-01T12:00Z", "2025-03-01T12:30Z", 120, None)
MORNING = slot("2025-03-01T11:30Z", "2025-03-01T12:00Z", 110, 111)
EARLIER = slot("2025-03-01T11:00Z", "2025-03-01T11:30Z", 100, 99)


def answer(*slots: dict[str, object]) -> bytes:
    return json.dumps({"data": slots}).encode()


def regional(*slots: dict[str, object], as_list: bool, postcode: str = "RG10") -> bytes:
    region = {"regionid": 12, "shortname": "South", "postcode": postcode, "data": slots}
    return json.dumps({"data": [region] if as_list else region}).encode()


def test_forecast_and_actual_are_two_kinds() -> None:
    found = Neso({}).parse(answer(NOON, MORNING), NOW)
    assert [(item.start_at.hour, item.kind, item.value) for item in found] == [
        (11, ValueKind.FORECAST, 110.0),
        (11, ValueKind.MEASURED, 111.0),
        (12, ValueKind.FORECAST, 120.0),
    ]
    assert {item.unit for item in found} == {"gCO2eq/kWh"}
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=30)}


@pytest.mark.parametrize("as_list", [True, False])
def test_both_regional_envelopes_are_read(as_list: bool) -> None:
    start, end = "2025-03-01T12:00Z", "2025-03-01T12:30Z"
    payload = regional(slot(start, end, 55), as_list=as_list)
    for options in ({}, {"region": "12"}, {"postcode": "rg10"}):
        (found,) = Neso(options).parse(payload, NOW)
        assert (found.value, found.kind) == (55.0, ValueKind.FORECAST)


@pytest.mark.parametrize("options", [{"region": "13"}, {"postcode": "EN2"}])
def test_another_place_is_refused(options: dict[str, str]) -> None:
    for payload in (regional(NOON, as_list=True), answer(NOON)):
        with pytest.raises(FeedDataInvalid, match="must be"):
            Neso(options).parse(payload, NOW)


def test_past_and_ahead_are_asked_for_apart_and_cut_to_the_window() -> None:
    http = RecordedHttp(
        {
            f"{BASE}/intensity/2025-03-01T11:30Z/2025-03-01T12:00Z": answer(EARLIER, MORNING),
            f"{BASE}/intensity/2025-03-01T12:00Z/fw48h": answer(MORNING, NOON),
        }
    )
    window = Interval(NOW - timedelta(minutes=40), NOW + timedelta(hours=24))
    found = Neso({"base_url": BASE}).fetch(window, FetchContext(http, NOW))

    assert [(item.start_at.strftime("%H:%M"), item.value) for item in found] == [
        ("11:30", 110.0),
        ("11:30", 111.0),
        ("12:00", 120.0),
    ]
    assert len(http.asked) == 2


def test_a_window_ahead_is_one_request_and_a_long_past_is_cut() -> None:
    region = "/regionid/12"
    ahead = f"{BASE}/regional/intensity/2025-03-01T18:00Z/fw48h{region}"
    http = RecordedHttp({ahead: regional(NOON, as_list=True)})
    window = Interval(NOW + timedelta(hours=6), NOW + timedelta(hours=30))
    assert Neso({"base_url": BASE, "region": "12"}).fetch(window, FetchContext(http, NOW)) == []
    assert [url for url, _ in http.asked] == [ahead]

    paths = list(Neso({"postcode": "EN2"})._paths(Interval(NOW - timedelta(days=30), NOW), NOW))
    assert len(paths) in {4, 5}
    assert all(path.startswith("/regional/intensity/2025-") for path in paths)
    assert all(path.endswith("/postcode/EN2") for path in paths)


def test_a_refused_request_quotes_the_provider() -> None:
    url = f"{BASE}/intensity/2025-03-01T12:00Z/fw48h"
    body = b'{"error":{"code":"400 Bad Request","message":"Please enter a valid date"}}'
    http = RecordedHttp({url: HttpResponse(url, 400, {}, body)})
    window = Interval(NOW, NOW + timedelta(hours=1))
    with pytest.raises(FeedRejected, match="Please enter a valid date"):
        Neso({"base_url": BASE}).fetch(window, FetchContext(http, NOW))
    with pytest.raises(FeedRejected, match="400 Bad Request, Please enter a valid date"):
        Neso({}).parse(body, NOW)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"torn {", "must be JSON"),
        (b'{"data": 4}', "data: must be slots"),
        (b'{"data": [{"from": "2025-03-01T12:00Z"}]}', "to: must be there"),
        (answer(slot("2025-03-01T12:00", "2025-03-01T12:30Z", 1, 1)), "must carry a UTC offset"),
        (answer(slot("2025-03-01T12:00Z", "2025-03-01T11:30Z", 1, 1)), "must be after"),
        (answer(slot("2025-03-01T12:00Z", "2025-03-01T12:30Z", "many", 1)), "finite number"),
        (answer({**NOON, "intensity": {"actual": 3}}), "intensity.forecast"),
    ],
)
def test_bad_payloads_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        Neso({}).parse(payload, NOW)


@pytest.mark.parametrize(
    "options",
    [
        {"region": "18"},
        {"region": "GB"},
        {"postcode": "RG10 9XX"},
        {"region": "1", "postcode": "RG10"},
        {"base_url": "neso"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="options"):
        Neso(options)


def test_it_gives_average_carbon() -> None:
    assert Neso({}).quantity is Quantity.AVERAGE_INTENSITY
