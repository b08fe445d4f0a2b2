import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pals_grid_connectors.price.ercot import Ercot

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, Pace
from pals_grid.core.series import Observation
from pals_grid.core.tokens import Tokens
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from tests.unit.connectors.price.scripted import Asked, ScriptedHttp

KNOWN_AT = datetime(2025, 3, 1, 18, 7, tzinfo=UTC)
WINDOW = Interval(KNOWN_AT - timedelta(hours=1), KNOWN_AT + timedelta(hours=48))
NORTH = {"location": "HB_NORTH"}
SECRET = "user@example.com:pa:ss:0123abcd"
HOURS = ["deliveryDate", "hourEnding", "settlementPoint", "settlementPointPrice", "DSTFlag"]
QUARTERS = [
    *("deliveryDate", "deliveryHour", "deliveryInterval", "settlementPoint"),
    *("settlementPointType", "settlementPointPrice", "DSTFlag"),
]
DISPATCHES = ["SCEDTimestamp", "repeatHourFlag", "settlementPoint", "LMP"]
Value = str | float | bool | None


def page(names: list[str], *rows: list[Value], pages: int = 1) -> bytes:
    return json.dumps(
        {
            "_meta": {"totalPages": pages, "totalRecords": len(rows)},
            "fields": [{"name": name, "dataType": "X"} for name in names],
            "data": rows,
        }
    ).encode()


def hour(day: str, ending: str, price: float, *, repeated: bool = False) -> list[Value]:
    return [day, ending, "HB_NORTH", price, repeated]


def parsed(payload: bytes, location: str = "HB_NORTH") -> list[Observation]:
    return parse_guarded(Ercot({"location": location}), payload, KNOWN_AT)


class Provider:
    """The login and the reports; a token is good for ``uses`` requests."""

    def __init__(self, *pages: bytes | tuple[int, bytes], uses: int = 99) -> None:
        self.http = ScriptedHttp(self._answer)
        self.pages = list(pages)
        self.uses = uses
        self.logins = 0

    def _answer(self, asked: Asked) -> bytes | tuple[int, bytes]:
        if asked.posted:
            self.logins += 1
            return b'{"id_token": "token-%d", "expires_in": "3600"}' % self.logins
        if self.uses == 0:
            self.uses = 99
            return 401, b'{"message": "The token 0123abcd is over"}'
        self.uses -= 1
        return self.pages.pop(0)

    def context(self, tokens: Tokens | None = None, *, later_s: float = 0) -> FetchContext:
        at = KNOWN_AT + timedelta(seconds=later_s)
        return FetchContext(self.http, at, SECRET, tokens or Tokens())


# --- reading ---------------------------------------------------------------------------------


def test_hours_are_named_by_their_end_in_central_time() -> None:
    found = parsed(
        page(HOURS, hour("2025-03-01", "24:00", 8999.5), hour("2025-03-01", "01:00", -3))
    )
    assert [item.value for item in found] == [-3.0, 8999.5]
    assert found[0].start_at == datetime(2025, 3, 1, 6, tzinfo=UTC)
    assert found[1].end_at == datetime(2025, 3, 2, 6, tzinfo=UTC)
    assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}


def test_days_of_25_and_23_hours() -> None:
    endings = [f"{number:02}:00" for number in range(1, 25)]
    autumn = [hour("2025-11-02", ending, 1) for ending in endings]
    autumn.insert(2, hour("2025-11-02", "02:00", 2, repeated=True))
    found = parsed(page(HOURS, *autumn))
    assert len(found) == 25
    assert [item.value for item in found[:4]] == [1.0, 1.0, 2.0, 1.0]
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    spring = [hour("2025-03-09", ending, 1) for ending in endings if ending != "03:00"]
    found = parsed(page(HOURS, *spring))
    assert len(found) == 23
    assert all(one.end_at == other.start_at for one, other in pairwise(found))


def test_quarters_and_the_zones_weighted_by_energy() -> None:
    payload = page(
        QUARTERS,
        ["2025-03-01", 1, 1, "LZ_WEST", "LZ", 20.5, False],
        ["2025-03-01", 1, 1, "LZ_WEST", "LZEW", 20.7, False],
        ["2025-03-01", 1, 4, "LZ_WEST", "LZ", -251, False],
        ["2025-03-01", 24, 4, "LZ_WEST", "LZ", 30, False],
    )
    found = parsed(payload, "LZ_WEST")
    assert [item.value for item in found] == [20.5, -251.0, 30.0]
    assert [f"{item.start_at:%d %H:%M}" for item in found] == ["01 06:00", "01 06:45", "02 05:45"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=15)}


