"""CAISO OASIS: locational marginal prices of California, without a key.

Source: https://www.caiso.com/documents/oasis-interfacespecification_v5_1_3clean_fall2017release.pdf,
SingleZip with resultformat 6, reports PRC_LMP and PRC_INTVL_LMP. The answer is a zip of one CSV, or
of an XML that says what is wrong; "no data" is such an error. Rows come unsorted, one for each part
of the price, of which the type LMP is the whole. The price is in the column MW of the day-ahead
market and VALUE of the real-time one. Times carry an offset; an operating day is one of Pacific
time and begins at 07:00 or 08:00 UTC. One request in 5 s is allowed: HTTP 429 says so in HTML.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, ClassVar
from zoneinfo import ZoneInfo

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from pals_grid.core.connecting import (
    raise_for_status,
    read_options,
    refusing,
    require_option,
)
from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval, parse_instant
from pals_grid.core.ports import Pace, Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid_connectors.market_files import (
    market_options,
    of_location,
    one_line,
    priced,
    read_market,
    read_table,
    says,
    unpack,
)
from pals_grid_connectors.market_time import DAY, known_days, midnight
from pals_grid_connectors.table import WHITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pals_grid.core.ports import ConnectorOption, FetchContext
    from pals_grid.core.series import Observation
    from pals_grid_connectors.table import Row

NAME = "CAISO"
PACIFIC = ZoneInfo("America/Los_Angeles")
# The next day's prices at about 13 h Pacific time; real-time ones with each interval.
RHYTHMS = {
    "day_ahead": Rhythm(every_s=86_400.0, late_s=4 * 3600.0),
    "real_time": Rhythm(every_s=300.0, late_s=900.0),
}
# Operating days in one request; 31 days are allowed, and a change of clocks may add an hour.
MAX_DAYS = 30
QUERIES = {
    "day_ahead": {"queryname": "PRC_LMP", "market_run_id": "DAM", "version": "12"},
    "real_time": {"queryname": "PRC_INTVL_LMP", "market_run_id": "RTM", "version": "3"},
}
START, END = "INTERVALSTARTTIME_GMT", "INTERVALENDTIME_GMT"
COLUMNS = (START, END, "OPR_DT", "NODE", "MARKET_RUN_ID", "LMP_TYPE")
PRICE_COLUMNS = ("MW", "VALUE")
NO_DATA = "no data returned"
TEMPORARY = ("timed out", "too many requests", "retry")


class Caiso:
    """Prices of one node, USD/MWh: hours of the day-ahead market, or 5 min in real time."""

    summary: ClassVar[str] = "CAISO: day-ahead and 5-min prices of a node in California"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = Pace(1, 5.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = market_options(
        "pricing node, such as TH_SP15_GEN-APND",
        RHYTHMS,
        "https://oasis.caiso.com/oasisapi",
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._location, self._market, base_url = read_market(given, RHYTHMS)
        self._url = f"{base_url}/SingleZip"
        self.rhythm = RHYTHMS[self._market]

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the operating days that ``window`` touches; days not published have no values."""
        require_option(NAME, "location", self._location)
        found: list[Observation] = []
        for params in self._questions(window, context.fetched_at):
            response = context.http.get(self._url, params)
            raise_for_status(response, says(response.body))
            with refusing(NAME):
                rows = _read_rows(response.body)
                self._require_market(rows)
                found += self._observe(rows, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer of either market, zipped or not.

        Raises:
            FeedRejected: when it is OASIS's own error, or the option location must change.
            FeedUnavailable: when OASIS asks to try again.
            FeedDataInvalid: when it holds no prices, or one that cannot be.
        """
        with refusing(NAME):
            return self._observe(_read_rows(payload), known_at)

    def _questions(self, window: Interval, now: datetime) -> Iterator[dict[str, str]]:
        days = known_days(window, now, PACIFIC, day_ahead=self._market == "day_ahead")
        for first in range(0, len(days), MAX_DAYS):
            part = days[first : first + MAX_DAYS]
            yield {
                **QUERIES[self._market],
                "node": self._location,
                "startdatetime": _stamp(midnight(part[0], PACIFIC)),
                "enddatetime": _stamp(midnight(part[-1] + DAY, PACIFIC)),
                "resultformat": "6",
            }

    def _require_market(self, rows: list[Row]) -> None:
        wanted = QUERIES[self._market]["market_run_id"]
        for row in rows:
            if row.cells["MARKET_RUN_ID"] != wanted:
                field = row.field("MARKET_RUN_ID")
                raise InvalidValue(field, row.cells["MARKET_RUN_ID"], f"must be {wanted}")

    def _observe(self, rows: list[Row], known_at: datetime) -> list[Observation]:
        (own,) = of_location(NAME, self._location, [rows], "NODE")
        return sorted((_observe(row, known_at) for row in own), key=lambda item: item.start_at)


def _read_rows(payload: bytes) -> list[Row]:
    """Rows of whole prices; none where OASIS has no data."""
    plain = unpack(payload)
    if plain.lstrip(WHITE).startswith(b"<"):
        _raise_for_error(plain)
        return []
    rows = [row for row in read_table(plain, COLUMNS).rows if row.cells["LMP_TYPE"] == "LMP"]
    if not rows:
        raise InvalidValue("LMP_TYPE", None, "must be LMP in at least one row")
    return rows


def _raise_for_error(plain: bytes) -> None:
    """Translate OASIS's XML error; "no data" passes."""
    try:
        elements = fromstring(plain, forbid_dtd=True).iter()
        texts = [(str(item.tag).rpartition("}")[2], item.text or "") for item in elements]
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidValue("payload", says(plain)[:120], f"must be CSV or XML ({error})") from error
    errors = [one_line(text) for tag, text in texts if tag == "ERR_DESC"]
    if not errors:
        raise InvalidValue("payload", says(plain)[:120], "must be CSV, or an error of OASIS")
    message = "; ".join(errors)[:300]
    if any(word in message.lower() for word in TEMPORARY):
        raise FeedUnavailable(f"{NAME} says: {message}")
    if not all(error.lower().startswith(NO_DATA) for error in errors):
        raise FeedRejected(f"{NAME} says: {message}")


def _observe(row: Row, known_at: datetime) -> Observation:
    start_at = parse_instant(row.field(START), row.cells[START])
    operating_day = start_at.astimezone(PACIFIC).date().isoformat()
    if row.cells["OPR_DT"] != operating_day:
        bound = f"must be {operating_day}, the Pacific day of {START}"
        raise InvalidValue(row.field("OPR_DT"), row.cells["OPR_DT"], bound)
    column = next((name for name in PRICE_COLUMNS if name in row.cells), PRICE_COLUMNS[0])
    interval = Interval(start_at, parse_instant(row.field(END), row.cells[END]))
    return priced(interval, row.field(column), row.cells.get(column, ""), known_at)


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y%m%dT%H:%M-0000")
