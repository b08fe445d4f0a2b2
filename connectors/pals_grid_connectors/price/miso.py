"""MISO: prices of the Midcontinent market, without a key.

Source: https://docs.misoenergy.org/marketreports/, "Day Ahead Market ExPost LMPs", a CSV each day,
and https://public-api.misoenergy.org/, GetRealTimeFiveMinExPost, JSON whose rows are arrays under
``headers``. All times are Eastern Standard Time, the whole year: a day has 24 hours, in columns
HE 1 to HE 24 by their END; a real-time INTERVAL is the START of 5 min. A file that is not out yet
answers 404. MISO asks for no more than one request a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from zoneinfo import ZoneInfo

from pals_grid.core.connecting import (
    load_json,
    read_member,
    read_options,
    refusing,
    require_address,
    require_option,
)
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid_connectors.market_files import (
    Wanted,
    array_rows,
    fetch_files,
    market_options,
    newest,
    of_location,
    priced,
    read_market,
    read_table,
    says,
    unpack,
)
from pals_grid_connectors.market_time import (
    FIVE_MINUTES,
    HOUR,
    from_clock,
    known_days,
    read_naive,
)
from pals_grid_connectors.table import Row, is_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import FetchContext
    from pals_grid.core.series import Observation

NAME = "MISO"
# Eastern Standard Time without summer time; this name of the zone counts hours to the west.
EST = ZoneInfo("Etc/GMT+5")
# The next day's prices at about 14 h EST; real-time ones as each interval ends.
RHYTHMS = {
    "day_ahead": Rhythm(every_s=86_400.0, late_s=4 * 3600.0),
    "real_time": Rhythm(every_s=300.0, late_s=900.0),
}
REAL_TIME_PATH = "api/MarketPricing/GetRealTimeFiveMinExPost/Current"
TITLE = "Day Ahead Market"
# At a request a minute a fetch would wait long for more.
MOST_FILES = 2
HOURS = {f"HE {number}": number for number in range(1, 25)}
NODE, REAL_TIME_NODE, START, PRICE = "Node", "CPNODE", "INTERVAL", "LMP"


class Miso:
    """Prices of one commercial pricing node, USD/MWh: hours day-ahead, or 5 min in real time."""

    summary: ClassVar[str] = "MISO: day-ahead and 5-min prices of a node in the Midcontinent"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = Pace(1, 60.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = market_options(
        "commercial pricing node, such as INDIANA.HUB",
        RHYTHMS,
        "https://docs.misoenergy.org/marketreports",
        ConnectorOption(
            "real_time_url", "address of the real-time API", "https://public-api.misoenergy.org"
        ),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._location, self._market, self._reports_url = read_market(given, RHYTHMS)
        real_time_url = require_address("options.real_time_url", given["real_time_url"])
        self._real_time_url = f"{real_time_url}/{REAL_TIME_PATH}"
        self.rhythm = RHYTHMS[self._market]

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the last two day files of ``window``, or the present 5 min.

        A file that is not out yet has no values; a past of more than two days is refused.
        """
        require_option(NAME, "location", self._location)
        with refusing(NAME):
            bodies = fetch_files(NAME, self._files(window, context.fetched_at), context.http)
            found = self._observe([self._read(body) for body in bodies], context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise a day file, or the JSON of the real-time API.

        Raises:
            FeedRejected: when the option location must change.
            FeedDataInvalid: when it is neither, or holds a price that cannot be.
        """
        with refusing(NAME):
            return self._observe([_read_file(payload)], known_at)

    def _files(self, window: Interval, now: datetime) -> Sequence[Wanted]:
        if self._market == "real_time":
            return [Wanted([(self._real_time_url, {})], due=True)]
        today = now.astimezone(EST).date()
        files = [
            Wanted([(f"{self._reports_url}/{day:%Y%m%d}_da_expost_lmp.csv", {})], due=day <= today)
            for day in known_days(window, now, EST, day_ahead=True)
        ]
        return newest(NAME, files, MOST_FILES, is_past=window.end_at <= now)

    def _read(self, body: bytes) -> _File:
        file = _read_file(body)
        if (file.day is None) != (self._market == "real_time"):
            raise InvalidValue("payload", says(body)[:60], f"must be {self._market}")
        return file

    def _observe(self, files: Sequence[_File], known_at: datetime) -> list[Observation]:
        own = of_location(NAME, self._location, [file.rows for file in files], NODE)
        found = [
            priced(interval, field, price, known_at)
            for file, rows in zip(files, own, strict=True)
            for row in rows
            for field, interval, price in _quotes(row, file.day)
        ]
        return sorted(found, key=lambda item: item.start_at)


@dataclass(frozen=True, slots=True)
class _File:
    """Rows of nodes: of a day and with a column for each hour, or each of one 5 min."""

    rows: Sequence[Row]
    day: datetime | None


def _read_file(payload: bytes) -> _File:
    plain = unpack(payload)
    if is_json(plain):
        return _File(_read_real_time(load_json(plain)), None)
    table = read_table(plain, (NODE, "Value", *HOURS))
    title, date = (*table.preamble, "", "")[:2]
    if not title.startswith(TITLE):
        raise InvalidValue("line 1", title, f"must begin with {TITLE!r}")
    day = read_naive("line 2", date.strip(" ,"), ("%m/%d/%Y",))
    rows = [row for row in table.rows if row.cells["Value"] == PRICE]
    return _File(rows, from_clock("line 2", day, EST, repeated=False))


def _read_real_time(document: object) -> list[Row]:
    header = [str(name) for name in read_member(document, "headers", list)]
    rows = array_rows(header, read_member(document, "data", list))
    for column in (START, REAL_TIME_NODE, PRICE):
        if column not in header:
            raise InvalidValue("headers", ", ".join(header)[:120], f"must have {column}")
    return [Row(row.line, {**row.cells, NODE: row.cells[REAL_TIME_NODE]}) for row in rows]


def _quotes(row: Row, day: datetime | None) -> Iterator[tuple[str, Interval, str]]:
    """Prices of one row, each with its name for messages; an empty one is a gap."""
    if day is None:
        text = row.cells[START].replace("T", " ")
        local = read_naive(row.field(START), text, ("%Y-%m-%d %H:%M:%S",))
        start_at = from_clock(row.field(START), local, EST, repeated=False)
        prices = [(PRICE, Interval(start_at, start_at + FIVE_MINUTES))]
    else:
        prices = [
            (column, Interval(day + (end - 1) * HOUR, day + end * HOUR))
            for column, end in HOURS.items()
        ]
    for column, interval in prices:
        if row.cells[column]:
            yield row.field(column), interval, row.cells[column]
