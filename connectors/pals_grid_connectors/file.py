"""Values out of CSV or JSON, plain or gzipped, from a file or a URL, by a mapping of columns.

All or nothing: one cell that cannot be read refuses the file, naming line, column and value. A
file whose last line is torn is found by its missing fields; where the tear falls inside the last
field of a line, nothing in the file tells.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_number,
    read_options,
    refusing,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid_connectors.local_time import TimeFormat, read_zone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import FetchContext

MAX_BYTES = 128 * 1024 * 1024
LONGEST_STEP = timedelta(days=1)
CARBON_UNIT = "gCO2eq/kWh"
G_PER_MASS = {
    "g": Decimal(1),
    "kg": Decimal(1000),
    "t": Decimal(1_000_000),
    "lb": Decimal("453.59237"),  # the international pound, exact by definition
    "lbs": Decimal("453.59237"),
}
UNITS_SHOWN = "EUR/MWh, GBP/kWh, p/kWh, gCO2/kWh, kgCO2/MWh, lb/MWh and the like"


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]

    def field(self, column: str) -> str:
        return f"line {self.line}, {column}"


class File:
    """Values of any quantity, mapped from columns."""

    summary: ClassVar[str] = "CSV or JSON from a file or a URL, by a mapping of columns"
    needs_secret: ClassVar[bool] = False
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("quantity", "price, average_intensity or marginal_intensity"),
        ConnectorOption("unit", f"unit of the values: {UNITS_SHOWN}"),
        ConnectorOption("start_column", "column of the time"),
        ConnectorOption("value_column", "column of the value; in JSON dots lead inward"),
        ConnectorOption("path", "absolute path of the file; it or url is needed to fetch", ""),
        ConnectorOption("url", "address of the file", ""),
        ConnectorOption("format", "csv, json or auto", "auto"),
        ConnectorOption("end_column", "column of the interval's end", ""),
        ConnectorOption("interval_s", "length of each interval; else up to the next row", ""),
        ConnectorOption("stamp", "whether the time is the interval's start or end", "start"),
        ConnectorOption("kind", "measured, forecast or synthetic", "measured"),
        ConnectorOption("time_format", "iso, unix, unix_ms or a strptime pattern", "iso"),
        ConnectorOption("timezone", "IANA time zone of times that carry no offset", ""),
        ConnectorOption("known_at_column", "column of the time when the value was known", ""),
        ConnectorOption("known_at_format", "as time_format", "iso"),
        ConnectorOption("records", "in JSON, the path of dots to the array of records", ""),
        ConnectorOption("delimiter", "in CSV, what parts the fields", ","),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        _check_choices(given)
        self._options = given
        self._quantity = Quantity(given["quantity"])
        self._kind = ValueKind(given["kind"])
        self._unit, self._factor = _read_unit(given["unit"], self._quantity)
        self._interval = _read_interval(given["interval_s"])
        self._times = TimeFormat(given["time_format"], read_zone(given["timezone"]))
        self._known_times = TimeFormat(given["known_at_format"], self._times.zone)

    @property
    def quantity(self) -> Quantity:
        """As the option says."""
        return self._quantity

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Read the whole file and give what touches ``window``.

        Raises:
            FeedUnavailable, FeedRejected, FeedDataInvalid: see ``core.errors``.
        """
        found = self.parse(self._load(context), context.fetched_at)
        return [item for item in found if window.overlap_s(item.interval) > 0]

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Read a whole file; ``known_at`` stands where no column gives it.

        Raises:
            FeedDataInvalid: naming line, column and value of the first thing that is wrong.
        """
        with refusing("File"):
            rows = self._load_rows(_unzip(payload))
            found = [
                self._observe(row, interval, known_at)
                for row, interval in zip(rows, self._intervals(rows), strict=True)
            ]
        return sorted(found, key=lambda item: (item.start_at, item.known_at))

    def _load(self, context: FetchContext) -> bytes:
        if self._options["url"]:
            response = context.http.get(self._options["url"])
            raise_for_status(response, response.body[:300].decode("utf-8", "replace"))
            return response.body
        if not self._options["path"]:
            raise FeedRejected("File: option path or url is needed to fetch")
        path = Path(self._options["path"])
        try:
            if path.stat().st_size > MAX_BYTES:
                raise FeedRejected(f"File: {path} has more than {MAX_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise FeedRejected(f"File: {path} cannot be read: {error.strerror}") from error

    def _load_rows(self, payload: bytes) -> list[_Row]:
        wanted = [
            self._options[name]
            for name in ("start_column", "end_column", "value_column", "known_at_column")
            if self._options[name]
        ]
        looks_like_json = payload.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"[", b"{"}
        is_json = self._options["format"] == "json" or (
            self._options["format"] == "auto" and looks_like_json
        )
        if is_json:
            rows = list(_json_rows(load_json(payload), self._options["records"], wanted))
        else:
            rows = list(_csv_rows(payload, self._options["delimiter"], wanted))
        if not rows:
            raise InvalidValue("payload", f"{len(payload)} bytes", "must hold at least one row")
        return rows

    def _intervals(self, rows: Sequence[_Row]) -> list[Interval]:
        stamps = self._stamps(rows)
        if self._options["end_column"]:
            return [self._up_to_end(row, at) for row, at in zip(rows, stamps, strict=True)]
        before = self._options["stamp"] == "end"
        if self._interval is not None:
            lengths = [self._interval] * len(stamps)
        else:
            lengths = _steps(rows, stamps, before=before)
        return [
            Interval(at - length, at) if before else Interval(at, at + length)
            for at, length in zip(stamps, lengths, strict=True)
        ]

    def _stamps(self, rows: Sequence[_Row]) -> list[datetime]:
        """Times in UTC; of a repeated local hour the order of rows tells which one is meant."""
        column = self._options["start_column"]
        # Several polls may give the value of one and the same time; else every row is later.
        polled = bool(self._options["known_at_column"])
        stamps: list[datetime] = []
        for row in rows:
            previous = stamps[-1] if stamps else None
            field, text = row.field(column), row.cells[column]
            stamps.append(self._times.read(field, text, previous, may_repeat=polled))
        return stamps

    def _up_to_end(self, row: _Row, start_at: datetime) -> Interval:
        column = self._options["end_column"]
        end_at = self._times.read_end(row.field(column), row.cells[column], start_at)
        if end_at <= start_at:
            raise InvalidValue(row.field(column), row.cells[column], "must be after the start")
        return Interval(start_at, end_at)

    def _observe(self, row: _Row, interval: Interval, known_at: datetime) -> Observation:
        column = self._options["value_column"]
        value = float(read_number(row.field(column), row.cells[column].strip()) * self._factor)
        known_column = self._options["known_at_column"]
        if known_column:
            known_at = self._known_times.read(row.field(known_column), row.cells[known_column])
        return Observation(
            interval.start_at, interval.end_at, value, self._unit, self._kind, known_at
        )


def _steps(rows: Sequence[_Row], stamps: Sequence[datetime], *, before: bool) -> list[timedelta]:
    """Length of each row's interval from its distance to the next row, or the row before."""
    if len(stamps) < 2:
        raise InvalidValue("options.interval_s", "", "must be given for a single row")
    steps = [later - earlier for earlier, later in pairwise(stamps)]
    for row, step in zip(rows[1:], steps, strict=True):
        if not timedelta(0) < step <= LONGEST_STEP:
            bound = f"must be after the row before by at most {LONGEST_STEP}, without interval_s"
            raise InvalidValue(f"line {row.line}", str(step), bound)
    return [steps[0], *steps] if before else [*steps, steps[-1]]


