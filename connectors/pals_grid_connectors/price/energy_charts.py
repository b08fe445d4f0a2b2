"""energy-charts.info (Fraunhofer ISE): day-ahead prices of the European zones, without a key.

Source: https://api.energy-charts.info. Prices stand beside the Unix seconds at which they begin;
how long each one holds is nowhere said. Delivery turned from hours to quarters of an hour on
2025-10-01 and never back, so a price holds for an hour up to the first stamp that is not a whole
number of hours after the one before it, and for a quarter from there. What is missing is a gap.
The licence differs between zones and comes with each answer.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_number,
    read_options,
    refusing,
    require_address,
    require_match,
    require_option,
)
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import EPOCH, floor_to, format_minute
from pals_grid.core.ports import ConnectorOption, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, touching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, Pace

NAME = "energy-charts"
HOUR_S, QUARTER_S = 3600, 900
DAY = timedelta(days=1)
MAX_UNIX_S = 32_503_680_000  # the year 3000


class EnergyCharts:
    """Day-ahead prices of one bidding zone, in its currency per MWh."""

    summary: ClassVar[str] = "energy-charts.info: day-ahead prices of the European zones, no key"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    # The next day's prices at about 13 h Brussels time.
    rhythm: ClassVar[Rhythm | None] = Rhythm(every_s=86_400.0, late_s=6 * 3600.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("zone", "DE-LU, NL, FR, DK1, IT-North ...; needed to fetch", ""),
        ConnectorOption("base_url", "address of the API", "https://api.energy-charts.info"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._zone = require_match(
            "options.zone",
            given["zone"],
            "(?:[A-Z]{2}[A-Za-z0-9-]{0,20})?",
            "must be a bidding zone such as DE-LU",
        )
        self._base_url = require_address("options.base_url", given["base_url"])

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the prices over ``window``, in whole days so that their length can be told."""
        asked = {
            "bzn": require_option(NAME, "zone", self._zone),
            "start": format_minute(floor_to(window.start_at, DAY)),
            "end": format_minute(floor_to(window.end_at, DAY) + DAY),
        }
        response = context.http.get(f"{self._base_url}/price", asked)
        raise_for_status(response)
        found = self.parse(response.body, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer; null prices are gaps.

        Raises:
            FeedDataInvalid: when it is no answer with prices, or a single one, whose length
                nothing tells.
        """
        with refusing(NAME):
            document = load_json(payload)
            stamps_s = [_read_stamp(item) for item in read_member(document, "unix_seconds", list)]
            prices = read_member(document, "price", list)
            if len(prices) != len(stamps_s):
                raise InvalidValue("price", len(prices), f"must be {len(stamps_s)} values")
            unit = _read_unit(read_member(document, "unit", str))
            return [
                Observation(
                    _instant(start_s),
                    _instant(start_s + length_s),
                    float(read_number("price", price)),
                    unit,
                    ValueKind.MEASURED,
                    known_at,
                )
                for start_s, length_s, price in zip(
                    stamps_s, _lengths(stamps_s), prices, strict=True
                )
                if price is not None
            ]


def _read_stamp(item: object) -> int:
    number = item if isinstance(item, Decimal) else None
    if number is None or not 0 <= number <= MAX_UNIX_S or number % QUARTER_S:
        raise InvalidValue("unix_seconds", str(item), "must be quarters of an hour since 1970")
    return int(number)


def _read_unit(text: str) -> str:
    unit = re.sub(r"\s", "", text)
    return require_match("unit", unit, "[A-Z]{3}/MWh", "must be <ISO 4217>/MWh")


def _lengths(stamps_s: Sequence[int]) -> Iterator[int]:
    """Seconds for which each price holds."""
    if len(stamps_s) == 1:
        raise InvalidValue("unix_seconds", stamps_s[0], "must be two or more to tell their length")
    length_s = HOUR_S
    for start_s, next_s in pairwise(stamps_s):
        if next_s <= start_s:
            raise InvalidValue("unix_seconds", next_s, f"must be after {start_s}")
        if (next_s - start_s) % HOUR_S:
            length_s = QUARTER_S
        yield length_s
    if stamps_s:
        yield length_s


def _instant(unix_s: int) -> datetime:
    return EPOCH + timedelta(seconds=unix_s)
