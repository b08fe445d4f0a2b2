import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.carbon.eia import PAGE_ROWS, ROUTE, Eia

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpClient, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from pals_grid.feeds.http import redact
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 4, 1, tzinfo=UTC)
KNOWN_AT = START_AT + timedelta(days=1)
WINDOW = Interval(START_AT, START_AT + timedelta(hours=2))
BASE = "https://eia.example/v2"
KEY = "an-api-key"


def row(fuel: str, hour: int, value: object, **changes: object) -> dict[str, object]:
    """What was generated in the hour that ENDS at ``hour`` of the first of April."""
    end_at = START_AT + timedelta(hours=hour)
    return {
        "period": end_at.strftime("%Y-%m-%dT%H"),
        "respondent": "PJM",
        "respondent-name": "PJM Interconnection, LLC",
        "fueltype": fuel,
        "type-name": fuel,
        "value": value,
        "value-units": "megawatthours",
    } | {name.replace("_", "-"): given for name, given in changes.items()}


def answer(*rows: Mapping[str, object], total: object = None, **more: object) -> bytes:
    response = {
        "total": len(rows) if total is None else total,
        "dateFormat": 'YYYY-MM-DD"T"HH24',
        "frequency": "hourly",
        "data": rows,
        "description": "Hourly net generation by balancing authority and energy source.  \n"
        "    Source: Form EIA-930\n    Product: Hourly Electric Grid Monitor",
    } | more
    return json.dumps({"response": response, "apiVersion": "2.1.8"}).encode()


def values(payload: bytes, **options: str) -> list[tuple[float, object]]:
    """Hour of the start, intensity."""
    return [
        ((item.start_at - START_AT).total_seconds() / 3600, pytest.approx(item.value))
        for item in parse_guarded(Eia(options), payload, KNOWN_AT)
    ]


@dataclass
class Pages:
    """Gives rows by offset, at most ``size`` of them at a time, and keeps the questions."""

    rows: list[dict[str, object]]
    size: int = PAGE_ROWS
    total: object = None
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        assert url == BASE + ROUTE
        assert not headers
        self.asked.append(dict(params or {}))
        at = int(self.asked[-1]["offset"])
        total = str(len(self.rows)) if self.total is None else self.total
        return HttpResponse(url, 200, {}, answer(*self.rows[at : at + self.size], total=total))

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise AssertionError((url, form, headers))


def fetch(http: HttpClient, window: Interval = WINDOW) -> list[float]:
    connector = Eia({"respondent": "PJM", "base_url": BASE})
    return [item.value for item in fetch_guarded(connector, window, context(http))]


def context(http: HttpClient) -> FetchContext:
    return FetchContext(http, KNOWN_AT, KEY)


def test_a_period_is_the_end_of_its_hour() -> None:
    (found,) = parse_guarded(Eia({}), answer(row("NG", 1, "100")), KNOWN_AT)
    assert (found.start_at, found.end_at) == (START_AT, START_AT + timedelta(hours=1))
    assert (found.unit, found.kind, found.known_at) == (
        "gCO2eq/kWh",
        ValueKind.MEASURED,
        KNOWN_AT,
    )
    assert Eia({}).quantity is Quantity.AVERAGE_INTENSITY


def test_values_come_as_text_or_numbers() -> None:
    payload = answer(row("COL", 1, "100"), row("NUC", 1, 300), row("WND", 1, 0.0))
    assert values(payload) == [(0, (820 + 3 * 12) / 4)]
    assert values(payload, factors="direct") == [(0, 190.0)]


def test_a_missing_value_is_a_gap() -> None:
    payload = answer(
        row("COL", 1, 100),
        row("NG", 1, None),
        row("COL", 2, 100),
        row("NG", 2, 100),
        row("COL", 3, 100),
    )
    assert values(payload) == [(1, 655.0)]


def test_storage_is_left_out_and_negative_generation_is_none() -> None:
    payload = answer(
        row("NG", 1, 100),
        row("BAT", 1, -500),
        row("PS", 1, None),
        row("UES", 1, 3),
        row("SUN", 1, -4),
        row("WAT", 1, -80),
    )
    assert values(payload) == [(0, 490.0)]


