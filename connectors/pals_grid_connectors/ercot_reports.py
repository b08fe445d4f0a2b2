"""Rows of ERCOT's price reports, as its API and its files write them, and their intervals.

Source: https://www.ercot.com/mp/data-products, NP4-190-CD, NP6-905-CD and NP6-788-CD. Rows of the
API are arrays whose names stand in ``fields``; the files are CSV, with names that differ in letters
and words alone. Times are of Central clocks, hours by their END ("01:00" to "24:00"); a flag marks
the hour that repeats in autumn. Load zones come twice in NP6-905-CD: the types that end in EW are
weighted by energy and left out.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.core.connecting import load_json, read_member
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval, floor_to
from pals_grid_connectors.market_files import (
    array_rows,
    one_line,
    plain_cell,
    read_table,
    unpack,
)
from pals_grid_connectors.market_time import FIVE_MINUTES, HOUR, from_clock, read_naive
from pals_grid_connectors.table import Row, is_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CENTRAL = ZoneInfo("America/Chicago")
QUARTER = timedelta(minutes=15)

DATES = ("%m/%d/%Y", "%Y-%m-%d")
DISPATCH_TIMES = ("%Y-%m-%dT%H:%M:%S", "%m/%d/%Y %H:%M:%S")
# The names of a column in the API and in the files, in small letters without spaces.
SAME_COLUMNS = {
    "settlementpointname": "settlementpoint",
    "repeatedhourflag": "dstflag",
    "repeathourflag": "dstflag",
    "repeatedhour": "dstflag",
}
BY_HOUR = ("deliverydate", "hourending", "dstflag")
COLUMNS = {
    "day_ahead": (*BY_HOUR, "settlementpoint", "settlementpointprice"),
    "real_time": (
        *("deliverydate", "deliveryhour", "deliveryinterval", "dstflag"),
        *("settlementpoint", "settlementpointprice"),
    ),
    "real_time_5min": ("scedtimestamp", "dstflag", "settlementpoint", "lmp"),
}
POINT_TYPE = "settlementpointtype"
KNOWN_COLUMNS = {POINT_TYPE, *(column for columns in COLUMNS.values() for column in columns)}


def read_rows(payload: bytes) -> list[Row]:
    """Rows of a page of the API, or of a file, zipped or not.

    Raises:
        FeedRejected: when it is the API's own error.
        InvalidValue: when it is none of the three reports.
    """
    plain = unpack(payload)
    if is_json(plain):
        return rows_of_api(load_json(plain))
    rows = read_table(plain, ("dstflag",), _column).rows
    if _is_wide(rows[0].cells):
        rows = tuple(_narrow(rows))
    market_of(rows[0].cells)
    return _in_settlement(rows)


def rows_of_api(document: object) -> list[Row]:
    """Rows of a page of the API.

    Raises:
        FeedRejected, InvalidValue: as ``read_rows``.
    """
    if isinstance(document, dict) and "message" in document and "fields" not in document:
        raise FeedRejected(f"ERCOT says: {one_line(str(document['message']))[:300]}")
    names = [
        _column(read_member(field, "name", str)) for field in read_member(document, "fields", list)
    ]
    rows = array_rows(names, read_member(document, "data", list), _cell)
    market_of(dict.fromkeys(names, ""))
    return _in_settlement(rows)


def _is_wide(cells: Mapping[str, str]) -> bool:
    """Whether there is a column for each hub and load zone, and nothing else beside the hour."""
    points = cells.keys() - set(BY_HOUR)
    return len(points) == len(cells) - len(BY_HOUR) > 0 and all(
        re.fullmatch(r"(HB|LZ)_\w+", point) for point in points
    )


def _narrow(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows of a table that has a column for each settlement point."""
    for row in rows:
        hour = {column: row.cells[column] for column in BY_HOUR}
        for point in row.cells.keys() - set(BY_HOUR):
            yield Row(
                row.line,
                {**hour, "settlementpoint": point, "settlementpointprice": row.cells[point]},
            )


def _in_settlement(rows: Sequence[Row]) -> list[Row]:
    """Rows whose price settles, without those weighted by energy."""
    return [row for row in rows if not row.cells.get(POINT_TYPE, "").endswith("EW")]


def _column(name: str) -> str:
    plain = re.sub("[^a-z]", "", name.lower())
    known = SAME_COLUMNS.get(plain, plain)
    return known if known in KNOWN_COLUMNS else name.strip()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "Y" if value else "N"
    return plain_cell(value)


def market_of(cells: Mapping[str, str]) -> str:
    """Which report has these columns."""
    for market, columns in COLUMNS.items():
        if set(columns) <= set(cells):
            return market
    bound = "must be those of NP4-190-CD, NP6-905-CD or NP6-788-CD"
    raise InvalidValue("columns", ", ".join(cells)[:120], bound)


def _is_repeated(row: Row) -> bool:
    flag = row.cells["dstflag"].upper()
    if flag not in {"Y", "N", "TRUE", "FALSE"}:
        raise InvalidValue(row.field("DSTFlag"), row.cells["dstflag"], "must be Y or N")
    return flag in {"Y", "TRUE"}


def _hour(row: Row) -> Interval:
    return _part_of_hour(row, "hourending", HOUR, 1)


def _quarter(row: Row) -> Interval:
    number = _integer(row, "deliveryinterval", 4)
    return _part_of_hour(row, "deliveryhour", QUARTER, number)


def _part_of_hour(row: Row, column: str, length: timedelta, number: int) -> Interval:
    """The ``number``-th part of an hour that is named by its end, 1 to 24."""
    day = read_naive(row.field("deliveryDate"), row.cells["deliverydate"][:10], DATES)
    local = day + (_integer(row, column, 24) - 1) * HOUR
    start_at = from_clock(row.field(column), local, CENTRAL, repeated=_is_repeated(row))
    start_at += (number - 1) * length
    return Interval(start_at, start_at + length)


def _dispatch(row: Row) -> Interval:
    """The 5 min in which a dispatch was made: its time is some seconds after they begin."""
    local = read_naive(row.field("SCEDTimestamp"), row.cells["scedtimestamp"], DISPATCH_TIMES)
    at = from_clock(row.field("SCEDTimestamp"), local, CENTRAL, repeated=_is_repeated(row))
    start_at = floor_to(at, FIVE_MINUTES)
    return Interval(start_at, start_at + FIVE_MINUTES)


INTERVALS = {"day_ahead": _hour, "real_time": _quarter, "real_time_5min": _dispatch}


def interval_of(row: Row) -> Interval:
    """The interval that a row's price holds for."""
    return INTERVALS[market_of(row.cells)](row)


def last_of_each_slot(rows: Sequence[Row]) -> list[Row]:
    """Of several dispatches in the same 5 min the last one."""
    in_order = sorted(rows, key=lambda row: row.cells["scedtimestamp"])
    return list({_dispatch(row).start_at: row for row in in_order}.values())


def _integer(row: Row, column: str, highest: int) -> int:
    """Read 1 to ``highest``; an hour may be written as 01:00."""
    text = re.sub(r":00$", "", row.cells[column])
    number = int(text) if re.fullmatch(r"\d{1,2}", text) else 0
    if not 1 <= number <= highest:
        raise InvalidValue(row.field(column), row.cells[column], f"must be from 1 to {highest}")
    return number
