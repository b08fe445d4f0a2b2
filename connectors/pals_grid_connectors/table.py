"""Rows out of CSV or JSON, plain, gzipped or zipped: all of them, or an error that names one.

A file whose last line is torn is found by its missing fields; where the tear falls inside the
last field of a line, or inside what ``row_prefix`` looks at, nothing in the file tells.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from pals_grid.core.connecting import load_json, require_few, unzip_single
from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_BYTES = 32 * 1024 * 1024
WHITE = b"\xef\xbb\xbf \t\r\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One row or record: its place in the file, and its cells by column."""

    line: int
    cells: Mapping[str, str]

    def field(self, column: str) -> str:
        """Name a cell in a message."""
        return f"line {self.line}, {column}"


@dataclass(frozen=True, slots=True)
class TableForm:
    """How a file is laid out.

    ``format`` is csv, json or auto. ``records`` leads to the array of a JSON document. In CSV the
    header is the first line that begins with ``header_prefix``, and rows are those after it that
    begin with ``row_prefix``. ``where`` keeps the rows whose columns hold these texts.
    """

    format: str = "auto"
    delimiter: str = ","
    records: str = ""
    header_prefix: Sequence[str] = ()
    row_prefix: Sequence[str] = ()
    where: Mapping[str, str] = field(default_factory=dict)


def load_rows(payload: bytes, form: TableForm, wanted: Sequence[str]) -> list[Row]:
    """Read the rows that ``form.where`` keeps, with the ``wanted`` columns.

    Raises:
        InvalidValue: for what cannot be read, naming line or record, and no row at all.
    """
    plain = _unpack(payload)
    if form.format == "json" or (form.format == "auto" and is_json(plain)):
        rows = list(_json_rows(load_json(plain), form, wanted))
    else:
        rows = list(_csv_rows(plain, form, wanted))
    if not rows and form.where:
        shown = "; ".join(f"{column}={text}" for column, text in form.where.items())
        raise InvalidValue("options.where", shown, "must fit at least one row")
    if not rows:
        raise InvalidValue("payload", f"{len(payload)} bytes", "must hold at least one row")
    return rows


def is_json(plain: bytes) -> bool:
    """Whether an unpacked payload begins as JSON does."""
    return plain.lstrip(WHITE)[:1] in {b"{", b"["}


def csv_lines(payload: bytes, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV, each with its number; empty ones are passed over.

    Raises:
        InvalidValue: for what is no CSV, or has too many lines.
    """
    require_few(payload, b"\n", "lines")
    # Decoded as it is read, since a text in memory takes up to four times its bytes.
    text = io.TextIOWrapper(io.BytesIO(payload), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise InvalidValue("payload", payload[:40], "must be UTF-8 text") from error
    except csv.Error as error:
        raise InvalidValue(f"line {reader.line_num}", str(error), "must be CSV") from error


def name_cells(
    line: int, header: Sequence[str], cells: Sequence[str], delimiter: str = ","
) -> dict[str, str]:
    """Cells of a line by the columns of its header.

    Raises:
        InvalidValue: where there are more or fewer.
    """
    if len(cells) != len(header):
        shown = delimiter.join(cells)[:80]
        bound = f"must have {len(header)} fields as the header has, not {len(cells)}"
        raise InvalidValue(f"line {line}", shown, bound)
    return dict(zip(header, cells, strict=True))


def _csv_rows(payload: bytes, form: TableForm, wanted: Sequence[str]) -> Iterator[Row]:
    header: list[str] | None = None
    for line, cells in csv_lines(payload, form.delimiter):
        if (header is None or form.header_prefix) and _begins(cells, form.header_prefix):
            header = [name.strip() for name in cells]
            _require_columns([*wanted, *form.where], header)
        elif header is not None and _begins(cells, form.row_prefix):
            named = name_cells(line, header, cells, form.delimiter)
            if all(named[name].strip() == text for name, text in form.where.items()):
                yield Row(line, {name: named[name] for name in wanted})
    if header is None:
        if form.header_prefix:
            shown = form.delimiter.join(form.header_prefix)
            raise InvalidValue("options.header_prefix", shown, "must begin the header's line")
        _require_columns(wanted, [])


def _begins(cells: Sequence[str], prefix: Sequence[str]) -> bool:
    return [cell.strip() for cell in cells[: len(prefix)]] == list(prefix)


def _require_columns(wanted: Sequence[str], header: Sequence[str]) -> None:
    for column in wanted:
        if column not in header:
            bound = f"must be among the columns, which are {', '.join(header)[:200]}"
            raise InvalidValue("column", column, bound)


def _json_rows(document: object, form: TableForm, wanted: Sequence[str]) -> Iterator[Row]:
    found = _walk(document, form.records, "records") if form.records else document
    # Some services turn an array of one into its only element.
    records = [found] if form.records and isinstance(found, dict) else found
    if not isinstance(records, list):
        bound = "must lead to an array of records"
        raise InvalidValue("options.records", form.records or type(records).__name__, bound)
    for number, record in enumerate(records, start=1):
        if all(_text(record, number, name) == text for name, text in form.where.items()):
            yield Row(number, {column: _cell(record, number, column) for column in wanted})


def _cell(record: object, number: int, column: str) -> str:
    cell = _walk(record, column, f"record {number}, {column}")
    if not isinstance(cell, str | Decimal):
        shown = None if cell is None else type(cell).__name__
        raise InvalidValue(f"record {number}, {column}", shown, "must be text or a number")
    return str(cell)


def _text(record: object, number: int, column: str) -> str:
    """Return a member as text to compare; null is empty, and true is ``true``."""
    cell = _walk(record, column, f"record {number}, {column}")
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(cell).strip() if isinstance(cell, str | Decimal) else ""


def _walk(found: object, path: str, field_name: str) -> object:
    """Follow dots inward: names of members, and in an array the number of an element from 0."""
    for name in path.split("."):
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise InvalidValue(field_name, name, "must be there")
    return found


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(payload)) as stream:
                return _bounded(stream.read(MAX_BYTES + 1))
        except (OSError, EOFError, zlib.error) as error:
            bound = f"must be a whole gzip file ({error})"
            raise InvalidValue("payload", f"{len(payload)} bytes", bound) from error
    is_zip = payload.startswith(b"PK\x03\x04")
    return unzip_single(payload, max_bytes=MAX_BYTES) if is_zip else payload


def _bounded(plain: bytes) -> bytes:
    if len(plain) > MAX_BYTES:
        raise InvalidValue("payload", f"over {MAX_BYTES} bytes", f"must be at most {MAX_BYTES}")
    return plain
