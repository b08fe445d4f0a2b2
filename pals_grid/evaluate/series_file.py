"""A long series out of a CSV file, its columns found by themselves where they are usual."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LONGEST_STEP_S = 3600.0
GZIP_MAGIC = b"\x1f\x8b"
_TIMES = (r"zone_datetime|point_time|valid_from", r"time|date|from|start|^ts$")
_HOUR_ENDING = re.compile(r"hour_?ending|^he$", re.IGNORECASE)
_NO_VALUE = re.compile(
    r"forecast|pct|percent|estimated|production|consumption|export|repeat|flag|^f\d+(min)?$",
    re.IGNORECASE,
)
# Of several columns the first that one of these finds, tried in this order.
_VALUES = {
    Quantity.PRICE: (r"import.*price|price", r"per_?[mk]wh|/[mk]wh|lmp|spp|rate", r"hb_|lz_", r"."),
    Quantity.AVERAGE_INTENSITY: (
        r"lca|life_?cycle|intensity_avg$",
        r"(?<!marginal_)(carbon|intensity|co2|g_per_kwh|actual)",
        r".",
    ),
    Quantity.MARGINAL_INTENSITY: (r"marginal|moer", r"carbon|co2|g_per_kwh", r"."),
}
_OWN = re.compile(r"f(\d+)(min)?$")
_PATTERNS = (
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y %H:%M",
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file's times and values are; None is to be found out.

    ``time_format`` is ``iso``, ``unix`` or a strptime pattern; ``timezone`` is that of times
    without an offset (UTC where none is given); ``stamp`` tells starts from ends.
    """

    time: str | None = None
    value: str | None = None
    time_format: str | None = None
    timezone: str = "UTC"
    stamp: str = "start"


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """Values by start in seconds since the epoch, in the file's own unit.

    ``own_forecasts`` maps the provider's forecasts, by minutes ahead, to one value a row (NaN
    where there is none): made at the row's time for that time and so many minutes. ``left_out``
    counts rows without a value, or replaced by a later row of the same time.
    """

    starts_s: Sequence[float]
    ends_s: Sequence[float]
    values: Sequence[float]
    own_forecasts: Mapping[int, Sequence[float]]
    left_out: int
    columns: Columns


def read_series_file(path: Path, quantity: Quantity, wanted: Columns) -> SeriesFile:
    """Read a CSV, plain or gzipped.

    Where dates and hours ending 01 to 24 are columns of their own, they are put together.

    Raises:
        InvalidValue: for a file, a column or a time that cannot be read.
    """
    header, rows = _with_hour_starts(*_load(path))
    time_at = _place(header, wanted.time, lambda: _find(header, _TIMES, "time_column"))
    value_at = _place(header, wanted.value, lambda: _find_value(header, quantity, time_at))
    known = [row for row in rows if math.isfinite(_number(row[value_at]))]
    if len(known) < 2:
        raise InvalidValue("file", str(path), f"must hold two values in {header[value_at]} or more")
    found = replace(
        wanted,
        time=header[time_at],
        value=header[value_at],
        time_format=wanted.time_format or _find_format([row[time_at] for row in known]),
    )
    by_start = dict(zip(_stamps(known, time_at, found), known, strict=True))
    starts = sorted(by_start)
    step_s = median(later - earlier for earlier, later in pairwise(starts))
    ends = [*_ends(starts, step_s), starts[-1] + step_s]
    shift_s = step_s if found.stamp == "end" else 0.0
    kept = [by_start[start] for start in starts]
    own = {
        _minutes(name, step_s): [_number(row[place]) for row in kept]
        for place, name in enumerate(header)
        if _OWN.match(name)
    }
    return SeriesFile(
        [start - shift_s for start in starts],
        [end - shift_s for end in ends],
        [_number(row[value_at]) for row in kept],
        own,
        len(rows) - len(kept),
        found,
    )


