from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pals_grid_connectors.price.nyiso import Nyiso

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Observation
from pals_grid.feeds.guard import parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

KNOWN_AT = datetime(2025, 3, 1, 17, 0, tzinfo=UTC)
HEADER = '"Time Stamp","Name","PTID","LBMP ($/MWHr)","Marginal Cost Congestion ($/MWHr)"'
BASE = "https://mis.nyiso.com/public/csv"
WEST = {"location": "WEST"}
REAL_TIME = WEST | {"market": "real_time"}


def table(*rows: tuple[str, str, float]) -> bytes:
    lines = [f'"{stamp}","{zone}",1,{price},0.00' for stamp, zone, price in rows]
    return ("\r\n".join(["", HEADER, *lines])).encode()


def parsed(payload: bytes, zone: str = "WEST") -> list[Observation]:
    return parse_guarded(Nyiso({"location": zone}), payload, KNOWN_AT)


def west(*stamps: str) -> list[Observation]:
    return parsed(table(*((stamp, "WEST", 1.0) for stamp in stamps)))


def starts(found: list[Observation]) -> list[str]:
    return [f"{item.start_at:%d %H:%M:%S}" for item in found]


def test_a_day_ahead_stamp_is_the_start_of_an_hour() -> None:
    found = parsed(
        table(
            ("03/01/2025 00:00", "WEST", 30.5),
            ("03/01/2025 00:00", "N.Y.C.", 99),
            ("03/01/2025 01:00", "WEST", -12.25),
        )
    )
    assert [item.value for item in found] == [30.5, -12.25]
    assert starts(found) == ["01 05:00:00", "01 06:00:00"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(hours=1)}
    assert {item.unit for item in found} == {"USD/MWh"}


def test_a_real_time_stamp_is_the_end_of_5_min_and_a_gap_stays_one() -> None:
    found = west("03/01/2025 00:05:00", "03/01/2025 00:10:00", "03/01/2025 00:25:00")
    assert starts(found) == ["01 05:00:00", "01 05:05:00", "01 05:20:00"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=5)}


def test_an_extra_dispatch_makes_shorter_intervals() -> None:
    found = west("03/01/2025 00:05:00", "03/01/2025 00:07:14", "03/01/2025 00:10:00")
    assert starts(found) == ["01 05:00:00", "01 05:05:00", "01 05:07:14"]
    assert all(one.end_at == other.start_at for one, other in pairwise(found))


def test_the_repeated_hour_is_told_by_the_order_of_rows() -> None:
    clocks = [f"11/02/2025 {hour:02}:00" for hour in (0, 1, 1, *range(2, 24))]
    found = west(*clocks)
    assert len(found) == 25
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    ends = [f"01:{minute:02}" for minute in range(0, 60, 5)]
    found = west(*(f"11/02/2025 {end}:00" for end in ["00:55", *ends, *ends, "02:00"]))
    assert len(found) == 26
    assert found[0].end_at == datetime(2025, 11, 2, 4, 55, tzinfo=UTC)
    assert all(one.end_at == other.start_at for one, other in pairwise(found))


def test_the_day_that_skips_an_hour_has_23() -> None:
    clocks = [f"03/09/2025 {hour:02}:00" for hour in (0, 1, *range(3, 24))]
    found = west(*clocks)
    assert len(found) == 23
    assert all(one.end_at == other.start_at for one, other in pairwise(found))
    with pytest.raises(FeedDataInvalid, match="whose clocks skip it"):
        west("03/09/2025 02:00")


@pytest.mark.parametrize("end", ["03:00:00", "02:00:00"])
def test_the_end_beside_the_skipped_hour_is_read_by_either_clock(end: str) -> None:
    found = west("03/09/2025 01:55:00", f"03/09/2025 {end}", "03/09/2025 03:05:00")
    assert starts(found) == ["09 06:50:00", "09 06:55:00", "09 07:00:00"]
    with pytest.raises(FeedDataInvalid, match="whose clocks skip it"):
        west("03/09/2025 02:30:00")


def test_a_cell_that_cannot_be_is_refused_and_another_zone_s_is_not_looked_at() -> None:
    payload = table(("03/01/2025 00:00", "WEST", 1)).replace(b",1,1,", b",1,n/a,")
    with pytest.raises(FeedDataInvalid, match=r"line 3, LBMP \(\$/MWHr\): must be a finite number"):
        parsed(payload)
    other = table(("03/01/2025 00:00", "N.Y.C.", 5))
    assert [item.value for item in parsed(payload + b"\r\n" + other.splitlines()[2], "N.Y.C.")]
    with pytest.raises(FeedDataInvalid, match="must be a time of the format"):
        west("2025-03-01 00:00:00")


def test_day_files_of_the_window_are_asked_for_and_one_not_out_yet_is_no_value() -> None:
    http = RecordedHttp(
        {
            f"{BASE}/damlbmp/20250301damlbmp_zone.csv": table(
                ("03/01/2025 11:00", "WEST", 1), ("03/01/2025 12:00", "WEST", 2)
            ),
            f"{BASE}/damlbmp/20250302damlbmp_zone.csv": HttpResponse("", 404, {}, b"<p>none</p>"),
        }
    )
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=48))
    found = Nyiso(WEST).fetch(window, FetchContext(http, KNOWN_AT))
    assert [item.value for item in found] == [2.0]
    assert [url.rpartition("/")[2] for url, _ in http.asked] == [
        "20250301damlbmp_zone.csv",
        "20250302damlbmp_zone.csv",
    ]


def test_real_time_is_asked_for_up_to_today() -> None:
    url = f"{BASE}/realtime/20250301realtime_zone.csv"
    http = RecordedHttp({url: table(("03/01/2025 11:55:00", "WEST", 7))})
    window = Interval(KNOWN_AT - timedelta(hours=1), KNOWN_AT + timedelta(hours=48))
    (found,) = Nyiso(REAL_TIME).fetch(window, FetchContext(http, KNOWN_AT))
    assert (found.value, found.end_at) == (7.0, KNOWN_AT - timedelta(minutes=5))
    assert len(http.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (HttpResponse("", 503, {}, b"<p>busy</p>"), FeedUnavailable, "503 .*busy"),
        (
            HttpResponse("u", 404, {}, b"<p>gone</p>"),
            FeedUnavailable,
            "none of 1 .*404 from u: gone",
        ),
        (HttpResponse("", 403, {}, b"<p>denied</p>"), FeedRejected, "403 .*denied"),
        (table(("03/01/2025 12:00:00", "WEST", 7)), FeedDataInvalid, "must be without seconds"),
        (table(("03/01/2025 12:00", "EAST", 7)), FeedRejected, "no location 'WEST'.* EAST"),
    ],
)
def test_an_answer_that_does_not_fit_says_why(
    answer: HttpResponse | bytes, error: type[Exception], says: str
) -> None:
    http = RecordedHttp({f"{BASE}/damlbmp/20250301damlbmp_zone.csv": answer})
    window = Interval(KNOWN_AT, KNOWN_AT + timedelta(hours=2))
    with pytest.raises(error, match=says):
        Nyiso(WEST).fetch(window, FetchContext(http, KNOWN_AT))


def test_its_rhythm_depends_on_the_market() -> None:
    assert Nyiso(WEST).rhythm.every_s == 86_400
    assert Nyiso(REAL_TIME).rhythm.every_s == 300
