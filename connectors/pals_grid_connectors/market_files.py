"""Files of market operators: CSV, plain or alone in a zip, of one location or of many."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from pals_grid.core.connecting import (
    raise_for_status,
    read_number,
    require_address,
    require_choice,
    unzip_single,
)
from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, ValueKind
from pals_grid_connectors.table import Row, csv_lines, name_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import HttpClient, HttpResponse

MAX_PREAMBLE_LINES = 8
LOCATIONS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV: the lines before its header, and its rows."""

    preamble: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to ask for: where it may be, by address and parameters, and whether it must be out."""

    places: Sequence[tuple[str, Mapping[str, str]]]
    due: bool


Files = list[list[Row]]


def market_options(
    location: str, markets: Collection[str], base_url: str, *more: ConnectorOption
) -> tuple[ConnectorOption, ...]:
    """Options that all market operators have; ``markets`` lists them, the default first."""
    return (
        ConnectorOption("location", f"{location}; needed to fetch", ""),
        ConnectorOption("market", f"what to fetch: {', '.join(markets)}", next(iter(markets))),
        *more,
        ConnectorOption("base_url", "address of the files or the API", base_url),
    )


def read_market(given: Mapping[str, str], markets: Collection[str]) -> tuple[str, str, str]:
    """Return the options that all market operators have: location, market and address.

    Raises:
        InvalidValue: for a market that is not among ``markets``, or an address that is none.
    """
    market = require_choice("options.market", given["market"], markets)
    return given["location"], market, require_address("options.base_url", given["base_url"])


def newest(provider: str, files: Sequence[Wanted], most: int, *, is_past: bool) -> Sequence[Wanted]:
    """Return the last ``most`` of ``files``; a past that has more is refused, not cut in silence.

    Raises:
        FeedRejected: for such a past.
    """
    if is_past and len(files) > most:
        raise FeedRejected(
            f"{provider}: a window in the past may touch {most} files, got {len(files)}: "
            "ask for less at a time"
        )
    return files[-most:]


def fetch_files(provider: str, wanted: Sequence[Wanted], http: HttpClient) -> list[bytes]:
    """Bodies of the files that are there; one that is missing or empty is a gap.

    Raises:
        FeedUnavailable: when none is there though one is due, as after a change of addresses; and
            as ``raise_for_status``.
        FeedRejected: as ``raise_for_status``.
    """
    found: list[bytes] = []
    missing: HttpResponse | None = None
    for file in wanted:
        response = _first_there(file, http)
        if response.status == 404:
            missing = response if file.due else missing
            continue
        raise_for_status(response, says(response.body))
        found.append(response.body)
    if missing is not None and not found:
        message = f"none of {len(wanted)} files is there, the last due: HTTP 404 from {missing.url}"
        raise FeedUnavailable(f"{provider}: {message}: {says(missing.body)}")
    return [body for body in found if body.strip()]


def of_location(provider: str, wanted: str, files: Sequence[Sequence[Row]], column: str) -> Files:
    """Keep the rows of one location, file by file; the only one there where none is wanted.

    Raises:
        FeedRejected: when no file has it, or when none is wanted and there are several.
    """
    names = sorted({row.cells[column] for rows in files for row in rows})
    if not names:
        return [[] for _ in files]
    if not wanted and len(names) == 1:
        wanted = names[0]
    if wanted not in names:
        more = f" and {len(names) - LOCATIONS_SHOWN} more" if len(names) > LOCATIONS_SHOWN else ""
        there = one_line(", ".join(names[:LOCATIONS_SHOWN])) + more
        problem = f"no location {wanted!r}" if wanted else "option location is needed to choose"
        raise FeedRejected(f"{provider}: {problem}; in the answer are {there}")
    return [[row for row in rows if row.cells[column] == wanted] for rows in files]


def priced(interval: Interval, field: str, text: str, known_at: datetime) -> Observation:
    """Return a price in USD/MWh, read out of the cell ``field``.

    Raises:
        InvalidValue: when ``text`` is no finite number.
    """
    value = float(read_number(field, text))
    start_at, end_at = interval.start_at, interval.end_at
    return Observation(start_at, end_at, value, "USD/MWh", ValueKind.MEASURED, known_at)


def unpack(payload: bytes) -> bytes:
    """Return the one file in a zip, or ``payload`` itself where it is no zip.

    Raises:
        InvalidValue: for what begins as a zip and is no whole one of one file.
    """
    return unzip_single(payload) if payload.startswith(b"PK") else payload


def read_table(
    payload: bytes, columns: Collection[str], name: Callable[[str], str] = str.strip
) -> Table:
    """Read CSV, zipped or not, whose header is the first line that has all of ``columns``.

    Header and columns are compared as ``name`` makes them. Empty lines are passed over.

    Raises:
        InvalidValue: for what is no CSV, has no such header, no row, or a row of other length.
    """
    lines = csv_lines(unpack(payload))
    preamble: list[str] = []
    header: list[str] = []
    for _, cells in lines:
        header = [name(cell) for cell in cells]
        if set(columns) <= set(header) or len(preamble) == MAX_PREAMBLE_LINES:
            break
        preamble.append(one_line(",".join(cells)))
    missing = [column for column in columns if column not in header]
    if missing:
        seen = one_line((preamble or [",".join(header)])[0])[:120]
        bound = f"must have a header with {', '.join(columns)}"
        raise InvalidValue("payload", seen, bound)
    rows = tuple(
        Row(line, name_cells(line, header, [cell.strip() for cell in cells]))
        for line, cells in lines
    )
    if not rows:
        raise InvalidValue("payload", f"{len(payload)} bytes", "must hold at least one row")
    return Table(tuple(preamble), rows)


def plain_cell(value: object) -> str:
    """Text of a JSON value; empty for what is neither text nor a number."""
    return str(value).strip() if isinstance(value, str | Decimal) else ""


def array_rows(
    names: Sequence[str], arrays: Sequence[object], write: Callable[[object], str] = plain_cell
) -> list[Row]:
    """Rows of JSON whose records are arrays under one list of ``names``.

    Raises:
        InvalidValue: for a record that is no array, or of another length.
    """
    rows: list[Row] = []
    for number, values in enumerate(arrays, start=1):
        if not isinstance(values, list) or len(values) != len(names):
            shown = type(values).__name__
            raise InvalidValue(f"row {number}", shown, f"must have {len(names)} values")
        rows.append(Row(number, dict(zip(names, map(write, values), strict=True))))
    return rows


def one_line(text: str) -> str:
    """Text for a message: without tags, its white space made single."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def says(body: bytes) -> str:
    """What a provider says in an error's page."""
    return one_line(body[:4096].decode("utf-8", "replace"))[:300]


def _first_there(file: Wanted, http: HttpClient) -> HttpResponse:
    for url, params in file.places[:-1]:
        response = http.get(url, params)
        if response.status != 404:
            return response
    url, params = file.places[-1]
    return http.get(url, params)
