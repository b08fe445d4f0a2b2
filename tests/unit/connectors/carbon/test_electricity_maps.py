import json
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.carbon.electricity_maps import ElectricityMaps

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.guard import fetch_guarded
from pals_grid.feeds.recorded import RecordedHttp

NOW = datetime(2025, 3, 1, 12, 10, tzinfo=UTC)
BASE = "https://maps.example/v3"
ROOT = f"{BASE}/carbon-intensity"
OPTIONS = {"zone": "DE", "base_url": BASE}
UPDATED = "2025-03-01T11:48:27.926Z"
PLAN = (
    b'{"error": "Request unauthorized for zoneKey=DE,requestType=forecast",'
    b' "message": "You do not have access to this endpoint"}'
)


def value(hour: int, number: float | None, *, estimated: bool, updated: str = UPDATED) -> object:
    return {
        "zone": "DE",
        "carbonIntensity": number,
        "datetime": f"2025-03-01T{hour:02d}:00:00.000Z",
        "updatedAt": updated,
        "createdAt": "2025-02-26T11:48:27.926Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": estimated,
        "estimationMethod": None,
    }


def history(*values: object) -> bytes:
    return json.dumps({"zone": "DE", "history": values}).encode()


LATEST = json.dumps(value(12, 371.5, estimated=True)).encode()
FORECAST = json.dumps(
    {
        "zone": "DE",
        "forecast": [
            {"carbonIntensity": 365, "datetime": "2025-03-01T12:00:00.000Z"},
            {"carbonIntensity": 340, "datetime": "2025-03-01T13:00:00.000Z"},
        ],
        "updatedAt": "2025-03-01T11:40:00.000Z",
        "temporalGranularity": "hourly",
    }
).encode()
HISTORY = history(value(10, 390, estimated=False), value(11, 380, estimated=False))


def answers(**others: HttpResponse | bytes) -> RecordedHttp:
    told = {"latest": LATEST, "history": HISTORY, "forecast": FORECAST} | others
    return RecordedHttp({f"{ROOT}/{name.replace('_', '-')}": body for name, body in told.items()})


def refusal(status: int = 401, body: bytes = PLAN) -> HttpResponse:
    return HttpResponse(ROOT, status, {}, body)


def window(back_h: float, ahead_h: float) -> Interval:
    return Interval(NOW - timedelta(hours=back_h), NOW + timedelta(hours=ahead_h))


