import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pals_grid_connectors.file import File

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.feeds.recorded import RecordedHttp

KNOWN_AT = datetime(2025, 3, 1, tzinfo=UTC)
PRICE = {
    "quantity": "price",
    "unit": "EUR/MWh",
    "start_column": "start",
    "value_column": "price",
    "interval_s": "3600",
}
LOCAL = PRICE | {"timezone": "Europe/London", "time_format": "%d/%m/%Y %H:%M"}
TWO_HOURS = b"start,price\n2025-03-01T00:00Z,10\n2025-03-01T01:00Z,-5.5\n"
WINDOW = Interval(KNOWN_AT + timedelta(hours=1), KNOWN_AT + timedelta(hours=2))


def parse(payload: bytes | str, options: dict[str, str]) -> list[Observation]:
    return File(options).parse(payload.encode() if isinstance(payload, str) else payload, KNOWN_AT)


def spans(found: list[Observation]) -> list[str]:
    return [f"{item.start_at:%m-%d %H:%M}-{item.end_at:%H:%M}" for item in found]


def without(options: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in options.items() if name not in names}


def test_csv_with_offsets() -> None:
    found = parse(TWO_HOURS, PRICE)
    assert spans(found) == ["03-01 00:00-01:00", "03-01 01:00-02:00"]
    assert [item.value for item in found] == [10.0, -5.5]
    assert {(item.unit, item.kind) for item in found} == {("EUR/MWh", ValueKind.MEASURED)}
    assert {item.known_at for item in found} == {KNOWN_AT}


def test_gzip_byte_order_mark_delimiter_blank_lines_and_kind() -> None:
    text = "\ufeffstart; price\r\n2025-03-01T00:00+01:00;1\r\n\r\n"
    found = parse(gzip.compress(text.encode()), PRICE | {"delimiter": ";", "kind": "forecast"})
    assert spans(found) == ["02-28 23:00-00:00"]
    assert found[0].kind is ValueKind.FORECAST


@pytest.mark.parametrize(
    ("quantity", "unit", "given", "value", "shown"),
    [
        ("price", "p/kWh", "6.95", 69.5, "GBP/MWh"),
        ("price", "EUR/kWh", "0.077495", 77.495, "EUR/MWh"),
        ("price", "USD/MWh", "30.1", 30.1, "USD/MWh"),
        ("average_intensity", "gCO2/kWh", "231", 231.0, "gCO2eq/kWh"),
        ("average_intensity", "gCO2eq/kWh", "0.1", 0.1, "gCO2eq/kWh"),
        ("marginal_intensity", "lb/MWh", "1000", 453.59237, "gCO2eq/kWh"),
        ("marginal_intensity", "lbs_CO2/MWh", "1000", 453.59237, "gCO2eq/kWh"),
        ("marginal_intensity", "kg/kWh", "0.16229", 162.29, "gCO2eq/kWh"),
        ("average_intensity", "tCO2/MWh", "0.3", 300.0, "gCO2eq/kWh"),
        ("average_intensity", "kgCO2e/MWh", "300", 300.0, "gCO2eq/kWh"),
    ],
)
def test_units_are_converted_without_dust(
    quantity: str, unit: str, given: str, value: float, shown: str
) -> None:
    options = PRICE | {"quantity": quantity, "unit": unit}
    (found,) = parse(f"start,price\n2025-03-01T00:00Z,{given}\n", options)
    assert (found.value, found.unit) == (value, shown)
    assert File(options).quantity is Quantity(quantity)


def test_json_records_with_nested_members() -> None:
    rows = [{"at": 1740787200, "intensity": {"actual": 123.4}}]
    options = {
        "quantity": "average_intensity",
        "unit": "g/kWh",
        "start_column": "at",
        "value_column": "intensity.actual",
        "time_format": "unix",
        "interval_s": "300",
        "records": "response.data",
    }
    (found,) = parse(json.dumps({"response": {"data": rows}}), options)
    assert (found.start_at, found.value) == (KNOWN_AT, 123.4)
    assert found.end_at - found.start_at == timedelta(minutes=5)