def _csv_rows(payload: bytes, delimiter: str, wanted: Sequence[str]) -> Iterator[_Row]:
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValue("payload", payload[:40], "must be UTF-8 text") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _require_columns(wanted, header)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                shown = delimiter.join(cells)[:80]
                bound = f"must have {len(header)} fields as the header has, not {len(cells)}"
                raise InvalidValue(f"line {reader.line_num}", shown, bound)
            yield _Row(reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InvalidValue(f"line {reader.line_num}", str(error), "must be CSV") from error


def _require_columns(wanted: Sequence[str], header: Sequence[str]) -> None:
    for column in wanted:
        if column not in header:
            bound = f"must be among the columns, which are {', '.join(header)[:200]}"
            raise InvalidValue("column", column, bound)


def _json_rows(document: object, path: str, wanted: Sequence[str]) -> Iterator[_Row]:
    records = _walk(document, path, "records") if path else document
    if not isinstance(records, list):
        bound = "must lead to an array of records"
        raise InvalidValue("options.records", path or type(records).__name__, bound)
    for number, record in enumerate(records, start=1):
        cells: dict[str, str] = {}
        for column in wanted:
            cell = _walk(record, column, f"record {number}, {column}")
            if not isinstance(cell, str | Decimal):
                shown = None if cell is None else type(cell).__name__
                raise InvalidValue(f"record {number}, {column}", shown, "must be text or a number")
            cells[column] = str(cell)
        yield _Row(number, cells)


def _walk(found: object, path: str, field: str) -> object:
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            raise InvalidValue(field, name, "must be there")
        found = found[name]
    return found


def _unzip(payload: bytes) -> bytes:
    if not payload.startswith(b"\x1f\x8b"):
        return payload
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(payload)) as stream:
            plain = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        bound = f"must be a whole gzip file ({error})"
        raise InvalidValue("payload", f"{len(payload)} bytes", bound) from error
    if len(plain) > MAX_BYTES:
        raise InvalidValue("payload", f"over {MAX_BYTES} bytes", f"must be at most {MAX_BYTES}")
    return plain


