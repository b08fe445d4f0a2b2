import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pals_grid_connectors.price.miso import Miso

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse, Pace
from pals_grid.feeds.guard import parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

KNOWN_AT = datetime(2025, 3, 9, 16, 0, tzinfo=UTC)
REPORTS = "https://docs.misoenergy.org/marketreports"
REAL_TIME_URL = (
    "https://public-api.misoenergy.org/api/MarketPricing/GetRealTimeFiveMinExPost/Current"
)
HUB = {"location": "INDIANA.HUB"}
REAL_TIME = HUB | {"market": "real_time"}
WINDOW = Interval(KNOWN_AT - timedelta(hours=1), KNOWN_AT + timedelta(hours=48))


def day_file(
    day: str = "03/09/2025", *, title: str = "Day Ahead Market ExPost LMPs", first: str = "1"
) -> bytes:
    hours = [f"HE {hour}" for hour in range(1, 25)]
    whole = [first, *(str(hour) for hour in range(2, 24)), "-3.5"]
    lines = [
        title,
        day,
        "",
        ",,,All Hours-Ending are Eastern Standard Time (EST)",
        ",".join(["Node", "Type", "Value", *hours]),
        ",".join(["INDIANA.HUB", "Hub", "LMP", *whole]),
        ",".join(["INDIANA.HUB", "Hub", "MCC", *["9"] * 24]),
        ",".join(["OTHER", "Gennode", "LMP", *["7"] * 24]),
    ]
    return ("\r\n".join(lines) + "\r\n").encode()


def table(*rows: list[str | None]) -> bytes:
    return json.dumps(
        {"headers": ["INTERVAL", "CPNODE", "LMP", "MLC", "MCC"], "data": rows}
    ).encode()


def fetched(options: dict[str, str], **answers: HttpResponse | bytes) -> list[float]:
    named = {f"{REPORTS}/{name[1:]}_da_expost_lmp.csv": body for name, body in answers.items()}
    http = RecordedHttp({**named, REAL_TIME_URL: answers.get("now", b"")})
    found = Miso(options).fetch(WINDOW, FetchContext(http, KNOWN_AT))
    return [item.value for item in found]


def test_a_day_has_24_hours_of_standard_time_the_whole_year() -> None:
    # On this day the clocks of the zone skip an hour; the market's do not.
    found = parse_guarded(Miso(HUB), day_file(), KNOWN_AT)
    assert len(found) == 24
    assert found[0].start_at == datetime(2025, 3, 9, 5, tzinfo=UTC)
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    assert [item.value for item in found] == [*(float(hour) for hour in range(1, 24)), -3.5]
    summer = parse_guarded(Miso(HUB), day_file("07/14/2025"), KNOWN_AT)
    assert summer[0].start_at == datetime(2025, 7, 14, 5, tzinfo=UTC)


def test_an_empty_cell_is_an_hour_without_a_price() -> None:
    found = parse_guarded(Miso(HUB), day_file(first=""), KNOWN_AT)
    assert len(found) == 23
    assert found[0].start_at == datetime(2025, 3, 9, 6, tzinfo=UTC)


def test_one_of_several_nodes_has_to_be_named() -> None:
    assert {item.value for item in Miso({"location": "OTHER"}).parse(day_file(), KNOWN_AT)} == {7.0}
    with pytest.raises(FeedRejected, match=r"INDIANA\.HUB, OTHER"):
        Miso({}).parse(day_file(), KNOWN_AT)


