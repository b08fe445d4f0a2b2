import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pals_grid_connectors.price.pjm import FUELS, Pjm

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpClient, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 3, 9, 5, tzinfo=UTC)
KNOWN_AT = START_AT + timedelta(hours=30)
WINDOW = Interval(START_AT, START_AT + timedelta(hours=1))
BASE = "https://pjm.example/api/v1"
KEY = "a-subscription-key"
REAL_TIME, DAY_AHEAD, MIX = "rt_unverified_fivemin_lmps", "da_hrl_lmps", "gen_by_fuel"


def at(minute: int) -> str:
    return (START_AT + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S")


def price(minute: int, value: object, *, day_ahead: bool = False, **more: object) -> dict[str, Any]:
    return {
        "datetime_beginning_utc": at(minute),
        "datetime_beginning_ept": "2025-03-09T00:00:00",
        "pnode_id": 34964545,
        "pnode_name": "DOM",
        "type": "ZONE",
        "total_lmp_da" if day_ahead else "total_lmp_rt": value,
    } | more


def fuel(name: str, minute: int, mw: object) -> dict[str, Any]:
    return {"datetime_beginning_utc": at(minute), "fuel_type": name, "mw": mw}


def page(*rows: object, feed: str = "", total: int | None = None) -> bytes:
    href = f"https://api.pjm.com/api/v1/{feed}?RowCount=50000&StartRow=1"
    links = [{"rel": "metadata", "href": "m"}, *([{"rel": "self", "href": href}] if feed else [])]
    return json.dumps(
        {
            "links": links,
            "items": rows,
            "searchSpecification": {"rowCount": 50000, "startRow": 1},
            "totalRows": len(rows) if total is None else total,
        }
    ).encode()


def values(payload: bytes, **options: str) -> list[tuple[int, int, object]]:
    """Minute of the start, minutes, value."""
    return [
        (
            round((item.start_at - START_AT).total_seconds() / 60),
            round((item.end_at - item.start_at).total_seconds() / 60),
            pytest.approx(item.value),
        )
        for item in parse_guarded(Pjm(options), payload, KNOWN_AT)
    ]


@dataclass
class Pages:
    """Gives rows from ``startRow`` on, ``size`` at a time, and keeps what was asked."""

    rows: list[dict[str, Any]]
    feed: str
    size: int = 50_000
    total: int | None = None
    asked: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        self.asked.append((url, dict(params or {}), dict(headers or {})))
        first = int(self.asked[-1][1]["startRow"]) - 1
        total = len(self.rows) if self.total is None else self.total
        body = page(*self.rows[first : first + self.size], feed=self.feed, total=total)
        return HttpResponse(url, 200, {}, body)

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise AssertionError((url, form, headers))


def fetch(http: HttpClient, window: Interval = WINDOW, **options: str) -> list[float]:
    connector = Pjm({"pnode_id": "34964545", "base_url": BASE} | options)
    return [
        item.value for item in fetch_guarded(connector, window, FetchContext(http, KNOWN_AT, KEY))
    ]


def test_real_time_prices_hold_for_five_minutes_from_their_beginning() -> None:
    payload = page(price(5, -12.5), price(0, 31.25), feed=REAL_TIME)
    assert values(payload) == [(0, 5, 31.25), (5, 5, -12.5)]
    (first, _) = parse_guarded(Pjm({}), payload, KNOWN_AT)
    assert (first.unit, first.kind) == ("USD/MWh", ValueKind.MEASURED)
    assert Pjm({}).quantity is Quantity.PRICE


@pytest.mark.parametrize(
    ("feed", "minutes"), [(REAL_TIME, 5), ("rt_fivemin_hrl_lmps", 5), ("rt_hrl_lmps", 60)]
)
def test_the_link_tells_the_length(feed: str, minutes: int) -> None:
    assert values(page(price(0, 1), feed=feed)) == [(0, minutes, 1)]


def test_day_ahead_prices_hold_for_an_hour_and_replaced_ones_do_not_count() -> None:
    payload = page(
        price(0, 30, day_ahead=True, row_is_current=True, version_nbr=2),
        price(0, 29, day_ahead=True, row_is_current=False, version_nbr=1),
        price(60, 31, day_ahead=True, row_is_current=True),
        feed=DAY_AHEAD,
    )
    assert values(payload) == [(0, 60, 30), (60, 60, 31)]


def test_without_a_link_the_members_tell_where_they_can() -> None:
    assert values(page(price(0, 1, day_ahead=True))) == [(0, 60, 1)]
    assert values(page(price(0, 1), price(5, 2))) == [(0, 5, 1), (5, 5, 2)]
    assert values(page(fuel("Gas", 0, 1))) == [(0, 60, 490)]
    with pytest.raises(FeedDataInvalid, match="PJM: feed: cannot be told, must be one of"):
        values(page(price(0, 1)))
    assert values(page(price(0, 1)), feed="rt_hrl_lmps") == [(0, 60, 1)]


def test_the_mix_is_carbon() -> None:
    rows = [fuel("Coal", 0, 100), fuel("Gas", 0, 100.0), fuel("Storage", 0, 50)]
    payload = page(*rows, fuel("Solar", 0, -3), feed=MIX)
    assert values(payload) == [(0, 60, 655)]
    assert values(payload, factors="direct") == [(0, 60, 565)]
    assert Pjm({}).quantity_of(payload) is Quantity.AVERAGE_INTENSITY
    assert Pjm({"feed": MIX}).quantity is Quantity.AVERAGE_INTENSITY
    assert Pjm({}).quantity_of(b"") is Quantity.PRICE


def test_gaps_stay_gaps() -> None:
    mix = [fuel("Gas", hour * 60, 1) for hour in range(3)]
    payload = page(*mix, fuel("Coal", 0, 1), fuel("Coal", 60, None), feed=MIX)
    assert values(payload) == [(0, 60, 655)]
    assert values(page(price(0, 1), price(5, None), price(15, 2), feed=REAL_TIME)) == [
        (0, 5, 1),
        (15, 5, 2),
    ]
    assert values(page(feed=REAL_TIME)) == values(page(feed=MIX)) == values(page()) == []


def test_every_fuel_of_the_feed_is_known() -> None:
    assert len(values(page(*(fuel(name, 0, 1) for name in FUELS), feed=MIX))) == 1


def test_of_several_pnodes_one_is_chosen() -> None:
    others = [price(0, n, pnode_id=n, pnode_name=f"NODE {n}") for n in range(1, 12)]
    payload = page(price(0, 40), *others, feed=REAL_TIME)
    assert values(payload, pnode_id="34964545") == [(0, 5, 40)]
    for given, shown in (("", "None"), ("99", "'99'")):
        with pytest.raises(FeedDataInvalid) as caught:
            values(payload, pnode_id=given)
        assert str(caught.value) == (
            "PJM: options.pnode_id: must be one of 12, such as 1 NODE 1, 10 NODE 10, 11 NODE 11, "
            f"2 NODE 2, 3 NODE 3, 34964545 DOM, got {shown}"
        )
    with pytest.raises(FeedDataInvalid, match="must be one of 1, such as 34964545 DOM, got '1'"):
        values(page(price(0, 40), feed=REAL_TIME), pnode_id="1")


def test_rows_without_a_number_are_told_apart_by_name() -> None:
    def named(name: str, minute: int, value: float) -> dict[str, Any]:
        stamp = {"datetime_beginning_utc": at(minute)}
        return stamp | {"name": name, "total_lmp_rt": value}

    one = page(named("DOM", 0, 5), named("DOM", 5, 6), feed=REAL_TIME)
    assert values(one) == values(one, pnode_id="34964545") == [(0, 5, 5), (5, 5, 6)]
    with pytest.raises(FeedDataInvalid, match="must be one of 2, such as AEP, DOM"):
        values(page(named("DOM", 0, 5), named("AEP", 0, 6), feed=REAL_TIME), pnode_id="34964545")


@pytest.mark.parametrize(("day", "hours"), [("2025-03-09T05:00", 23), ("2025-11-02T04:00", 25)])
def test_days_of_23_and_25_hours_are_read_by_utc(day: str, hours: int) -> None:
    first_at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    offset = round((first_at - START_AT).total_seconds() / 60)
    rows = [price(offset + 60 * hour, hour, day_ahead=True) for hour in range(hours)]
    found = Pjm({}).parse(page(*rows, feed=DAY_AHEAD), KNOWN_AT)
    assert [item.value for item in found] == list(range(hours))
    assert found[-1].end_at == first_at + timedelta(hours=hours)


def test_pages_are_read_by_start_row() -> None:
    pages = Pages([price(minute, minute) for minute in range(0, 60, 5)], REAL_TIME, size=5)
    assert fetch(pages) == list(range(0, 60, 5))
    assert [params["startRow"] for _, params, _ in pages.asked] == ["1", "6", "11"]


def test_an_hour_of_the_mix_across_two_pages_is_whole() -> None:
    pages = Pages([fuel(name, 0, 1) for name in ("Coal", "Gas", "Nuclear")], MIX, size=2)
    assert fetch(pages, feed=MIX, pnode_id="") == [pytest.approx((820 + 490 + 12) / 3)]
    assert [params["startRow"] for _, params, _ in pages.asked] == ["1", "3"]
    params = pages.asked[0][1]
    assert "pnode_id" not in params
    # A day before tells which fuels there are.
    assert params["datetime_beginning_utc"] == "03/08/2025 05:00to03/09/2025 07:00"


def test_the_question_and_the_key_in_its_header() -> None:
    pages = Pages([price(0, 1)], REAL_TIME)
    window = Interval(START_AT + timedelta(minutes=7), KNOWN_AT + timedelta(hours=48))
    assert fetch(pages, window) == []
    asked = {
        "datetime_beginning_utc": "03/09/2025 05:00to03/10/2025 12:00",
        "sort": "datetime_beginning_utc",
        "order": "Asc",
        "rowCount": "50000",
        "pnode_id": "34964545",
        "startRow": "1",
    }
    headers = {"Ocp-Apim-Subscription-Key": KEY}
    assert pages.asked == [(f"{BASE}/{REAL_TIME}", asked, headers)]
    ahead = Pages([price(0, 1, day_ahead=True)], DAY_AHEAD)
    assert fetch(ahead, window, feed=DAY_AHEAD) == [1]
    ((url, params, _),) = ahead.asked
    assert (url, params["row_is_current"]) == (f"{BASE}/{DAY_AHEAD}", "TRUE")
    assert params["datetime_beginning_utc"] == "03/09/2025 05:00to03/12/2025 12:00"


def test_nothing_but_the_day_ahead_is_asked_for_ahead_of_time() -> None:
    ahead = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=5))
    assert fetch(RecordedHttp({}), ahead) == fetch(RecordedHttp({}), ahead, feed=MIX) == []
    with pytest.raises(FeedUnavailable):
        fetch(RecordedHttp({}), ahead, feed=DAY_AHEAD)