def test_milliseconds_and_a_bare_array() -> None:
    rows = [{"start": 1740787200000, "price": "7"}]
    (found,) = parse(json.dumps(rows), PRICE | {"time_format": "unix_ms"})
    assert (found.start_at, found.value) == (KNOWN_AT, 7.0)


def test_a_stamp_may_be_the_end() -> None:
    assert spans(parse(TWO_HOURS, PRICE | {"stamp": "end"})) == [
        "02-28 23:00-00:00",
        "03-01 00:00-01:00",
    ]


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("start", ["03-01 00:00-00:15", "03-01 00:15-00:45", "03-01 00:45-01:15"]),
        ("end", ["02-28 23:45-00:00", "03-01 00:00-00:15", "03-01 00:15-00:45"]),
    ],
)
def test_without_a_length_rows_reach_to_their_neighbour(stamp: str, expected: list[str]) -> None:
    text = "start,price\n2025-03-01T00:00Z,1\n2025-03-01T00:15Z,2\n2025-03-01T00:45Z,3\n"
    assert spans(parse(text, without(PRICE, "interval_s") | {"stamp": stamp})) == expected


@pytest.mark.parametrize(
    ("second", "problem"),
    [("2025-03-01T00:00Z", "line 3: must be after"), ("2025-03-03T00:00Z", "line 3.*interval_s")],
)
def test_neighbours_must_be_near_and_in_order(second: str, problem: str) -> None:
    text = f"start,price\n2025-03-01T00:00Z,1\n{second},2\n"
    with pytest.raises(FeedDataInvalid, match=problem):
        parse(text, without(PRICE, "interval_s"))


def test_a_single_row_needs_a_length() -> None:
    with pytest.raises(FeedDataInvalid, match="interval_s: must be given for a single row"):
        parse("start,price\n2025-03-01T00:00Z,1\n", without(PRICE, "interval_s"))


def test_the_repeated_hour_goes_by_the_order_of_rows() -> None:
    times = ["00:30", "01:00", "01:30", "01:00", "01:30", "02:00"]
    text = "start,price\n" + "".join(f"29/10/2023 {at},1\n" for at in times)
    assert spans(parse(text, LOCAL | {"interval_s": "1800"})) == [
        "10-28 23:30-00:00",
        "10-29 00:00-00:30",
        "10-29 00:30-01:00",
        "10-29 01:00-01:30",
        "10-29 01:30-02:00",
        "10-29 02:00-02:30",
    ]


def test_a_repeated_hour_that_the_file_lost_stays_a_gap() -> None:
    rows = ["00:30,29/10/2023 01:00", "01:00,29/10/2023 01:30", "01:30,29/10/2023 02:00"]
    text = "start,end,price\n" + "".join(
        f"29/10/2023 {row},1\n" for row in [*rows, "02:00,29/10/2023 02:30"]
    )
    options = without(LOCAL, "interval_s") | {"end_column": "end"}
    assert spans(parse(text, options)) == [
        "10-28 23:30-00:00",
        "10-29 00:00-00:30",
        "10-29 00:30-01:00",
        "10-29 02:00-02:30",
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("26/03/2023 00:30,26/03/2023 02:00", "03-26 00:30-01:00"),
        ("26/03/2023 00:30,26/03/2023 01:00", "03-26 00:30-01:00"),
        ("29/10/2023 00:00,30/10/2023 00:00", "10-28 23:00-00:00"),
        ("26/03/2023 00:00,27/03/2023 00:00", "03-26 00:00-23:00"),
    ],
)
def test_ends_around_a_change_of_clocks(rows: str, expected: str) -> None:
    options = without(LOCAL, "interval_s") | {"end_column": "end"}
    assert spans(parse(f"start,end,price\n{rows},1\n", options)) == [expected]


def test_an_end_on_the_clock_that_was_set_back() -> None:
    text = "start,end,price\n29/10/2023 01:30,29/10/2023 01:00,1\n"
    options = without(LOCAL, "interval_s") | {"end_column": "end"}
    assert spans(parse(text, options)) == ["10-29 00:30-01:00"]