def test_a_dispatch_holds_for_its_5_min_and_the_last_of_them_counts() -> None:
    payload = page(
        DISPATCHES,
        ["2025-11-02T01:10:13", False, "HB_NORTH", 3],
        ["2025-11-02T01:05:16", True, "HB_NORTH", 4],
        ["2025-11-02T01:07:40", False, "HB_NORTH", 2],
        ["2025-11-02T01:05:16", False, "HB_NORTH", 1],
    )
    found = parsed(payload)
    assert [item.value for item in found] == [2.0, 3.0, 4.0]
    assert [f"{item.start_at:%H:%M}" for item in found] == ["06:05", "06:10", "07:05"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (
            "Delivery Date,Hour Ending,Repeated Hour Flag,Settlement Point,Settlement Point Price",
            "03/01/2025,01:00,N,HB_NORTH,55.65",
        ),
        (
            "DeliveryDate,HourEnding,SettlementPoint,SettlementPointPrice,DSTFlag",
            "03/01/2025,01:00,HB_NORTH,55.65,N",
        ),
        (
            "delivery_date,hour_ending,repeated_hour,HB_NORTH,LZ_WEST",
            "03/01/2025,01:00,N,55.65,9",
        ),
    ],
)
def test_the_files_of_the_day_ahead_report(header: str, line: str) -> None:
    (found,) = parsed(f"{header}\r\n{line}\r\n".encode())
    assert found.value == 55.65
    assert found.start_at == datetime(2025, 3, 1, 6, tzinfo=UTC)


def test_the_files_of_the_real_time_reports() -> None:
    text = (
        "DeliveryDate,DeliveryHour,DeliveryInterval,SettlementPointName,SettlementPointType,"
        "SettlementPointPrice,DSTFlag\n03/01/2025,2,3,HB_NORTH,HU,17.5,N\n"
    )
    (found,) = parsed(text.encode())
    assert (found.value, found.start_at) == (17.5, datetime(2025, 3, 1, 7, 30, tzinfo=UTC))
    text = "SCEDTimestamp,RepeatedHourFlag,SettlementPoint,LMP\n03/01/2025 01:00:12,N,HB_NORTH,4\n"
    (found,) = parsed(text.encode())
    assert (found.value, found.start_at) == (4.0, datetime(2025, 3, 1, 7, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (page(HOURS, hour("2025-03-01", "25:00", 1)), "hourending: must be from 1 to 24"),
        (page(HOURS, hour("2025-03-01", "00:00", 1)), "hourending: must be from 1 to 24"),
        (page(HOURS, hour("1 March", "01:00", 1)), "deliveryDate: must be a time of the format"),
        (page(HOURS, hour("2025-03-09", "03:00", 1)), "must exist in America/Chicago"),
        (page(HOURS, hour("2025-03-01", "02:00", 1, repeated=True)), "flagged as repeated"),
        (page(HOURS, ["2025-03-01", "01:00", "HB_NORTH", None, False]), "must be a finite number"),
        (page(HOURS, ["2025-03-01", "01:00", "HB_NORTH", 1, "maybe"]), "DSTFlag: must be Y or N"),
        (page(HOURS, ["2025-03-01", "01:00", "HB_NORTH", 1]), "row 1: must have 5 values"),
        (page(["deliveryDate", "DSTFlag", "load"]), "columns: must be those of NP4-190-CD"),
        (page([*QUARTERS]).replace(b'"data": []', b'"data": [5]'), "row 1: must have 7 values"),
        (b"DeliveryDate,HourEnding,DSTFlag\n03/01/2025,01:00,N\n", "columns: must be those of"),
        (
            b"DeliveryDate,HourEnding,North,LZ_WEST,DSTFlag\n03/01/2025,01:00,41000,9,N\n",
            "columns: must be those of",
        ),
        (b"when,what\n1,2\n", "must have a header with dstflag"),
    ],
)
def test_what_is_not_its_format_is_refused(payload: bytes, says: str) -> None:
    with pytest.raises(FeedDataInvalid, match=says):
        Ercot(NORTH).parse(payload, KNOWN_AT)


def test_the_api_s_own_error_is_quoted() -> None:
    with pytest.raises(FeedRejected, match="ERCOT says: Resource not found"):
        Ercot(NORTH).parse(b'{"statusCode": 404, "message": "Resource not found"}', KNOWN_AT)


# --- fetching --------------------------------------------------------------------------------


def test_the_days_of_the_window_are_asked_for_with_token_and_key() -> None:
    provider = Provider(
        page(HOURS, hour("2025-03-01", "11:00", 1), hour("2025-03-01", "12:00", 2), pages=2),
        page(HOURS, hour("2025-03-01", "13:00", 3), pages=2),
    )
    found = Ercot(NORTH).fetch(WINDOW, provider.context())
    assert [item.value for item in found] == [2.0, 3.0]
    login, first, second = provider.http.asked
    assert login.posted
    assert login.url.endswith("/B2C_1_PUBAPI-ROPC-FLOW/oauth2/v2.0/token")
    assert (login.params["username"], login.params["password"]) == ("user@example.com", "pa:ss")
    assert login.params["grant_type"] == "password"
    assert first == Asked(
        "https://api.ercot.com/api/public-reports/np4-190-cd/dam_stlmnt_pnt_prices",
        {
            "deliveryDateFrom": "2025-03-01",
            "deliveryDateTo": "2025-03-02",
            "settlementPoint": "HB_NORTH",
            "size": "10000",
            "page": "1",
        },
        {"Authorization": "Bearer token-1", "Ocp-Apim-Subscription-Key": "0123abcd"},
    )
    assert second.params["page"] == "2"