def test_solar_and_wind_with_a_battery_are_solar_and_wind() -> None:
    payload = answer(row("SNB", 1, 100), row("WNB", 1, 100))
    assert values(payload) == [(0, (48 + 11) / 2)]


def test_one_fuel_alone_is_the_mix_of_an_area_with_nothing_else() -> None:
    payload = answer(row("WAT", 1, 5, respondent="CHPD"), row("WAT", 2, None, respondent="CHPD"))
    assert values(payload) == [(0, 24.0)]
    assert values(answer(total=0)) == []


def test_an_answer_to_a_question_for_some_fuels_is_no_mix() -> None:
    document = json.loads(answer(row("NUC", 1, 100)))
    facets = {"respondent": ["PJM"], "fueltype": ["NUC"]}
    document["request"] = {"command": "/v2" + ROUTE, "params": {"facets": facets}}
    with pytest.raises(FeedDataInvalid, match=r"facets\.fueltype: must not be there: no mix"):
        values(json.dumps(document).encode())
    del document["request"]["params"]["facets"]["fueltype"]
    assert values(json.dumps(document).encode()) == [(0, 12.0)]


def test_of_several_areas_one_is_chosen() -> None:
    payload = answer(row("NG", 1, 100), row("COL", 1, 100, respondent="MISO"))
    assert values(payload, respondent="miso") == [(0, 820.0)]
    with pytest.raises(FeedDataInvalid, match=r"respondent: must be one of MISO, PJM, got None"):
        values(payload)
    with pytest.raises(FeedDataInvalid, match=r"must be one of MISO, PJM, got 'CISO'"):
        values(payload, respondent="CISO")
    with pytest.raises(FeedDataInvalid, match=r"must be one of PJM, got 'CISO'"):
        values(answer(row("NG", 1, 100)), respondent="CISO")


@pytest.mark.parametrize("day", ["2025-03-09", "2025-11-02"])
def test_the_days_on_which_clocks_change_have_24_hours_of_utc(day: str) -> None:
    at = (datetime.fromisoformat(day).replace(tzinfo=UTC) - START_AT) // timedelta(hours=1)
    found = Eia({}).parse(answer(*(row("NG", at + hour, 1) for hour in range(1, 25))), KNOWN_AT)
    assert [item.start_at.hour for item in found] == list(range(24))


def test_pages_are_read_by_offset_and_hours_across_them_are_whole() -> None:
    rows = [row(fuel, hour, 100) for hour in (1, 2) for fuel in ("COL", "NG", "NUC")]
    pages = Pages(rows, size=4)
    assert fetch(pages) == [pytest.approx((820 + 490 + 12) / 3)] * 2
    assert [asked["offset"] for asked in pages.asked] == ["0", "4"]
    # The first page alone has one fuel of the second hour: that hour is a gap.
    assert len(values(answer(*rows[:4], total="6"))) == 1


def test_the_question() -> None:
    pages = Pages([row("NG", 1, 1)])
    window = Interval(START_AT + timedelta(minutes=10), KNOWN_AT + timedelta(hours=48))
    assert fetch(pages, window) == [490.0]
    assert pages.asked == [
        {
            "api_key": KEY,
            "frequency": "hourly",
            "data[0]": "value",
            "facets[respondent][]": "PJM",
            "start": "2025-03-31T01",
            "end": "2025-04-02T01",
            "sort[0][column]": "period",
            "sort[0][direction]": "asc",
            "sort[1][column]": "fueltype",
            "sort[1][direction]": "asc",
            "length": "5000",
            "offset": "0",
        }
    ]


def test_only_what_is_past_is_asked_for_and_only_the_window_given() -> None:
    ahead = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=3))
    assert fetch(RecordedHttp({}), ahead) == []
    assert len(fetch(Pages([row("NG", hour, 1) for hour in range(-3, 9)]))) == 2


def test_a_fuel_that_is_late_is_missed_by_the_day_before() -> None:
    rows = [row("NG", hour, 100) for hour in (-5, 1)] + [row("WND", -5, 100)]
    assert fetch(Pages(rows)) == []
    assert fetch(Pages([*rows, row("WND", 1, 0)])) == [490.0]


