"""Values out of CSV or JSON, packed or not, from a file or a URL, by a mapping of columns.

All or nothing: one cell that cannot be read refuses the file, naming line, column and value.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    raise_for_status,
    read_number,
    read_options,
    refusing,
    require_choice,
)
from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, Quantity, ValueKind, touching
from pals_grid_connectors.local_time import TimeFormat, read_zone
from pals_grid_connectors.table import MAX_BYTES, TableForm, load_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import FetchContext, HttpResponse, Pace, Rhythm
    from pals_grid_connectors.table import Row

GZIP_MAGIC = b"\x1f\x8b"
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


class File:
    """Values of any quantity, mapped from columns."""

    summary: ClassVar[str] = "CSV or JSON from a file or a URL, by a mapping of columns"
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    rhythm: ClassVar[Rhythm | None] = None  # the file's owner may write it at any time
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
        ConnectorOption("where", "COLUMN=TEXT; only rows with that are read; ; parts several", ""),
        ConnectorOption("delimiter", "in CSV, what parts the fields", ","),
        ConnectorOption("header_prefix", "in CSV, first fields of the header's line", ""),
        ConnectorOption("row_prefix", "in CSV, first fields of the lines that are read", ""),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        _check_choices(given)
        self._options = given
        self._quantity = Quantity(given["quantity"])
        self._kind = ValueKind(given["kind"])
        self._unit, self._factor = _read_unit(given["unit"], self._quantity)
        self._interval = _read_interval(given["interval_s"])
        self._form = TableForm(
            given["format"],
            given["delimiter"],
            given["records"],
            _read_prefix(given["header_prefix"], given["delimiter"]),
            _read_prefix(given["row_prefix"], given["delimiter"]),
            _read_where(given["where"]),
        )
        self._times = TimeFormat(given["time_format"], read_zone(given["timezone"]))
        self._known_times = TimeFormat(given["known_at_format"], self._times.zone)

    @property
    def quantity(self) -> Quantity:
        """As the option says."""
        return self._quantity

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Read the whole file and give what touches ``window``; HTTP 204 is no value yet."""
        payload = self._load(context)
        found = [] if payload is None else self.parse(payload, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Read a whole file; ``known_at`` stands where no column gives it.

        Raises:
            FeedDataInvalid: naming line, column and value of the first thing that is wrong.
        """
        with refusing("File"):
            rows = load_rows(payload, self._form, self._columns())
            found = [
                self._observe(row, interval, known_at)
                for row, interval in zip(rows, self._intervals(rows), strict=True)
            ]
        return sorted(found, key=lambda item: (item.start_at, item.known_at))

    def _load(self, context: FetchContext) -> bytes | None:
        if self._options["url"]:
            response = context.http.get(self._options["url"])
            raise_for_status(response)
            if response.status == 204:
                return None
            _require_whole(response)
            return response.body
        if not self._options["path"]:
            raise FeedRejected("File: option path or url is needed to fetch")
        path = _permitted(Path(self._options["path"]), context.file_folders)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise FeedRejected(f"File: {path} has more than {MAX_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise FeedRejected(f"File: {path} cannot be read: {error.strerror}") from error

    def _columns(self) -> list[str]:
        names = ("start_column", "end_column", "value_column", "known_at_column")
        return [self._options[name] for name in names if self._options[name]]

    def _intervals(self, rows: Sequence[Row]) -> list[Interval]:
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

    def _stamps(self, rows: Sequence[Row]) -> list[datetime]:
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

    def _up_to_end(self, row: Row, start_at: datetime) -> Interval:
        column = self._options["end_column"]
        end_at = self._times.read_end(row.field(column), row.cells[column], start_at)
        if end_at <= start_at:
            raise InvalidValue(row.field(column), row.cells[column], "must be after the start")
        return Interval(start_at, end_at)

    def _observe(self, row: Row, interval: Interval, known_at: datetime) -> Observation:
        column = self._options["value_column"]
        value = float(read_number(row.field(column), row.cells[column].strip()) * self._factor)
        known_column = self._options["known_at_column"]
        if known_column:
            known_at = self._known_times.read(row.field(known_column), row.cells[known_column])
        return Observation(
            interval.start_at, interval.end_at, value, self._unit, self._kind, known_at
        )


def _permitted(path: Path, folders: tuple[Path, ...] | None) -> Path:
    """Return the file that ``path`` leads to, links followed, if it lies where it may."""
    found = path.resolve()
    if folders is not None and not any(found.is_relative_to(item.resolve()) for item in folders):
        shown = ", ".join(str(folder) for folder in folders)
        raise FeedRejected(f"File: {path} is not in a folder of PALS_GRID_FEED_FOLDERS: {shown}")
    return found


def _require_whole(response: HttpResponse) -> None:
    """Refuse what may have lost its end on the way, where nothing told how long it is."""
    told = {"content-length", "transfer-encoding", "content-encoding"} & set(response.headers)
    packed = response.body.startswith(GZIP_MAGIC)
    if not told and not packed and not response.body.endswith((b"\n", b"}", b"]")):
        raise FeedDataInvalid(
            f"File: {response.url} does not say how long it is, and its last line has no end: "
            "a part may be missing"
        )


def _steps(rows: Sequence[Row], stamps: Sequence[datetime], *, before: bool) -> list[timedelta]:
    """Length of each row's interval from its distance to the next row, or the row before."""
    if len(stamps) < 2:
        raise InvalidValue("options.interval_s", "", "must be given for a single row")
    steps = [later - earlier for earlier, later in pairwise(stamps)]
    for row, step in zip(rows[1:], steps, strict=True):
        if not timedelta(0) < step <= LONGEST_STEP:
            bound = f"must be after the row before by at most {LONGEST_STEP}, without interval_s"
            raise InvalidValue(f"line {row.line}", str(step), bound)
    return [steps[0], *steps] if before else [*steps, steps[-1]]


def _check_choices(given: Mapping[str, str]) -> None:
    choices: dict[str, list[str]] = {
        "quantity": [str(quantity) for quantity in Quantity],
        "format": ["auto", "csv", "json"],
        "stamp": ["start", "end"],
        "kind": [str(kind) for kind in ValueKind if kind is not ValueKind.MODELLED],
    }
    for name, allowed in choices.items():
        require_choice(f"options.{name}", given[name], allowed)
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


def _read_prefix(text: str, delimiter: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(delimiter)) if text else ()


def _read_where(text: str) -> dict[str, str]:
    """Conditions by column: ``COLUMN=TEXT``, parted by semicolons."""
    found: dict[str, str] = {}
    for part in text.split(";") if text else ():
        column, sign, wanted = (piece.strip() for piece in part.partition("="))
        if not sign or not column:
            raise InvalidValue("options.where", text, "must be COLUMN=TEXT, parted by ;")
        found[column] = wanted
    return found
