import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.carbon.watttime import WattTime

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind, merge_kinds
from pals_grid.feeds.guard import fetch_guarded

NOW = datetime(2025, 3, 1, 12, 2, tzinfo=UTC)
BASE = "https://watttime.example"
OPTIONS = {"region": "CAISO_NORTH", "base_url": BASE}
SECRET = "someone:pass:word"


def meta(**others: object) -> dict[str, object]:
    return {
        "data_point_period_seconds": 300,
        "region": "CAISO_NORTH",
        "warnings": [],
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        **others,
    }


def points(*values: float, start: str = "2025-03-01T11:50:00+00:00") -> list[object]:
    first_at = datetime.fromisoformat(start)
    return [
        {"point_time": (first_at + i * timedelta(minutes=5)).isoformat(), "value": value}
        for i, value in enumerate(values)
    ]


def answer(data: Sequence[object], **others: object) -> bytes:
    return json.dumps({"data": data, "meta": meta(**others)}).encode()


HISTORICAL = answer(points(1000, 990, 980))
AHEAD = answer(
    points(970, 960, start="2025-03-01T12:00:00+00:00"), generated_at="2025-03-01T12:00:00+00:00"
)


@dataclass
class Account:
    """WattTime with one account; ``good`` are the tokens that it takes."""

    good: set[str]
    answers: Mapping[str, bytes] = field(
        default_factory=lambda: {"historical": HISTORICAL, "forecast": AHEAD}
    )
    refusal: bytes = b'{"error": "Forbidden", "message": "invalid token"}'
    logins: list[str] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        how = (headers or {})["Authorization"]
        if url == f"{BASE}/login":
            self.logins.append(base64.b64decode(how.removeprefix("Basic ")).decode())
            if self.logins[-1] != SECRET:
                return HttpResponse(url, 403, {}, b'{"error": "Wrong user or password"}')
            token = json.dumps({"token": f"t{len(self.logins)}"}).encode()
            return HttpResponse(url, 200, {}, token)
        self.asked.append((url.removeprefix(f"{BASE}/v3/"), dict(params or {})))
        if how.removeprefix("Bearer ") not in self.good:
            return HttpResponse(url, 401, {}, self.refusal)
        return HttpResponse(url, 200, {}, self.answers[self.asked[-1][0]])

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise AssertionError((url, form, headers))


def window(back_h: float, ahead_h: float) -> Interval:
    return Interval(NOW - timedelta(hours=back_h), NOW + timedelta(hours=ahead_h))


def test_past_and_forecast_are_one_series_in_g_per_kwh() -> None:
    http = Account({"t1"})
    found = fetch_guarded(WattTime(OPTIONS), window(1, 23.5), FetchContext(http, NOW, SECRET))
    assert [(item.start_at.minute, item.value, item.kind) for item in found] == [
        (50, 453.59237, ValueKind.MEASURED),
        (55, 449.0564463, ValueKind.MEASURED),
        (0, 439.9845989, ValueKind.FORECAST),
        (0, 444.5205226, ValueKind.MEASURED),
        (5, 435.4486752, ValueKind.FORECAST),
    ]
    present = [item for item in merge_kinds(found) if item.start_at.minute == 0]
    assert [(item.value, item.kind) for item in present] == [(444.5205226, ValueKind.MEASURED)]
    assert {item.known_at for item in found if item.kind is ValueKind.FORECAST} == {
        datetime(2025, 3, 1, 12, tzinfo=UTC)
    }
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}
    (historical, forecast) = http.asked
    assert historical[1]["start"] == "2025-03-01T11:00+00:00"
    assert historical[1]["end"] == "2025-03-01T12:00+00:00"
    assert forecast == (
        "forecast",
        {"region": "CAISO_NORTH", "signal_type": "co2_moer", "horizon_hours": "24"},
    )


def test_one_login_serves_many_fetches_and_a_refused_token_is_renewed_once() -> None:
    http = Account({"t1"})
    context = FetchContext(http, NOW, SECRET)
    for _ in range(2):
        WattTime(OPTIONS).fetch(window(1, 1), context)
    assert http.logins == [SECRET]
    http.good = {"t2"}
    assert WattTime(OPTIONS).fetch(window(1, 1), context)
    assert len(http.logins) == 2
    later = FetchContext(http, NOW + timedelta(minutes=29), SECRET, context.tokens)
    http.good = {"t3"}
    WattTime(OPTIONS).fetch(window(1, 1), later)
    assert len(http.logins) == 3


def test_what_the_account_may_not_see_is_told_in_the_provider_s_words() -> None:
    http = Account(set(), refusal=b'{"error": "Forbidden", "message": "your plan: CAISO_NORTH"}')
    with pytest.raises(FeedRejected, match=r"HTTP 401 .*Forbidden; your plan: CAISO_NORTH"):
        WattTime(OPTIONS).fetch(window(1, 1), FetchContext(http, NOW, SECRET))
    assert len(http.logins) == 2


