"""NYISO: zonal prices of New York, day files of CSV, without a key.

Source: http://mis.nyiso.com/public/, LBMP of day-ahead (P-2A) and real-time (P-24A) markets. Times
are of Eastern clocks and carry no zone. A real-time stamp, which has seconds, is the END of its
interval; a day-ahead one, which has none, is its START. The hour that repeats in autumn is told by
the order of rows. Real-time intervals are 5 min long, and shorter where an extra dispatch falls
between. The sign of the congestion column is inverted; only the whole price is read.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar
from zoneinfo import ZoneInfo

from pals_grid.core.connecting import read_options, refusing, require_option
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid_connectors.local_time import TimeFormat
from pals_grid_connectors.market_files import (
    Wanted,
    fetch_files,
    market_options,
    of_location,
    priced,
    read_market,
    read_table,
)
from pals_grid_connectors.market_time import (
    FIVE_MINUTES,
    HOUR,
    from_clock,
    known_days,
    read_naive,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import ConnectorOption, FetchContext, Pace
    from pals_grid.core.series import Observation
    from pals_grid_connectors.table import Row

NAME = "NYISO"
EASTERN = ZoneInfo("America/New_York")
# The next day's prices by 11 h Eastern time; real-time ones as each interval ends.
RHYTHMS = {
    "day_ahead": Rhythm(every_s=86_400.0, late_s=2 * 3600.0),
    "real_time": Rhythm(every_s=300.0, late_s=600.0),
}
FILES = {
    "day_ahead": ("damlbmp", "damlbmp_zone"),
    "real_time": ("realtime", "realtime_zone"),
}
STAMP, ZONE, PRICE = "Time Stamp", "Name", "LBMP ($/MWHr)"
START_STAMP = re.compile(r"\d+/\d+/\d{4} \d+:\d\d")
STARTS = TimeFormat("%m/%d/%Y %H:%M", EASTERN)
ENDS = TimeFormat("%m/%d/%Y %H:%M:%S", EASTERN)
SECOND = timedelta(seconds=1)


class Nyiso:
    """Prices of one zone, USD/MWh: hours of the day-ahead market, or 5 min in real time."""

    summary: ClassVar[str] = "NYISO: day-ahead and 5-min prices of a zone in New York"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    options: ClassVar[tuple[ConnectorOption, ...]] = market_options(
        "name of the zone, such as N.Y.C. or WEST",
        RHYTHMS,
        "https://mis.nyiso.com/public/csv",
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._location, self._market, self._base_url = read_market(given, RHYTHMS)
        self.rhythm = RHYTHMS[self._market]

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the day files that ``window`` touches; a file not out yet has no values."""
        require_option(NAME, "location", self._location)
        with refusing(NAME):
            bodies = fetch_files(NAME, self._files(window, context.fetched_at), context.http)
            found = self._observe([self._read(body) for body in bodies], context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one file of either market.

        Raises:
            FeedRejected: when the option location must change.
            FeedDataInvalid: when it is no file of zonal prices, or holds one that cannot be.
        """
        with refusing(NAME):
            return self._observe([_read_rows(payload)], known_at)

    def _files(self, window: Interval, now: datetime) -> list[Wanted]:
        day_ahead = self._market == "day_ahead"
        today = now.astimezone(EASTERN).date()
        folder, name = FILES[self._market]
        return [
            Wanted(
                [(f"{self._base_url}/{folder}/{day:%Y%m%d}{name}.csv", {})],
                due=day < today or (day_ahead and day == today),
            )
            for day in known_days(window, now, EASTERN, day_ahead=day_ahead)
        ]

    def _read(self, body: bytes) -> Sequence[Row]:
        rows = _read_rows(body)
        if _is_real_time(rows) != (self._market == "real_time"):
            seconds = "with" if self._market == "real_time" else "without"
            row = rows[0]
            raise InvalidValue(row.field(STAMP), row.cells[STAMP], f"must be {seconds} seconds")
        return rows

    def _observe(self, files: Sequence[Sequence[Row]], known_at: datetime) -> list[Observation]:
        found: list[Observation] = []
        for own in of_location(NAME, self._location, files, ZONE):
            for row, interval in zip(own, _intervals(own), strict=True):
                found.append(priced(interval, row.field(PRICE), row.cells[PRICE], known_at))
        return sorted(found, key=lambda item: item.start_at)


def _read_rows(payload: bytes) -> Sequence[Row]:
    return read_table(payload, (STAMP, ZONE, PRICE)).rows


def _is_real_time(rows: Sequence[Row]) -> bool:
    return not START_STAMP.fullmatch(rows[0].cells[STAMP])


def _intervals(rows: Sequence[Row]) -> Iterator[Interval]:
    """Intervals of one zone's rows, in their order."""
    real_time = bool(rows) and _is_real_time(rows)
    previous: datetime | None = None
    for row in rows:
        field, text = row.field(STAMP), row.cells[STAMP]
        if real_time:
            at = _read_end(field, text, previous)
            yield _up_to(at, previous)
        else:
            at = STARTS.read(field, text, previous)
            yield Interval(at, at + HOUR)
        previous = at


def _read_end(field: str, text: str, previous: datetime | None) -> datetime:
    try:
        return ENDS.read(field, text, previous)
    except InvalidValue:
        # The end that touches the skipped hour of spring may be written by the clock before it.
        before = read_naive(field, text, (ENDS.pattern,)) - SECOND
        return from_clock(field, before, EASTERN, repeated=False) + SECOND


def _up_to(end_at: datetime, previous: datetime | None) -> Interval:
    """5 min up to ``end_at``, less where the interval before ends inside them."""
    start_at = end_at - FIVE_MINUTES
    if previous is not None and timedelta(0) < end_at - previous < FIVE_MINUTES:
        start_at = previous
    return Interval(start_at, end_at)
