"""SPP: prices of the Southwest Power Pool, files of CSV, without a key.

Source: https://portal.spp.org, "RTBM LMP by Location" (a file each 5 min with every settlement
location) and "DA LMP by Settlement Location" (a file each day). ``Interval`` is the local END of an
interval, ``GMTIntervalEnd`` the same in UTC, which is what is read here. Both markets have the same
columns: the times tell which it is. Files may be missing, or empty, for good. Names of files are
by the clocks of the start plus 5 min, with a ``d`` where the hour is the repeated one of autumn.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, ClassVar
from zoneinfo import ZoneInfo

from pals_grid.core.connecting import read_options, refusing, require_option
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.ports import ConnectorOption, Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid_connectors.market_files import (
    Wanted,
    fetch_files,
    market_options,
    newest,
    of_location,
    priced,
    read_market,
    read_table,
)
from pals_grid_connectors.market_time import FIVE_MINUTES, HOUR, known_days, read_naive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import FetchContext, Pace
    from pals_grid.core.series import Observation
    from pals_grid_connectors.table import Row

NAME = "SPP"
CENTRAL = ZoneInfo("America/Chicago")
# The next day's prices at about 13 h Central time; real-time ones with each interval.
RHYTHMS = {
    "day_ahead": Rhythm(every_s=86_400.0, late_s=4 * 3600.0),
    "real_time": Rhythm(every_s=300.0, late_s=900.0),
}
MOST_FILES = 288
# A file that is not out when its interval began this long ago is overdue.
LATE = timedelta(minutes=30)
FOLDERS = {"day_ahead": "da-lmp-by-settlement-location", "real_time": "rtbm-lmp-by-location"}
END, LOCATION, PRICE = "GMTIntervalEnd", "Settlement Location", "LMP"
PATTERNS = ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M")


class Spp:
    """Prices of one settlement location, USD/MWh: hours day-ahead, or 5 min in real time."""

    summary: ClassVar[str] = "SPP: day-ahead and 5-min prices of a location in the central US"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    options: ClassVar[tuple[ConnectorOption, ...]] = market_options(
        "settlement location, such as SPPNORTH_HUB",
        RHYTHMS,
        "https://portal.spp.org/file-browser-api/download",
        ConnectorOption(
            "max_files", f"5-min files asked for in one fetch, the newest, 1 to {MOST_FILES}", "12"
        ),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._location, self._market, base_url = read_market(given, RHYTHMS)
        self._url = f"{base_url}/{FOLDERS[self._market]}"
        self._max_files = _read_max_files(given["max_files"])
        self.rhythm = RHYTHMS[self._market]

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the files of ``window``; one that is missing or empty has no values.

        In real time these are the newest ``max_files``; a past that has more is refused.
        """
        require_option(NAME, "location", self._location)
        with refusing(NAME):
            bodies = fetch_files(NAME, self._files(window, context.fetched_at), context.http)
            found = self._observe([self._read(body) for body in bodies], context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one file of either market.

        Raises:
            FeedRejected: when the option location must change.
            FeedDataInvalid: when it is no file of prices, or holds one that cannot be.
        """
        with refusing(NAME):
            return self._observe([read_rows(payload)], known_at)

    def _files(self, window: Interval, now: datetime) -> Sequence[Wanted]:
        if self._market == "real_time":
            return self._real_time_files(window, now)
        today = now.astimezone(CENTRAL).date()
        return [
            self._wanted([f"/{day:%Y/%m}/By_Day/DA-LMP-SL-{day:%Y%m%d}0100.csv"], due=day <= today)
            for day in known_days(window, now, CENTRAL, day_ahead=True)
        ]

    def _real_time_files(self, window: Interval, now: datetime) -> Sequence[Wanted]:
        # The interval that runs now may be out already.
        until_at = min(window.end_at, floor_to(now, FIVE_MINUTES) + FIVE_MINUTES)
        start_at = floor_to(window.start_at, FIVE_MINUTES)
        count = max(0, -((start_at - until_at) // FIVE_MINUTES))
        starts = [start_at + number * FIVE_MINUTES for number in range(count)]
        files = [self._wanted(_interval_paths(at), due=at + LATE <= now) for at in starts]
        return newest(NAME, files, self._max_files, is_past=window.end_at <= now)

    def _wanted(self, paths: Sequence[str], *, due: bool) -> Wanted:
        return Wanted([(self._url, {"path": path}) for path in paths], due)

    def _read(self, body: bytes) -> Sequence[Row]:
        rows = read_rows(body)
        if _is_hourly(rows) != (self._market == "day_ahead"):
            shown = rows[0].cells[END]
            raise InvalidValue(END, shown, f"must be the times of a {self._market} file")
        return rows

    def _observe(self, files: Sequence[Sequence[Row]], known_at: datetime) -> list[Observation]:
        found: list[Observation] = []
        for rows, own in zip(
            files, of_location(NAME, self._location, files, LOCATION), strict=True
        ):
            step = HOUR if _is_hourly(rows) else FIVE_MINUTES
            found += [_observe(row, step, known_at) for row in own]
        return sorted(found, key=lambda item: item.start_at)


def read_rows(payload: bytes) -> Sequence[Row]:
    """Rows of every settlement location in a file.

    Raises:
        InvalidValue: when it is no file of prices.
    """
    return read_table(payload, ("Interval", END, LOCATION, PRICE)).rows


def _is_hourly(rows: Sequence[Row]) -> bool:
    """Whether the times are those of a day-ahead file: several, all at full hours."""
    ends = {row.cells[END] for row in rows}
    return len(ends) > 1 and all(re.search(r" \d+:00(:00)?$", end) for end in ends)


def _observe(row: Row, step: timedelta, known_at: datetime) -> Observation:
    end_at = read_naive(row.field(END), row.cells[END], PATTERNS).replace(tzinfo=UTC)
    interval = Interval(end_at - step, end_at)
    return priced(interval, row.field(PRICE), row.cells[PRICE], known_at)


def _interval_paths(start_at: datetime) -> Sequence[str]:
    """Where the file of the 5 min from ``start_at`` may be: the last of a day in either folder."""
    start = start_at.astimezone(CENTRAL)
    end = start.replace(tzinfo=None) + FIVE_MINUTES
    repeated = "d" if start.fold else ""
    folders = dict.fromkeys(
        (f"{end:%Y/%m}/By_Interval/{end:%d}", f"{start:%Y/%m}/By_Interval/{start:%d}")
    )
    return [f"/{folder}/RTBM-LMP-SL-{end:%Y%m%d%H%M}{repeated}.csv" for folder in folders]


def _read_max_files(text: str) -> int:
    number = int(text) if re.fullmatch(r"\d{1,3}", text) else 0
    if not 1 <= number <= MOST_FILES:
        raise InvalidValue("options.max_files", text, f"must be from 1 to {MOST_FILES}")
    return number