def test_pages_that_stop_short_or_never_end_are_refused() -> None:
    with pytest.raises(FeedDataInvalid, match="totalRows: must be 1, the rows that came, got '3'"):
        fetch(Pages([price(0, 1)], REAL_TIME, total=3))
    rows = [price(minute, 1) for minute in range(0, 300, 5)]
    with pytest.raises(FeedDataInvalid, match="more than 20 pages"):
        fetch(Pages(rows, REAL_TIME, size=1))


def test_pnode_and_key_are_needed_to_fetch() -> None:
    with pytest.raises(FeedRejected, match="pnode_id is needed"):
        fetch(RecordedHttp({}), pnode_id="")
    without_key = FetchContext(RecordedHttp({}), KNOWN_AT)
    with pytest.raises(FeedRejected, match="subscription key is needed"):
        Pjm({"feed": MIX}).fetch(WINDOW, without_key)


def test_another_feed_is_refused_by_name() -> None:
    other = page({"datetime_beginning_utc": at(0), "shadow_price": -4.21}, feed="rt_marginal_value")
    with pytest.raises(FeedDataInvalid, match=r"feed: must be rt_unv.*got 'rt_marginal_value'"):
        values(other)
    with pytest.raises(FeedDataInvalid, match=r"feed: cannot be told.*'datetime.*shadow_price'"):
        values(page({"datetime_beginning_utc": at(0), "shadow_price": -4.21}))
    with pytest.raises(FeedDataInvalid, match="feed: must be da_hrl_lmps, got 'gen_by_fuel'"):
        values(page(fuel("Gas", 0, 1), feed=MIX), feed=DAY_AHEAD)
    with pytest.raises(FeedDataInvalid, match=r"feed: must be rt_unver.*, got 'gen_by_fuel'"):
        fetch(Pages([fuel("Gas", 0, 1)], MIX))


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ({"statusCode": 401, "message": "Access denied due to invalid key"}, "401, Access denied"),
        ({"errors": [{"field": "pnode_id", "message": "no such"}]}, "pnode_id: no such"),
    ],
)
def test_its_own_errors_are_quoted(said: object, quoted: str) -> None:
    body = json.dumps(said).encode()
    with pytest.raises(FeedRejected, match=f"PJM says: {quoted}"):
        values(body)
    url = f"{BASE}/{REAL_TIME}"
    with pytest.raises(FeedRejected, match=r"HTTP 401 .*(Access denied|no such)"):
        fetch(RecordedHttp({url: HttpResponse(url, 401, {}, body)}))