def test_dispatches_are_asked_for_by_time_up_to_today() -> None:
    provider = Provider(page(DISPATCHES, ["2025-03-01T12:05:12", False, "HB_NORTH", 3]))
    connector = Ercot(NORTH | {"market": "real_time_5min"})
    (found,) = connector.fetch(WINDOW, provider.context())
    assert found.start_at == KNOWN_AT - timedelta(minutes=2)
    asked = provider.http.asked[-1]
    assert asked.url.endswith("/np6-788-cd/lmp_node_zone_hub")
    assert asked.params["SCEDTimestampFrom"] == "2025-03-01T00:00:00"
    assert asked.params["SCEDTimestampTo"] == "2025-03-01T23:59:59"


def test_no_rows_are_no_values_and_the_future_of_real_time_is_not_asked_for() -> None:
    assert Ercot(NORTH).fetch(WINDOW, Provider(page(HOURS)).context()) == []
    provider = Provider()
    ahead = Interval(KNOWN_AT + timedelta(hours=1), KNOWN_AT + timedelta(hours=2))
    connector = Ercot(NORTH | {"market": "real_time"})
    assert connector.fetch(ahead, provider.context()) == []
    assert provider.http.asked == []


def test_a_token_is_kept_for_less_than_its_hour() -> None:
    provider = Provider(*[page(HOURS)] * 3)
    tokens = Tokens()
    for later_s, logins in ((0, 1), (3400, 1), (3500, 2)):
        Ercot(NORTH).fetch(WINDOW, provider.context(tokens, later_s=later_s))
        assert provider.logins == logins


def test_a_refused_token_is_renewed_once() -> None:
    tokens = Tokens()
    provider = Provider(*[page(HOURS)] * 2, uses=1)
    for logins in (1, 2):
        assert Ercot(NORTH).fetch(WINDOW, provider.context(tokens)) == []
        assert provider.logins == logins
    refused = Provider((401, b"no subscription for 0123abcd"), (401, b"no, pa:ss 0123abcd"))
    with pytest.raises(FeedRejected, match=r"401 .*no, \*\*\* \*\*\*$"):
        fetch_guarded(Ercot(NORTH), WINDOW, refused.context())
    assert refused.logins == 2


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (
            (400, b'{"error_description": "bad password pa:ss"}'),
            FeedRejected,
            r"bad password \*\*\*",
        ),
        ((503, b"later"), FeedUnavailable, "login says: later"),
        (b'{"expires_in": 3600}', FeedDataInvalid, "ERCOT login: access_token: must be there"),
        (b"<html>", FeedDataInvalid, "ERCOT login: payload: must be JSON"),
    ],
)
def test_a_login_that_fails_says_why_and_no_secret(
    answer: bytes | tuple[int, bytes], error: type[Exception], says: str
) -> None:
    context = FetchContext(ScriptedHttp(lambda _: answer), KNOWN_AT, SECRET)
    with pytest.raises(error, match=says) as caught:
        Ercot(NORTH).fetch(WINDOW, context)
    assert "pa:ss" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", [None, "", "user", "user:password", "user::key", ":password:key"]
)
def test_a_secret_in_another_form_is_refused(secret: str | None) -> None:
    context = FetchContext(ScriptedHttp(lambda _: b""), KNOWN_AT, secret)
    with pytest.raises(FeedRejected, match="needed, as user:password:subscription_key"):
        Ercot(NORTH).fetch(WINDOW, context)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((429, b'{"message": "Rate limit is exceeded."}'), FeedUnavailable, "Rate limit"),
        ((403, b"<h1>Blocked</h1>"), FeedRejected, "403 .*Blocked"),
        (page(DISPATCHES, ["x", False, "HB_NORTH", 3]), FeedDataInvalid, "fields: .*np4-190-cd"),
        (page(HOURS, pages=99), FeedDataInvalid, "more than 20 pages"),
        (b"[]", FeedDataInvalid, "fields: must be there"),
    ],
)
def test_an_answer_that_does_not_fit_says_why(
    answer: bytes | tuple[int, bytes], error: type[Exception], says: str
) -> None:
    provider = Provider(*[answer] * 20)
    with pytest.raises(error, match=says):
        Ercot(NORTH).fetch(WINDOW, provider.context())


def test_its_pace_its_rhythm_and_its_options() -> None:
    assert Ercot.pace == Pace(30, 60.0)
    markets = ("day_ahead", "real_time", "real_time_5min")
    rhythms = [Ercot({"market": market}).rhythm.every_s for market in markets]
    assert rhythms == [86_400, 900, 300]
    with pytest.raises(InvalidValue, match=r"options\.login_url"):
        Ercot({"login_url": "nowhere"})