def test_a_skipped_time_is_refused() -> None:
    with pytest.raises(FeedDataInvalid, match=r"line 2, start: must exist in Europe/London"):
        parse("start,price\n26/03/2023 01:30,1\n", LOCAL)


@pytest.mark.parametrize(
    ("time", "options"),
    [
        ("01/01/0001 00:00", {"timezone": "Asia/Tokyo"}),
        ("31/12/9999 23:00", {"timezone": "America/New_York"}),
        ("0001-01-01T00:00+09:00", {"time_format": "iso"}),
    ],
)
def test_a_time_beyond_the_calendar_of_utc_is_refused(time: str, options: dict[str, str]) -> None:
    with pytest.raises(FeedDataInvalid, match=r"line 2, start: must be in the years 1 to 9999"):
        parse(f"start,price\n{time},1\n", LOCAL | options)


def test_polled_values_keep_the_time_when_they_were_known() -> None:
    text = (
        "polled,start,price\n"
        "1740790800,2025-03-01T00:00Z,5\n"
        "1740792600,2025-03-01T00:00Z,6\n"
        "1740794400,2025-03-01T01:00Z,7\n"
    )
    found = parse(text, PRICE | {"known_at_column": "polled", "known_at_format": "unix"})
    assert [(item.start_at.hour, item.known_at.strftime("%H:%M")) for item in found] == [
        (0, "01:00"),
        (0, "01:30"),
        (1, "02:00"),
    ]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("start,price\n2025-03-01T00:00Z,1\n2025-03-01T01:00Z\n", "line 3.*must have 2 fields"),
        ("start,price\n2025-03-01T00:00Z,1\n2025-03-01T0", "line 3.*must have 2 fields"),
        ("start,price\n2025-03-01T00:00Z,1\n2025-03-01T01:00Z,\n", "line 3, price.*got ''"),
        ("start,price\n2025-03-01T00:00Z,NaN\n", "line 2, price.*got 'NaN'"),
        ("start,price\n2025-03-01T00:00Z,inf\n", "line 2, price.*got 'inf'"),
        ("start,price\n2025-03-01T00:00,1\n", "line 2, start: must carry a UTC offset"),
        ("start,price\nyesterday,1\n", "line 2, start: must be a time of the format iso"),
        ("begin,price\n2025-03-01T00:00Z,1\n", "column: must be among.*begin, price.*'start'"),
        ('start,price\n"2025,1\n', "line 2.*must be CSV"),
        ("start,price\n", "at least one row"),
        ("", "must be among the columns"),
        (b"start,price\n\xff\xfe,1\n", "must be UTF-8"),
        (gzip.compress(TWO_HOURS, mtime=0)[:-9], "must be a whole gzip file"),
        ('[{"start": "2025-03-01T00:00Z"}]', "record 1, price: must be there"),
        ('[{"start": "2025-03-01T00:00Z", "price": null}]', "record 1, price: .*got None"),
        ('[{"start": "2025-03-01T00:00Z", "price": NaN}]', "NaN is not a JSON number"),
        ('{"data": 1}', "must lead to an array"),
        ('[{"start": "2025-03-01T00:00Z", "pr', "must be JSON"),
    ],
)
def test_one_bad_cell_refuses_the_file(payload: str | bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        parse(payload, PRICE)


def test_an_end_must_follow_its_start() -> None:
    text = "start,end,price\n2025-03-01T01:00Z,2025-03-01T01:00Z,1\n"
    with pytest.raises(FeedDataInvalid, match="line 2, end: must be after the start"):
        parse(text, without(PRICE, "interval_s") | {"end_column": "end"})


def test_times_out_of_range_are_refused() -> None:
    with pytest.raises(FeedDataInvalid, match="line 2, start: must be a time of the format unix"):
        parse("start,price\n99999999999999,1\n", PRICE | {"time_format": "unix"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quantity", "load"),
        ("unit", "EUR/kW"),
        ("unit", "ct/kWh"),
        ("unit", "gCO2/kWh"),
        ("kind", "guess"),
        ("stamp", "middle"),
        ("format", "xml"),
        ("interval_s", "0"),
        ("interval_s", "hour"),
        ("timezone", "Mars/Base"),
        ("path", "relative.csv"),
        ("url", "file:///etc/hosts"),
        ("delimiter", "ab"),
        ("end_column", "end"),
    ],
)
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}.*{value}"):
        File(PRICE | {name: value})


