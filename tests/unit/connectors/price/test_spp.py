from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.price.spp import Spp

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from tests.unit.connectors.price.scripted import Asked, ScriptedHttp

KNOWN_AT = datetime(2025, 3, 31, 14, 2, tzinfo=UTC)
HEADER = "Interval,GMTIntervalEnd,Settlement Location,Pnode,LMP,MLC,MCC,MEC"
HUB = {"location": "HUB"}
REAL_TIME = HUB | {"market": "real_time"}


def table(*rows: tuple[str, str, str]) -> bytes:
    lines = [f"local,{end},{place},P,{price},0,0,0" for end, place, price in rows]
    return ("\n".join([HEADER, *lines]) + "\n").encode()


def context(http: ScriptedHttp, at: datetime = KNOWN_AT) -> FetchContext:
    return FetchContext(http, at)


def names(http: ScriptedHttp) -> list[str]:
    return [asked.params["path"].rpartition("/")[2] for asked in http.asked]


def test_the_utc_stamp_is_the_end_of_5_min() -> None:
    payload = table(
        ("03/31/2025 13:55:00", "OTHER", "n/a"),
        ("03/31/2025 13:55:00", "HUB", "-95.5"),
        ("03/31/2025 14:00:00", "HUB", "2272.01"),
    )
    found = parse_guarded(Spp(HUB), payload, KNOWN_AT)
    assert [item.value for item in found] == [-95.5, 2272.01]
    assert [f"{item.start_at:%H:%M}" for item in found] == ["13:50", "13:55"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}


@pytest.mark.parametrize("form", ["06/01/2025 {:02}:00:00", "6/1/2025 {}:00"])
def test_times_at_full_hours_are_those_of_a_day_ahead_file(form: str) -> None:
    payload = table(*((form.format(hour), "HUB", str(hour)) for hour in (6, 7, 9)))
    found = parse_guarded(Spp(HUB), payload, KNOWN_AT)
    assert [f"{item.start_at:%H:%M}" for item in found] == ["05:00", "06:00", "08:00"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}


def test_a_file_of_9_o_clock_alone_is_one_of_5_min() -> None:
    (found,) = Spp({}).parse(table(("03/31/2025 14:00:00", "HUB", "1")), KNOWN_AT)
    assert found.end_at - found.start_at == timedelta(minutes=5)


def test_further_columns_do_not_matter() -> None:
    payload = (
        b"Interval, GMTIntervalEnd, BAA,Settlement Location,Pnode,LMP\n"
        b"x,03/31/2025 13:55:00,SPP,HUB,P,4\n"
    )
    assert [item.value for item in Spp({}).parse(payload, KNOWN_AT)] == [4.0]


def test_missing_and_empty_files_are_gaps() -> None:
    def answer(asked: Asked) -> bytes | tuple[int, bytes]:
        stamp = asked.params["path"][-8:-4]
        if stamp == "0845":
            return b""
        if stamp in {"0855", "0905"}:
            return 404, b"Not Found"
        return table((f"03/31/2025 {int(stamp[:2]) + 5}:{stamp[2:]}:00", "HUB", stamp))

    http = ScriptedHttp(answer)
    window = Interval(KNOWN_AT - timedelta(minutes=30), KNOWN_AT + timedelta(hours=48))
    found = fetch_guarded(Spp(REAL_TIME), window, context(http))
    assert [item.value for item in found] == [835.0, 840.0, 850.0, 900.0]
    assert [f"{item.end_at:%H:%M}" for item in found] == ["13:35", "13:40", "13:50", "14:00"]
    assert http.asked[0].url.endswith("/download/rtbm-lmp-by-location")
    assert http.asked[0].params == {"path": "/2025/03/By_Interval/31/RTBM-LMP-SL-202503310835.csv"}
    # The interval that runs now may be out before it ends.
    assert names(http)[-1] == "RTBM-LMP-SL-202503310905.csv"


def test_when_no_file_is_there_though_some_are_due_it_is_unavailable() -> None:
    gone = ScriptedHttp(lambda _: (404, b"Not Found"))
    for options, start_h in ((REAL_TIME, 1), (HUB, 0)):
        window = Interval(KNOWN_AT - timedelta(hours=start_h), KNOWN_AT + timedelta(hours=1))
        with pytest.raises(FeedUnavailable, match=r"SPP: none of \d+ files .* 404 .*: Not Found"):
            Spp(options).fetch(window, context(gone))
    soon = Interval(KNOWN_AT - timedelta(minutes=10), KNOWN_AT + timedelta(hours=1))
    assert Spp(REAL_TIME).fetch(soon, context(gone)) == []