def _load(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidValue("file", str(path), f"must be readable CSV: {error}") from error
    header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if len(header) < 2:
        raise InvalidValue("file", str(path), "must be CSV with a header of two columns or more")
    return [name.strip() for name in header], [row for row in rows if len(row) == len(header)]


def _with_hour_starts(
    header: list[str], rows: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Where an hour 01 to 24 stands beside its date, one column with the hour's start."""
    hour = next((i for i, name in enumerate(header) if _HOUR_ENDING.search(name)), None)
    date = next((i for i, name in enumerate(header) if "date" in name.lower()), None)
    if hour is None or date is None:
        return header, rows
    joined = [[f"{row[date]} {int(row[hour][:2]) - 1:02d}:00", *row] for row in rows]
    others = [name if i != date else "day" for i, name in enumerate(header)]
    return ["start_time", *others], joined


def _place(header: Sequence[str], name: str | None, find: Callable[[], int]) -> int:
    if name is None:
        return find()
    if name not in header:
        raise InvalidValue("column", name, f"must be one of {', '.join(header)[:300]}")
    return header.index(name)


def _find(header: Sequence[str], patterns: Sequence[str], field: str, skip: int = -1) -> int:
    for pattern in patterns:
        for place, name in enumerate(header):
            if place != skip and re.search(pattern, name, re.IGNORECASE):
                return place
    raise InvalidValue(field, None, f"must be given: one of {', '.join(header)[:300]}")


def _find_value(header: Sequence[str], quantity: Quantity, time_at: int) -> int:
    times = re.compile(r"time|date|period|hour|^day$", re.IGNORECASE)
    masked = ["" if _NO_VALUE.search(n) or times.search(n) else n for n in header]
    return _find(masked, _VALUES[quantity], "value_column", time_at)


def _find_format(texts: Sequence[str]) -> str:
    """The first format that reads the first, the middle and the last time, and a hundred more."""
    seen = texts[:: max(1, len(texts) // 100)]
    for pattern in ("unix", "iso", *_PATTERNS):
        try:
            for text in seen:
                _read_time(text, pattern)
        except ValueError:
            continue
        return pattern
    raise InvalidValue("time_format", texts[0], "must be given: iso, unix or a strptime pattern")


def _read_time(text: str, pattern: str) -> datetime:
    if pattern == "iso":
        return datetime.fromisoformat(text.strip())
    if pattern == "unix":
        return datetime.fromtimestamp(float(text), UTC)
    return datetime.strptime(text.strip(), pattern)  # noqa: DTZ007 - the caller adds the zone


def _stamps(rows: Sequence[Sequence[str]], place: int, columns: Columns) -> Iterator[float]:
    """Seconds since the epoch; a local time that seems to go back is the second of its kind."""
    try:
        zone = ZoneInfo(columns.timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidValue("timezone", columns.timezone, "must be an IANA time zone") from error
    previous = -math.inf
    for number, row in enumerate(rows, start=2):
        try:
            instant = _read_time(row[place], columns.time_format or "iso")
        except ValueError as error:
            bound = f"must be a time of the format {columns.time_format}"
            raise InvalidValue(f"row {number}, {columns.time}", row[place], bound) from error
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=zone)
            late = instant.replace(fold=1)
            if instant.timestamp() <= previous < late.timestamp():
                instant = late
        previous = instant.timestamp()
        yield previous


def _ends(starts: Sequence[float], step_s: float) -> Iterator[float]:
    for earlier, later in pairwise(starts):
        gap_s = later - earlier
        yield later if gap_s <= max(LONGEST_STEP_S, step_s) else earlier + step_s


def _minutes(name: str, step_s: float) -> int:
    """Minutes ahead of a column ``f60min``, or of ``f12``, which counts steps."""
    match = _OWN.match(name)
    assert match is not None
    return int(match[1]) if match[2] else round(int(match[1]) * step_s / 60)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