def _check_choices(given: Mapping[str, str]) -> None:
    choices: dict[str, list[str]] = {
        "quantity": [str(quantity) for quantity in Quantity],
        "format": ["auto", "csv", "json"],
        "stamp": ["start", "end"],
        "kind": [str(kind) for kind in ValueKind],
    }
    for name, allowed in choices.items():
        if given[name] not in allowed:
            bound = f"must be one of {', '.join(allowed)}"
            raise InvalidValue(f"options.{name}", given[name], bound)
    if given["path"] and given["url"]:
        raise InvalidValue("options.url", given["url"], "must be empty beside path")
    if given["path"] and not Path(given["path"]).is_absolute():
        raise InvalidValue("options.path", given["path"], "must be absolute")
    if given["url"] and not re.fullmatch(r"https?://\S+", given["url"]):
        raise InvalidValue("options.url", given["url"], "must be an http(s) address")
    if len(given["delimiter"]) != 1:
        raise InvalidValue("options.delimiter", given["delimiter"], "must be one character")
    _check_lengths(given)


def _check_lengths(given: Mapping[str, str]) -> None:
    if given["end_column"] and (given["interval_s"] or given["stamp"] == "end"):
        bound = "must be empty beside interval_s or stamp=end"
        raise InvalidValue("options.end_column", given["end_column"], bound)
    if given["known_at_column"] and not (given["end_column"] or given["interval_s"]):
        bound = "must be given beside known_at_column, since rows may repeat a time"
        raise InvalidValue("options.interval_s", "", bound)


def _read_unit(unit: str, quantity: Quantity) -> tuple[str, Decimal]:
    """The unit that values are given in, and the factor to it."""
    thing, _, per = unit.partition("/")
    per_kwh = {"kWh": Decimal(1), "MWh": Decimal("0.001")}.get(per)
    mass = re.sub(r"_?CO2(eq|e)?$", "", thing)
    if per_kwh is not None and quantity is Quantity.PRICE:
        if thing == "p":
            return "GBP/MWh", per_kwh * 10
        if re.fullmatch("[A-Z]{3}", thing):
            return f"{thing}/MWh", per_kwh * 1000
    elif per_kwh is not None and mass in G_PER_MASS:
        return CARBON_UNIT, G_PER_MASS[mass] * per_kwh
    raise InvalidValue("options.unit", unit, f"must fit {quantity}; units are {UNITS_SHOWN}")


def _read_interval(text: str) -> timedelta | None:
    if not text:
        return None
    seconds = read_number("options.interval_s", text)
    if not 1 <= seconds <= 31 * 86_400:
        raise InvalidValue("options.interval_s", text, "must be from 1 s to 31 days")
    return timedelta(seconds=float(seconds))