def test_past_present_and_forecast_are_one_series_of_two_kinds() -> None:
    http = answers()
    found = fetch_guarded(ElectricityMaps(OPTIONS), window(2, 48), FetchContext(http, NOW, "key"))
    assert [(item.start_at.hour, item.value, item.kind) for item in found] == [
        (10, 390.0, ValueKind.MEASURED),
        (11, 380.0, ValueKind.MEASURED),
        (12, 371.5, ValueKind.FORECAST),  # estimated now goes before forecast earlier
        (13, 340.0, ValueKind.FORECAST),
    ]
    assert found[0].known_at == datetime(2025, 3, 1, 11, 48, 27, 926000, UTC)
    assert found[3].known_at == datetime(2025, 3, 1, 11, 40, tzinfo=UTC)
    assert {item.unit for item in found} == {"gCO2eq/kWh"}
    assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}
    asked = {url.rpartition("/")[2]: params for url, params in http.asked}
    assert asked["history"]["disableEstimations"] == "false"
    assert asked["forecast"]["horizonHours"] == "48"
    assert {params["zone"] for params in asked.values()} == {"DE"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_free_key_still_gives_the_past_and_the_present(status: int) -> None:
    http = answers(forecast=refusal(status), past_range=refusal(status))
    context = FetchContext(http, NOW, "key")
    found = ElectricityMaps(OPTIONS).fetch(window(72, 48), context)
    assert [item.start_at.hour for item in found] == [10, 11, 12]
    with pytest.raises(FeedRejected, match=r"requestType=forecast; You do not have access"):
        ElectricityMaps(OPTIONS | {"forecast": "yes"}).fetch(window(2, 48), context)
    without = answers()
    ElectricityMaps(OPTIONS | {"forecast": "no"}).fetch(
        window(2, 48), FetchContext(without, NOW, "k")
    )
    assert len(without.asked) == 2


def test_a_refused_key_and_a_long_past_that_is_refused_are_told() -> None:
    wrong = answers(latest=refusal(), history=refusal(401, b'{"message": "Invalid auth-token"}'))
    with pytest.raises(FeedRejected, match=r"HTTP 401 .*Invalid auth-token"):
        ElectricityMaps(OPTIONS).fetch(window(2, 2), FetchContext(wrong, NOW, "key"))
    old = Interval(NOW - timedelta(days=30), NOW - timedelta(days=20))
    with pytest.raises(FeedRejected, match="You do not have access"):
        ElectricityMaps(OPTIONS).fetch(old, FetchContext(answers(past_range=refusal()), NOW, "key"))
    busy = answers(history=HttpResponse(ROOT, 429, {"retry-after": "60"}, b"slow down"))
    with pytest.raises(FeedUnavailable, match="slow down"):
        ElectricityMaps(OPTIONS).fetch(window(2, 2), FetchContext(busy, NOW, "key"))


def test_a_long_past_is_asked_for_in_parts_of_ten_days() -> None:
    body = json.dumps({"zone": "DE", "data": [value(10, 390, estimated=False)]}).encode()
    http = answers(past_range=body)
    old = Interval(NOW - timedelta(days=40), NOW - timedelta(days=5))
    assert ElectricityMaps(OPTIONS).fetch(old, FetchContext(http, NOW, "key")) == []
    spans = [
        datetime.fromisoformat(params["end"]) - datetime.fromisoformat(params["start"])
        for _, params in http.asked
    ]
    assert sum(spans, timedelta(0)) >= timedelta(days=35)
    assert max(spans) <= timedelta(days=10)


def test_estimated_values_may_be_left_out_and_null_is_a_gap() -> None:
    payload = history(value(10, None, estimated=False), value(11, 380, estimated=True))
    (found,) = ElectricityMaps({}).parse(payload, NOW)
    assert (found.start_at.hour, found.kind) == (11, ValueKind.FORECAST)
    assert ElectricityMaps({"disable_estimations": "true"}).parse(payload, NOW) == []


def test_finer_steps() -> None:
    (found,) = ElectricityMaps({"granularity": "5_minutes"}).parse(LATEST, NOW)
    assert found.end_at - found.start_at == timedelta(minutes=5)
    with pytest.raises(FeedDataInvalid, match="temporalGranularity: must be 5_minutes"):
        ElectricityMaps({"granularity": "5_minutes"}).parse(FORECAST, NOW)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"torn {", "must be JSON"),
        (b"[]", "payload: must be an object"),
        (b'{"zone": "FR", "history": []}', "zone: must be DE, got 'FR'"),
        (b'{"zone": "DE", "history": {}}', "history: must be there and be a list"),
        (b'{"zone": "DE", "powerConsumptionBreakdown": {}}', "a power breakdown"),
        (b'{"zone": "DE", "carbonIntensity": 1, "datetime": "2025-03-01T12:00"}', "isEstimated"),
        (history(value(10, 1, estimated=False, updated="yesterday")), "updatedAt"),
        (b'{"zone": "DE", "forecast": [{"datetime": "2025-03-01T12:00Z"}]}', "carbonIntensity"),
    ],
)
def test_bad_payloads_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        ElectricityMaps({"zone": "DE"}).parse(payload, NOW)


def test_errors_of_the_provider_are_quoted_and_no_data_is_no_value() -> None:
    with pytest.raises(FeedRejected, match="says: Zone XX does not exist"):
        ElectricityMaps({}).parse(b'{"error": "Zone XX does not exist"}', NOW)
    assert ElectricityMaps({}).parse(b'{"status": "no-data", "countryCode": "DE"}', NOW) == []
    for status in ("ok", "broken"):
        old = json.dumps({"status": status, "countryCode": "DE", "data": {}}).encode()
        with pytest.raises(FeedRejected, match=rf"status '{status}' for DE.*must be of v3"):
            ElectricityMaps({}).parse(old, NOW)


def test_a_key_and_a_zone_are_needed_to_fetch() -> None:
    with pytest.raises(FeedRejected, match="a key is needed"):
        ElectricityMaps(OPTIONS).fetch(window(1, 1), FetchContext(answers(), NOW))
    with pytest.raises(FeedRejected, match="option zone is needed"):
        ElectricityMaps({}).fetch(window(1, 1), FetchContext(answers(), NOW, "key"))


@pytest.mark.parametrize(
    "options",
    [
        {"zone": "de"},
        {"zone": "DE&FR"},
        {"emission_factor_type": "total"},
        {"disable_estimations": "yes"},
        {"granularity": "daily"},
        {"horizon_h": "12"},
        {"forecast": "maybe"},
        {"base_url": "maps"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="options"):
        ElectricityMaps(options)


def test_it_gives_average_carbon_each_step() -> None:
    assert ElectricityMaps({}).quantity is Quantity.AVERAGE_INTENSITY
    assert ElectricityMaps({"granularity": "15_minutes"}).rhythm.every_s == 900