def test_a_wrong_password_and_a_wrong_secret_are_told() -> None:
    with pytest.raises(FeedRejected, match="refuses the user or the password: Wrong user") as told:
        fetch_guarded(
            WattTime(OPTIONS), window(1, 1), FetchContext(Account(set()), NOW, "someone:guess")
        )
    assert "guess" not in str(told.value)
    for secret in (None, "token", ":pass"):
        with pytest.raises(FeedRejected, match="must be user:password"):
            WattTime(OPTIONS).fetch(window(1, 1), FetchContext(Account(set()), NOW, secret))
    with pytest.raises(FeedRejected, match="option region is needed"):
        WattTime({}).fetch(window(1, 1), FetchContext(Account(set()), NOW, SECRET))


def test_a_long_past_is_asked_for_in_parts_of_thirty_days_and_no_forecast() -> None:
    http = Account({"t1"}, {"historical": answer([])})
    old = Interval(NOW - timedelta(days=100), NOW - timedelta(days=1))
    assert WattTime(OPTIONS).fetch(old, FetchContext(http, NOW, SECRET)) == []
    spans = [
        datetime.fromisoformat(params["end"]) - datetime.fromisoformat(params["start"])
        for path, params in http.asked
        if path == "historical"
    ]
    assert len(spans) == len(http.asked) >= 4
    assert sum(spans, timedelta(0)) >= timedelta(days=99)
    assert max(spans) <= timedelta(days=30)


def test_no_forecast_where_none_is_wanted() -> None:
    http = Account({"t1"})
    WattTime(OPTIONS | {"horizon_h": "0"}).fetch(window(1, 48), FetchContext(http, NOW, SECRET))
    assert [path for path, _ in http.asked] == ["historical"]


def test_gaps_stay_gaps() -> None:
    data = [*points(1000), *points(980, start="2025-03-01T12:10:00+00:00")]
    found = WattTime({}).parse(answer(data), NOW)
    assert [(item.start_at.minute, item.end_at.minute) for item in found] == [(50, 55), (10, 15)]


def test_past_forecasts_are_known_when_they_were_made() -> None:
    made = {"generated_at": "2025-03-01T06:00:00+00:00", "forecast": points(1000)}
    (found,) = WattTime({}).parse(answer([made]), NOW)
    assert (found.kind, found.known_at.hour) == (ValueKind.FORECAST, 6)


def test_imputed_values_are_estimates_and_the_average_signal_is_average() -> None:
    data = [
        {"point_time": "2025-03-01T11:00:00+00:00", "value": 800, "imputed_data_used": imputed}
        for imputed in (False, True)
    ]
    payload = answer(data, signal_type="co2_aoer", data_point_period_seconds=3600)
    average = WattTime({"signal_type": "co2_aoer"})
    assert average.quantity is Quantity.AVERAGE_INTENSITY
    assert {item.kind for item in average.parse(payload, NOW)} == {
        ValueKind.MEASURED,
        ValueKind.FORECAST,
    }
    assert WattTime({}).quantity is Quantity.MARGINAL_INTENSITY
    with pytest.raises(FeedDataInvalid, match="signal_type: must be co2_moer, got 'co2_aoer'"):
        WattTime({}).parse(payload, NOW)


def test_warnings_of_the_provider_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    warned = answer(points(1), warnings=[{"type": "OLD", "message": "this model ends"}])
    assert WattTime({}).parse(warned, NOW)
    assert "WattTime warns: this model ends" in caplog.text


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"torn {", "must be JSON"),
        (b"[]", "data: must be there"),
        (b'{"data": []}', "meta: must be there"),
        (answer(points(1), units="g_per_kwh"), "units: must be lbs_co2_per_mwh"),
        (answer(points(1), region="PJM_DC"), "region: must be CAISO_NORTH"),
        (answer(points(1), data_point_period_seconds=0), "data_point_period_seconds: must be 1"),
        (answer(points(1, start="2025-03-01T12:00:00")), "must carry a UTC offset"),
        (answer([{"point_time": "2025-03-01T12:00Z", "value": None}]), "value: must be there"),
        (answer(points(1), generated_at=5), "generated_at: must be there and be a str"),
    ],
)
def test_bad_payloads_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        WattTime(OPTIONS).parse(payload, NOW)


def test_an_error_body_is_quoted() -> None:
    with pytest.raises(FeedRejected, match="says: Invalid region; no region MOON"):
        WattTime({}).parse(b'{"error": "Invalid region", "message": "no region MOON"}', NOW)


@pytest.mark.parametrize(
    "options",
    [
        {"region": "caiso north"},
        {"signal_type": "health_damage"},
        {"horizon_h": "73"},
        {"horizon_h": "-1"},
        {"base_url": "watttime"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="options"):
        WattTime(options)
