from datetime import UTC, datetime, timedelta
from io import BytesIO
from zipfile import ZipFile

import pytest
from pals_grid_connectors.price.caiso import Caiso

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, Pace
from pals_grid.feeds.guard import parse_guarded
from tests.unit.connectors.price.scripted import Asked, ScriptedHttp

KNOWN_AT = datetime(2025, 3, 8, 20, 0, tzinfo=UTC)
HEADER = "INTERVALSTARTTIME_GMT,INTERVALENDTIME_GMT,OPR_DT,NODE,MARKET_RUN_ID,LMP_TYPE"
ERROR = """<m:OASISReport xmlns:m="http://www.caiso.com/soa/OASISReport_v1.xsd"><m:MessagePayload>
<m:RTO><m:name>CAISO</m:name><m:ERROR><m:ERR_CODE>{code}</m:ERR_CODE>
<m:ERR_DESC>{text}</m:ERR_DESC></m:ERROR></m:RTO></m:MessagePayload></m:OASISReport>"""
NO_DATA = ERROR.format(code=1000, text="No data returned for the specified selection")
OPTIONS = {"location": "NODE_1"}


def zipped(text: str) -> bytes:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("answer", text)
    return packed.getvalue()


def line(  # one row of the file
    start: str, price: str, *, minutes: int = 60, node: str = "NODE_1", kind: str = "LMP"
) -> str:
    start_at = datetime.fromisoformat(start).replace(tzinfo=UTC)
    end_at = start_at + timedelta(minutes=minutes)
    day = (start_at - timedelta(hours=8)).date()  # winter
    run = "DAM" if minutes == 60 else "RTM"
    stamps = ",".join(f"{at:%Y-%m-%dT%H:%M:%S}-00:00" for at in (start_at, end_at))
    return f"{stamps},{day},{node},{run},{kind},{price}"


def table(*lines: str, column: str = "MW") -> str:
    return "\n".join([f"{HEADER},{column}", *lines]) + "\n"


def values(connector: Caiso, payload: bytes) -> list[tuple[str, float]]:
    found = parse_guarded(connector, payload, KNOWN_AT)
    return [(f"{item.start_at:%d %H:%M}", item.value) for item in found]


def test_whole_prices_alone_are_read_and_put_in_order() -> None:
    text = table(
        line("2025-03-01T13:00", "-149.99"),
        line("2025-03-01T12:00", "2000", kind="MCE"),
        line("2025-03-01T12:00", "31.5"),
        line("2025-03-01T12:00", "0.5", kind="MCL"),
        line("2025-03-01T15:00", "9000.25"),
    )
    wanted = [("01 12:00", 31.5), ("01 13:00", -149.99), ("01 15:00", 9000.25)]
    assert values(Caiso({}), zipped(text)) == wanted
    assert values(Caiso({}), text.encode()) == wanted


def test_real_time_prices_stand_in_another_column() -> None:
    text = table(
        line("2025-03-01T12:05", "31.5", minutes=5),
        line("2025-03-01T12:00", "-7", minutes=5),
        column="VALUE",
    )
    found = parse_guarded(Caiso({}), zipped(text), KNOWN_AT)
    assert [item.value for item in found] == [-7.0, 31.5]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}


def test_a_day_of_23_or_25_hours_comes_by_its_utc_times() -> None:
    for first, hours in (("2025-03-09T08:00", 23), ("2024-11-03T07:00", 25)):
        begin = datetime.fromisoformat(first)
        lines = []
        for number in range(hours):
            start = begin + timedelta(hours=number)
            cells = line(start.isoformat(), "1").split(",")
            cells[2] = f"{begin:%Y-%m-%d}"
            lines.append(",".join(cells))
        assert len(values(Caiso({}), table(*lines).encode())) == hours


def test_an_operating_day_that_does_not_fit_is_refused() -> None:
    text = table(line("2025-03-01T12:00", "1").replace("2025-03-01,NODE", "2025-03-02,NODE"))
    with pytest.raises(FeedDataInvalid, match="OPR_DT: must be 2025-03-01, the Pacific day"):
        Caiso({}).parse(text.encode(), KNOWN_AT)


def test_one_of_several_nodes_has_to_be_named() -> None:
    text = table(line("2025-03-01T12:00", "1"), line("2025-03-01T12:00", "2", node="NODE_2"))
    assert values(Caiso({"location": "NODE_2"}), text.encode()) == [("01 12:00", 2.0)]
    with pytest.raises(FeedRejected, match="NODE_1, NODE_2"):
        Caiso({}).parse(text.encode(), KNOWN_AT)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (ERROR.format(code=1005, text="Invalid node"), FeedRejected, "CAISO says: Invalid node"),
        (ERROR.format(code=1, text="Timed out waiting"), FeedUnavailable, "Timed out waiting"),
        ("<html><p>Down for\nwork</p></html>", FeedDataInvalid, "Down for work"),
        ("<torn", FeedDataInvalid, "must be CSV or XML"),
        (table(line("2025-03-01T12:00", "n/a")), FeedDataInvalid, "line 2, MW: must be a finite"),
        (table(line("2025-03-01T12:00", "1"), column="X"), FeedDataInvalid, "MW: must be"),
        (table(line("2025-03-01T12:00", "1", kind="MCC")), FeedDataInvalid, "LMP in at least one"),
    ],
)
def test_what_gives_no_price_says_why(text: str, error: type[Exception], says: str) -> None:
    for payload in (text.encode(), zipped(text)):
        with pytest.raises(error, match=says):
            Caiso({}).parse(payload, KNOWN_AT)