def test_a_real_time_stamp_is_the_start_of_5_min() -> None:
    payload = table(
        ["2025-03-09T11:05:00", "INDIANA.HUB", "-7.25", "0", "0"],
        ["2025-03-09T11:00:00", "INDIANA.HUB", "31.2", "0", "0"],
        ["2025-03-09T11:10:00", "INDIANA.HUB", None, "0", "0"],
        ["2025-03-09T11:15:00", "OTHER", "n/a", "0", "0"],
    )
    found = parse_guarded(Miso(HUB), payload, KNOWN_AT)
    assert [item.value for item in found] == [31.2, -7.25]
    assert found[0].start_at == KNOWN_AT
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (day_file(title="Real Time Market Final LMPs"), "must begin with 'Day Ahead Market'"),
        (day_file("tomorrow"), "line 2: must be a time of the format %m/%d/%Y"),
        (day_file(first="free"), "line 6, HE 1: must be a finite number"),
        (day_file().replace(b"HE 24", b"HE 25"), "must have a header with .*HE 24"),
        (table(["2025-03-09T11:05:00", "X", "1", "0"]), "row 1: must have 5 values"),
        (table(["soon", "INDIANA.HUB", "1", "0", "0"]), "INTERVAL: must be a time"),
        (b'{"headers": ["A"], "data": [["1"]]}', "must have INTERVAL"),
        (b'{"message": "gone"}', "headers: must be there"),
    ],
)
def test_what_is_not_its_format_is_refused(payload: bytes, says: str) -> None:
    with pytest.raises(FeedDataInvalid, match=says):
        Miso({"location": "INDIANA.HUB"}).parse(payload, KNOWN_AT)


def test_day_files_up_to_tomorrow_s_are_asked_for() -> None:
    missing = HttpResponse("", 404, {}, b"<p>no such file</p>")
    given = fetched(HUB, d20250309=day_file(), d20250310=missing)
    assert given == [*(float(hour) for hour in range(11, 24)), -3.5]
    assert fetched(HUB, d20250309=b"", d20250310=missing) == []


def test_two_days_are_asked_for_and_a_longer_past_is_refused() -> None:
    night = datetime(2025, 3, 9, 6, 0, tzinfo=UTC)
    for_today_and_tomorrow = {
        f"{REPORTS}/{day}_da_expost_lmp.csv": day_file(f"03/{day[6:]}/2025")
        for day in ("20250309", "20250310")
    }
    http = RecordedHttp(for_today_and_tomorrow)
    window = Interval(night - timedelta(hours=6), night + timedelta(hours=48))
    assert len(Miso(HUB).fetch(window, FetchContext(http, night))) == 48
    past = Interval(night - timedelta(days=3), night - timedelta(days=1))
    with pytest.raises(FeedRejected, match="MISO: a window in the past may touch 2 files, got 3"):
        Miso(HUB).fetch(past, FetchContext(http, night))
    assert len(http.asked) == 2


def test_real_time_asks_for_the_present_interval() -> None:
    payload = table(["2025-03-09T10:55:00", "INDIANA.HUB", "31.2", "0", "0"])
    assert fetched(REAL_TIME, now=payload) == [31.2]


@pytest.mark.parametrize(
    ("options", "answer", "error", "says"),
    [
        (REAL_TIME, HttpResponse("u", 404, {}, b"no"), FeedUnavailable, "none of 1 .*from u: no"),
        (REAL_TIME, HttpResponse("", 429, {}, b"slow down"), FeedUnavailable, "slow down"),
        (REAL_TIME, HttpResponse("", 403, {}, b"<p>denied</p>"), FeedRejected, "403 .*denied"),
        (REAL_TIME, day_file(), FeedDataInvalid, "must be real_time"),
        (REAL_TIME, table(["2025-03-09T11:05:00", "X", "1", "0", "0"]), FeedRejected, "are X$"),
    ],
)
def test_an_answer_that_does_not_fit_says_why(
    options: dict[str, str], answer: HttpResponse | bytes, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fetched(options, now=answer)


def test_its_pace_its_rhythm_and_its_addresses() -> None:
    assert Miso.pace == Pace(1, 60.0)
    assert Miso(HUB).rhythm.every_s == 86_400
    assert Miso(REAL_TIME).rhythm.every_s == 300
    with pytest.raises(InvalidValue, match=r"options\.real_time_url"):
        Miso({"real_time_url": "nowhere"})