def test_the_newest_files_are_asked_for_and_no_more() -> None:
    window = Interval(KNOWN_AT - timedelta(days=7), KNOWN_AT + timedelta(days=2))
    for options, count in ((REAL_TIME, 12), (REAL_TIME | {"max_files": "2"}, 2)):
        http = ScriptedHttp(lambda _: b"")
        assert Spp(options).fetch(window, context(http)) == []
        assert len(http.asked) == count
        assert names(http)[-1] == "RTBM-LMP-SL-202503310905.csv"
    past = Interval(KNOWN_AT - timedelta(hours=3), KNOWN_AT - timedelta(hours=1))
    with pytest.raises(FeedRejected, match="in the past may touch 12 files, got 25"):
        Spp(REAL_TIME).fetch(past, context(ScriptedHttp(lambda _: b"")))
    ahead = Interval(KNOWN_AT + timedelta(days=1), KNOWN_AT + timedelta(days=2))
    assert Spp(REAL_TIME).fetch(ahead, context(ScriptedHttp(lambda _: b"!"))) == []


def test_the_last_file_of_a_day_is_looked_for_in_both_folders() -> None:
    midnight = datetime(2025, 4, 1, 5, 0, tzinfo=UTC)
    http = ScriptedHttp(lambda _: (404, b""))
    window = Interval(midnight - timedelta(minutes=5), midnight)
    assert Spp(REAL_TIME).fetch(window, context(http, midnight)) == []
    assert [asked.params["path"] for asked in http.asked] == [
        "/2025/04/By_Interval/01/RTBM-LMP-SL-202504010000.csv",
        "/2025/03/By_Interval/31/RTBM-LMP-SL-202504010000.csv",
    ]


@pytest.mark.parametrize(
    ("end", "name"),
    [
        ("2025-11-02T06:05", "202511020105"),
        ("2025-11-02T07:00", "202511020200"),
        ("2025-11-02T07:05", "202511020105d"),
        ("2025-11-02T08:00", "202511020200d"),
        ("2025-11-02T08:05", "202511020205"),
        ("2025-03-09T08:00", "202503090200"),
        ("2025-03-09T08:05", "202503090305"),
    ],
)
def test_names_of_files_when_the_clocks_change(end: str, name: str) -> None:
    end_at = datetime.fromisoformat(end).replace(tzinfo=UTC)
    http = ScriptedHttp(lambda _: b"")
    window = Interval(end_at - timedelta(minutes=5), end_at)
    assert Spp(REAL_TIME).fetch(window, context(http, end_at)) == []
    assert names(http) == [f"RTBM-LMP-SL-{name}.csv"]


def test_day_files_are_asked_for_by_the_days_of_central_time() -> None:
    rows = [(f"03/31/2025 {hour:02}:00:00", "HUB", str(hour)) for hour in range(6, 24)]

    def answer(asked: Asked) -> bytes | tuple[int, bytes]:
        return table(*rows) if "20250331" in asked.params["path"] else (404, b"")

    http = ScriptedHttp(answer)
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=24))
    found = Spp(HUB).fetch(window, context(http))
    assert [item.value for item in found] == [float(hour) for hour in range(15, 24)]
    assert [(asked.url.rpartition("/")[2], asked.params["path"]) for asked in http.asked] == [
        ("da-lmp-by-settlement-location", "/2025/03/By_Day/DA-LMP-SL-202503310100.csv"),
        ("da-lmp-by-settlement-location", "/2025/04/By_Day/DA-LMP-SL-202504010100.csv"),
    ]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((500, b"<p>broken</p>"), FeedUnavailable, "500 .*broken"),
        ((403, b"forbidden"), FeedRejected, "403 .*forbidden"),
        (table(("03/31/2025 14:00:00", "HUB", "1")), FeedDataInvalid, "times of a day_ahead file"),
        (
            table(("03/31/2025 14:00:00", "X", "1"), ("03/31/2025 15:00:00", "X", "1")),
            FeedRejected,
            "no location 'HUB'",
        ),
        (
            table(("03/31/2025 14:00:00", "HUB", "1"), ("03/31/2025 15:00:00", "HUB", "")),
            FeedDataInvalid,
            "line 3, LMP: must be a finite number",
        ),
    ],
)
def test_an_answer_that_does_not_fit_says_why(
    answer: bytes | tuple[int, bytes], error: type[Exception], says: str
) -> None:
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=2))
    with pytest.raises(error, match=says):
        Spp(HUB).fetch(window, context(ScriptedHttp(lambda _: answer)))


def test_a_location_that_some_files_lack_has_gaps_there() -> None:
    def answer(asked: Asked) -> bytes:
        place = "HUB" if asked.params["path"].endswith("0900.csv") else "OTHER"
        return table(("03/31/2025 14:00:00", place, "3"))

    window = Interval(KNOWN_AT - timedelta(minutes=10), KNOWN_AT)
    found = Spp(REAL_TIME).fetch(window, context(ScriptedHttp(answer)))
    assert [item.value for item in found] == [3.0]


@pytest.mark.parametrize("count", ["0", "289", "many", "-1"])
def test_a_number_of_files_that_cannot_be_is_refused(count: str) -> None:
    with pytest.raises(InvalidValue, match=r"options\.max_files: must be from 1 to 288"):
        Spp({"max_files": count})


def test_its_rhythm_depends_on_the_market() -> None:
    assert Spp(HUB).rhythm.every_s == 86_400
    assert Spp(REAL_TIME).rhythm.every_s == 300