def test_no_data_is_no_error() -> None:
    assert Caiso({}).parse(zipped(NO_DATA), KNOWN_AT) == []


def test_whole_operating_days_are_asked_for_and_the_window_is_given() -> None:
    text = table(*(line(f"2025-03-08T{hour:02}:00", str(hour)) for hour in range(8, 24)))
    http = ScriptedHttp(lambda _: zipped(text))
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=2))
    found = Caiso(OPTIONS).fetch(window, FetchContext(http, KNOWN_AT))
    assert [item.value for item in found] == [20.0, 21.0]
    assert http.asked == [
        Asked(
            "https://oasis.caiso.com/oasisapi/SingleZip",
            {
                "queryname": "PRC_LMP",
                "market_run_id": "DAM",
                "version": "12",
                "node": "NODE_1",
                "startdatetime": "20250308T08:00-0000",
                "enddatetime": "20250309T08:00-0000",
                "resultformat": "6",
            },
            {},
        )
    ]


def test_long_windows_are_cut_to_less_than_31_days() -> None:
    http = ScriptedHttp(lambda _: zipped(NO_DATA))
    window = Interval(KNOWN_AT - timedelta(days=70), KNOWN_AT)
    assert Caiso(OPTIONS).fetch(window, FetchContext(http, KNOWN_AT)) == []
    stamps = [(asked.params["startdatetime"], asked.params["enddatetime"]) for asked in http.asked]
    assert len(stamps) == 3
    assert [end for _, end in stamps[:-1]] == [start for start, _ in stamps[1:]]
    for pair in stamps:
        start, end = (datetime.strptime(text, "%Y%m%dT%H:%M-0000") for text in pair)  # noqa: DTZ007
        assert end - start < timedelta(days=31)


def test_real_time_is_not_asked_for_ahead_of_now() -> None:
    http = ScriptedHttp(lambda _: zipped(NO_DATA))
    connector = Caiso(OPTIONS | {"market": "real_time"})
    ahead = Interval(KNOWN_AT + timedelta(days=1), KNOWN_AT + timedelta(days=2))
    assert connector.fetch(ahead, FetchContext(http, KNOWN_AT)) == []
    assert http.asked == []
    assert connector.fetch(Interval(KNOWN_AT, ahead.end_at), FetchContext(http, KNOWN_AT)) == []
    behind = Interval(KNOWN_AT - timedelta(hours=1), ahead.end_at)
    assert connector.fetch(behind, FetchContext(http, KNOWN_AT)) == []
    assert [asked.params["queryname"] for asked in http.asked] == ["PRC_INTVL_LMP"]
    assert http.asked[0].params["enddatetime"] == "20250309T08:00-0000"


def test_another_market_in_the_answer_is_refused() -> None:
    text = table(line("2025-03-08T12:00", "1", minutes=5), column="VALUE")
    http = ScriptedHttp(lambda _: zipped(text))
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=2))
    with pytest.raises(FeedDataInvalid, match="MARKET_RUN_ID: must be DAM, got 'RTM'"):
        Caiso(OPTIONS).fetch(window, FetchContext(http, KNOWN_AT))


def test_too_many_requests_are_tried_again_later() -> None:
    page = b"<html><body><p>Policy Violation. Retry after 5 seconds.</p></body></html>"
    http = ScriptedHttp(lambda _: (429, page))
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=2))
    with pytest.raises(FeedUnavailable, match=r"429 .*: Policy Violation\. Retry after 5 seconds"):
        Caiso(OPTIONS).fetch(window, FetchContext(http, KNOWN_AT))


def test_its_pace_its_rhythm_and_its_options() -> None:
    assert Caiso.pace == Pace(1, 5.0)
    assert Caiso({}).rhythm.every_s == 86_400
    assert Caiso({"market": "real_time"}).rhythm.every_s == 300
    with pytest.raises(InvalidValue, match=r"options\.market: must be one of day_ahead, real_time"):
        Caiso({"market": "hasp"})
    with pytest.raises(FeedRejected, match="location"):
        Caiso({}).fetch(
            Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=1)),
            FetchContext(ScriptedHttp(lambda _: b""), KNOWN_AT),
        )