def test_too_many_questions_are_asked_again_later_and_the_key_is_in_no_message() -> None:
    url = f"{BASE}/{REAL_TIME}"
    busy = HttpResponse(url, 429, {"retry-after": "20"}, f"quota of {KEY} exceeded".encode())
    with pytest.raises(FeedUnavailable, match=r"quota of \*\*\* exceeded") as caught:
        fetch(RecordedHttp({url: busy}))
    assert caught.value.retry_after_s == 20


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (page(price(0, "NaN"), feed=REAL_TIME), "total_lmp_rt: must be a finite number"),
        (page(price(0, 1), feed=DAY_AHEAD), "total_lmp_da: must be there at 2025-03-09T05:00"),
        (page(fuel("Coal", 0, "much"), feed=MIX), "mw: must be a finite number"),
        (page({"datetime_beginning_utc": at(0), "fuel_type": "Gas"}, feed=MIX), "mw: must be"),
        (page(fuel("Dilithium", 0, 1), feed=MIX), "fuel_type: must be one of.*got 'Dilithium'"),
        (page(price(0, 1, datetime_beginning_utc="noon"), feed=REAL_TIME), "datetime_beginning"),
        (page(price(0, 1, datetime_beginning_utc=7), feed=REAL_TIME), "datetime_beginning"),
        (page(price(0, 1), price(0, 2), feed=REAL_TIME), None),
        (page(7, feed=REAL_TIME), "datetime_beginning_utc: must be there"),
        (page(7), "feed: cannot be told"),
        (b'{"items": []}', "totalRows: must be there"),
        (b'{"links": [{"rel": "self"}], "items": [], "totalRows": 0}', "href: must be there"),
        (
            b'{"links": [{"rel": "self", "href": "//["}], "items": [], "totalRows": 0}',
            r"links\.href: must be an address",
        ),
        (b"[]", "items: must be there"),
    ],
)
def test_bad_answers_are_refused_naming_the_field(payload: bytes, problem: str | None) -> None:
    with pytest.raises(FeedDataInvalid, match=f"PJM: {problem}" if problem else "has two values"):
        values(payload)


@pytest.mark.parametrize(
    ("name", "value"),
    [("feed", "rt_marginal_value"), ("pnode_id", "DOM"), ("factors", "x"), ("base_url", "x")],
)
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}.*'{value}'"):
        Pjm({name: value})


@pytest.mark.parametrize(
    ("feed", "every_s"), [("", 300), (DAY_AHEAD, 86_400), ("rt_hrl_lmps", 3600), (MIX, 3600)]
)
def test_each_feed_has_its_rhythm(feed: str, every_s: float) -> None:
    assert Pjm({"feed": feed}).rhythm.every_s == every_s