def test_pages_that_stop_short_or_never_end_are_refused() -> None:
    with pytest.raises(FeedDataInvalid, match="total: must be 1, the rows that came, got '9'"):
        fetch(Pages([row("NG", 1, 1)], total=9))
    endless = Pages([row("NG", hour, 1) for hour in range(300)], size=1, total=10**9)
    with pytest.raises(FeedDataInvalid, match="more than 100 pages"):
        fetch(endless)


def test_area_and_key_are_needed_to_fetch() -> None:
    without_key = FetchContext(RecordedHttp({}), KNOWN_AT)
    with pytest.raises(FeedRejected, match="respondent is needed"):
        Eia({}).fetch(WINDOW, context(RecordedHttp({})))
    with pytest.raises(FeedRejected, match="API key is needed"):
        Eia({"respondent": "PJM"}).fetch(WINDOW, without_key)


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ({"error": {"code": "API_KEY_INVALID", "message": "An invalid api_key"}}, "An invalid"),
        ({"error": "Invalid facet 'x'", "code": 400}, "EIA says: 400, Invalid facet 'x'"),
    ],
)
def test_its_own_errors_are_quoted(said: object, quoted: str) -> None:
    body = json.dumps(said).encode()
    with pytest.raises(FeedRejected, match=quoted):
        values(body)
    forbidden = HttpResponse(BASE + ROUTE, 403, {}, body)
    with pytest.raises(FeedRejected, match=r"HTTP 403 .*(An invalid|Invalid facet)"):
        fetch(RecordedHttp({BASE + ROUTE: forbidden}))


def test_the_key_is_in_no_message_though_the_answer_repeats_it() -> None:
    body = json.dumps({"error": "busy", "request": {"params": {"api_key": KEY}}}).encode()
    busy = HttpResponse(BASE + ROUTE, 429, {"retry-after": "7"}, body)
    with pytest.raises(FeedUnavailable, match="busy") as caught:
        fetch(RecordedHttp({BASE + ROUTE: busy}))
    assert KEY not in str(caught.value)
    assert caught.value.retry_after_s == 7
    assert redact(f"{BASE}{ROUTE}?api_key={KEY}&frequency=hourly") == (
        f"{BASE}{ROUTE}?api_key=***&frequency=hourly"
    )


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (answer(row("XYZ", 1, 1)), "fueltype: must be one of COL, .*got 'XYZ'"),
        (answer(row("NG", 1, "many")), "value: must be a finite number, got 'many'"),
        (answer(row("NG", 1, "1e999")), "NG power_mw: must be finite"),
        (answer(row("NG", 1, 1, value_units="MW")), "value-units: must be megawatthours"),
        (answer(row("NG", 1, 1, period="2025-04-01T01-04")), "period: must be an hour of UTC"),
        (answer(row("NG", 1, 1, period="2025-04-01")), "period: must be an hour of UTC"),
        (answer(row("NG", 1, 1, period="2025-04-31T01")), "period: must be an ISO 8601"),
        (answer(row("NG", 1, 1), row("NG", 1, 2)), "NG at 2025.* must have one value"),
        (answer(frequency="local-hourly"), r"response\.frequency: must be hourly"),
        (answer(description="Daily interchange"), r"response\.description: must say"),
        (answer(row("NG", 1, 1), total="all"), r"response\.total: must be a finite number"),
        (answer({"period": "2025-04-01T01", "fromba": "PJM"}), "respondent: must be there"),
        (answer({"respondent": "PJM", "period": "2025-04-01T01"}), "fueltype: must be there"),
        (b'{"response": {"data": {}}}', "data: must be there and be a list"),
        (b"[]", "response: must be there"),
    ],
)
def test_bad_answers_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=f"EIA: {problem}"):
        values(payload)


def test_a_row_without_a_value_is_refused() -> None:
    bare = {name: given for name, given in row("NG", 1, 1).items() if name != "value"}
    with pytest.raises(FeedDataInvalid, match="value: must be there for NG at 2025-04-01T01:00"):
        values(answer(bare))


@pytest.mark.parametrize(
    ("name", "value"), [("respondent", "no area"), ("factors", "half"), ("base_url", "x")]
)
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}"):
        Eia({name: value})
