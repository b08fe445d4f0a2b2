"""PJM Data Miner 2: locational prices of a pricing node, and carbon of the generation mix.

Source: https://dataminer2.pjm.com, and "Data Miner 2 API Guide". Every feed has one envelope,
``links, items, searchSpecification, totalRows``; the link to itself names the feed. Times are the
BEGINNING of an interval; those in ``_utc`` are read, so that the clocks of the east do not matter.
Rows of the day-ahead feed that were replaced have ``row_is_current`` false. Who is no member may
ask six times a minute. A page has 50000 rows at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_nullable,
    read_options,
    refusing,
    require_address,
    require_choice,
    require_match,
    require_secret,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval, floor_to, parse_instant
from pals_grid.core.mix import Fuel, Generation, fuel_of
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, touching
from pals_grid_connectors.generation import (
    FACTOR_OPTIONS,
    observe_mix,
    past_of,
    read_factors,
)
from pals_grid_connectors.paging import rows_of_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.ports import FetchContext

NAME = "PJM"
UNIT = "USD/MWh"
HOUR, FIVE_MINUTES = timedelta(hours=1), timedelta(minutes=5)
PAGE_ROWS = 50_000
MAX_PAGES = 20
SHOWN_NODES = 6


@dataclass(frozen=True, slots=True)
class DataFeed:
    """What is read of a feed: the member with the value, over so long an interval."""

    value: str
    step: timedelta
    is_ahead: bool = False


PRICES = {
    "rt_unverified_fivemin_lmps": DataFeed("total_lmp_rt", FIVE_MINUTES),
    "rt_fivemin_hrl_lmps": DataFeed("total_lmp_rt", FIVE_MINUTES),
    "rt_hrl_lmps": DataFeed("total_lmp_rt", HOUR),
    "da_hrl_lmps": DataFeed("total_lmp_da", HOUR, is_ahead=True),
}
GENERATION = "gen_by_fuel"
FEEDS = {**PRICES, GENERATION: DataFeed("mw", HOUR)}
DEFAULT_FEED = "rt_unverified_fivemin_lmps"
FUELS = {
    "Coal": Fuel.COAL,
    "Flywheel": Fuel.STORAGE,
    "Gas": Fuel.GAS,
    "Hydro": Fuel.HYDRO,
    "Multiple Fuels": Fuel.OTHER,
    "Nuclear": Fuel.NUCLEAR,
    "Oil": Fuel.OIL,
    "Other": Fuel.OTHER,
    "Other Renewables": Fuel.BIOMASS,
    "Solar": Fuel.SOLAR,
    "Storage": Fuel.STORAGE,
    "Wind": Fuel.WIND_ONSHORE,
}


class Pjm:
    """Prices of one pricing node in USD/MWh, or the region's average carbon in gCO2eq/kWh."""

    summary: ClassVar[str] = "PJM Data Miner 2: LMP of a pnode, or carbon of the generation mix"
    needs_secret: ClassVar[bool] = True
    pace: ClassVar[Pace | None] = Pace(6, 60.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("feed", f"{', '.join(FEEDS)}; empty: the first", ""),
        ConnectorOption("pnode_id", "pricing node, such as 34964545; needed to fetch prices", ""),
        *FACTOR_OPTIONS,
        ConnectorOption("base_url", "address of the API", "https://api.pjm.com/api/v1"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._feed = given["feed"] and require_choice("options.feed", given["feed"], FEEDS)
        self._node = require_match(
            "options.pnode_id", given["pnode_id"], "[0-9]{0,18}", "must be the number of a pnode"
        )
        self._factors = read_factors(given)
        self._base_url = require_address("options.base_url", given["base_url"])

    @property
    def rhythm(self) -> Rhythm:
        """Real time every five minutes, the day ahead at about 13:30 h Eastern, else hourly."""
        step = FEEDS[self._feed or DEFAULT_FEED]
        if step.is_ahead:
            return Rhythm(every_s=86_400.0, late_s=4 * 3600.0)
        every_s = step.step.total_seconds()
        return Rhythm(every_s=every_s, late_s=2 * every_s)

    @property
    def quantity(self) -> Quantity:
        """Average carbon intensity for the feed gen_by_fuel, else a price."""
        return _quantity(self._feed)

    def quantity_of(self, payload: bytes) -> Quantity:
        """Tell by the feed that the payload is of where no option does."""
        try:
            return _quantity(_load_page(payload, self._feed).feed)
        except (InvalidValue, FeedRejected):
            return self.quantity

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the values over ``window``; the subscription key is the context's secret."""
        feed = self._feed or DEFAULT_FEED
        if feed in PRICES and not self._node:
            raise FeedRejected(f"{NAME}: option pnode_id is needed to fetch prices")
        key = require_secret(NAME, "a subscription key", context)
        span = _span_of(feed, window, context.fetched_at)
        if span is None:
            return []
        with refusing(NAME):
            rows = self._fetch_rows(feed, span, key, context)
            found = self._read(rows, feed, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one page; hours of the mix that it holds in part are gaps.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it is of another feed, or of several pnodes and none is chosen.
        """
        with refusing(NAME):
            page = _load_page(payload, self._feed)
            return self._read(page.rows, page.feed, known_at)

    def _fetch_rows(
        self, feed: str, span: Interval, key: str, context: FetchContext
    ) -> list[object]:
        first_at, last_at = floor_to(span.start_at, HOUR), floor_to(span.end_at, HOUR) + HOUR
        asked = {
            "datetime_beginning_utc": f"{_stamp(first_at)}to{_stamp(last_at)}",
            "sort": "datetime_beginning_utc",
            "order": "Asc",
            "rowCount": str(PAGE_ROWS),
        }
        if feed in PRICES:
            asked["pnode_id"] = self._node
        if FEEDS[feed].is_ahead:
            asked["row_is_current"] = "TRUE"
        headers = {"Ocp-Apim-Subscription-Key": key}

        def fetch_page(offset: int) -> tuple[list[object], Decimal]:
            params = {**asked, "startRow": str(offset + 1)}
            response = context.http.get(f"{self._base_url}/{feed}", params, headers)
            raise_for_status(response)
            page = _load_page(response.body, feed)
            return page.rows, page.total

        return rows_of_pages(NAME, MAX_PAGES, "totalRows", fetch_page)

    def _read(self, rows: Sequence[object], feed: str, known_at: datetime) -> list[Observation]:
        if feed == GENERATION:
            return observe_mix(map(_read_generation, rows), self._factors, known_at)
        found = [
            item
            for row in (self._of_node(rows) if rows else [])
            for item in _read_price(row, FEEDS[feed], known_at)
        ]
        return sorted(found, key=lambda item: item.start_at)

    def _of_node(self, rows: Sequence[object]) -> list[object]:
        """Rows of the wanted pricing node, which need not be named where there is but one."""
        nodes: dict[str, str] = {}
        for row in rows:
            number, name = _node_of(row)
            nodes.setdefault(number or name, f"{number} {name}".strip())
        # Rows without a number were chosen by the question alone.
        is_only = len(nodes) == 1 and (not self._node or not _node_of(rows[0])[0])
        if is_only:
            return list(rows)
        if not self._node or self._node not in nodes:
            few = ", ".join(sorted(nodes.values())[:SHOWN_NODES])
            given, count = self._node or None, len(nodes)
            raise InvalidValue("options.pnode_id", given, f"must be one of {count}, such as {few}")
        return [row for row in rows if _node_of(row)[0] == self._node]


@dataclass(frozen=True, slots=True)
class _Page:
    """One answer: the feed that it is of, its rows, and how many there are in all."""

    feed: str
    rows: list[object]
    total: Decimal


def _load_page(payload: bytes, wanted: str) -> _Page:
    """Read a page of the ``wanted`` feed, or of any where none is.

    Raises:
        FeedRejected: when it is the provider's own error.
        InvalidValue: when it is no page, or of a feed that is not read here.
    """
    document = load_json(payload)
    _raise_error(document)
    rows = read_member(document, "items", list)
    total = read_member(document, "totalRows", Decimal)
    feed = _linked_feed(document) or (_feed_by_members(rows, wanted) if rows else wanted)
    allowed = (wanted,) if wanted else tuple(FEEDS)
    if feed not in allowed and (feed or rows):
        raise InvalidValue("feed", feed, f"must be {' or '.join(allowed)}")
    return _Page(feed, rows, total)


def _raise_error(document: object) -> None:
    """Raise what the API, or the gateway before it, says in place of rows."""
    if not isinstance(document, dict) or "items" in document:
        return
    errors = document.get("errors")
    if isinstance(errors, list) and errors and all(_is_field_error(item) for item in errors):
        said = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
        raise FeedRejected(f"{NAME} says: {said}")
    if {"statusCode", "message"} == document.keys():
        raise FeedRejected(f"{NAME} says: {document['statusCode']}, {document['message']}")


def _is_field_error(item: object) -> bool:
    return isinstance(item, dict) and {"field", "message"} <= item.keys()


def _linked_feed(document: object) -> str:
    links = document.get("links") if isinstance(document, dict) else None
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "self":
            return _last_segment(read_member(link, "href", str))
    return ""


def _last_segment(url: str) -> str:
    try:
        return urlsplit(url).path.rstrip("/").rpartition("/")[2]
    except ValueError as error:
        raise InvalidValue("links.href", url, "must be an address") from error


def _feed_by_members(rows: Sequence[object], wanted: str) -> str:
    """Tell the feed by the members of its rows, where no link names it."""
    first = rows[0]
    members = set(first) if isinstance(first, dict) else set()
    fitting = [
        name
        for name, feed in FEEDS.items()
        if feed.value in members and (name != GENERATION or "fuel_type" in members)
    ]
    if wanted in fitting:
        return wanted
    if len(fitting) > 1 and any(_start_of(row).minute for row in rows):
        fitting = [name for name in fitting if FEEDS[name].step == FIVE_MINUTES][:1]
    if len(fitting) != 1:
        shown = ", ".join(sorted(members)[:SHOWN_NODES])
        raise InvalidValue("feed", shown, f"cannot be told, must be one of {', '.join(FEEDS)}")
    return fitting[0]


def _node_of(row: object) -> tuple[str, str]:
    """Number and name of a row's pricing node, each empty where it is not given."""
    record = row if isinstance(row, dict) else {}
    number, name = record.get("pnode_id"), record.get("pnode_name", record.get("name"))
    return "" if number is None else str(number), name if isinstance(name, str) else ""


def _start_of(row: object) -> datetime:
    text = read_member(row, "datetime_beginning_utc", str)
    return parse_instant("datetime_beginning_utc", text if text.endswith("Z") else f"{text}Z")


def _read_price(row: object, feed: DataFeed, known_at: datetime) -> Iterator[Observation]:
    """Give the row's price; none where it is null or has been replaced."""
    start_at = _start_of(row)
    price = read_nullable(row, feed.value, f" at {start_at.isoformat()}")
    replaced = isinstance(row, dict) and row.get("row_is_current") is False
    if price is not None and not replaced:
        end_at = start_at + feed.step
        yield Observation(start_at, end_at, price, UNIT, ValueKind.MEASURED, known_at)


def _read_generation(row: object) -> Generation:
    start_at = _start_of(row)
    name = read_member(row, "fuel_type", str)
    power_mw = read_nullable(row, "mw", f" for {name} at {start_at.isoformat()}")
    interval = Interval(start_at, start_at + HOUR)
    return Generation(name, fuel_of("fuel_type", name, FUELS), interval, power_mw)


def _quantity(feed: str) -> Quantity:
    return Quantity.AVERAGE_INTENSITY if feed == GENERATION else Quantity.PRICE


def _span_of(feed: str, window: Interval, now: datetime) -> Interval | None:
    """Return what to ask a feed for; None where it has nothing for ``window`` yet."""
    if feed == GENERATION:
        return past_of(window, now)
    end_at = window.end_at if FEEDS[feed].is_ahead else min(window.end_at, now)
    return None if end_at <= window.start_at else Interval(window.start_at, end_at)


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%m/%d/%Y %H:%M")