def test_options_that_exclude_or_need_each_other() -> None:
    with pytest.raises(InvalidValue, match=r"options\.url: must be empty beside path"):
        File(PRICE | {"path": "/a.csv", "url": "https://x.example/a.csv"})
    with pytest.raises(InvalidValue, match=r"options\.interval_s: must be given beside known_at"):
        File(without(PRICE, "interval_s") | {"known_at_column": "polled"})
    with pytest.raises(InvalidValue, match=r"options\.unit: is required"):
        File(without(PRICE, "unit"))


def test_a_file_is_fetched_and_cut_to_the_window(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(TWO_HOURS)
    context = FetchContext(RecordedHttp({}), KNOWN_AT)
    found = File(PRICE | {"path": str(path)}).fetch(WINDOW, context)
    assert [item.value for item in found] == [-5.5]
    with pytest.raises(FeedRejected, match=r"gone\.csv cannot be read: No such file"):
        File(PRICE | {"path": str(tmp_path / "gone.csv")}).fetch(WINDOW, context)
    with pytest.raises(FeedRejected, match="path or url is needed"):
        File(PRICE).fetch(WINDOW, context)


def test_a_url_is_fetched() -> None:
    url = "https://files.example/prices.csv"
    options = PRICE | {"url": url}
    good = FetchContext(RecordedHttp({url: TWO_HOURS}), KNOWN_AT)
    assert [item.value for item in File(options).fetch(WINDOW, good)] == [-5.5]
    down = HttpResponse(url, 502, {}, b"bad gateway")
    with pytest.raises(FeedUnavailable, match="bad gateway"):
        File(options).fetch(WINDOW, FetchContext(RecordedHttp({url: down}), KNOWN_AT))


def test_an_answer_without_a_length_must_have_an_end() -> None:
    """Cut inside its last number it would give a wrong value."""
    url = "https://files.example/prices.csv"
    torn = TWO_HOURS.rstrip(b"\n")[:-1]

    def fetch(headers: dict[str, str], body: bytes) -> int:
        http = RecordedHttp({url: HttpResponse(url, 200, headers, body)})
        return len(File(PRICE | {"url": url}).fetch(WINDOW, FetchContext(http, KNOWN_AT)))

    with pytest.raises(FeedDataInvalid, match="its last line has no end: a part may be missing"):
        fetch({}, torn)
    assert fetch({"content-length": "99"}, TWO_HOURS.rstrip(b"\n")) == 1
    assert fetch({}, TWO_HOURS.rstrip(b"\n") + b"\n") == 1
    assert fetch({}, gzip.compress(TWO_HOURS)) == 1


def test_files_lie_where_the_operator_says(tmp_path: Path) -> None:
    inside, outside = tmp_path / "prices", tmp_path / "other.csv"
    inside.mkdir()
    outside.write_bytes(TWO_HOURS)
    (inside / "link.csv").symlink_to(outside)
    (inside / "own.csv").write_bytes(TWO_HOURS)
    context = FetchContext(RecordedHttp({}), KNOWN_AT, file_folders=(inside,))

    def fetch(path: Path) -> int:
        return len(File(PRICE | {"path": str(path)}).fetch(WINDOW, context))

    assert fetch(inside / "own.csv") == 1
    for path in (outside, inside / "link.csv", inside / ".." / "other.csv"):
        with pytest.raises(FeedRejected, match="not in a folder of PALS_GRID_FEED_FOLDERS"):
            fetch(path)
