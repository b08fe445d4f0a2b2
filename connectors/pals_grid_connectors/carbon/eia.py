"""EIA: average carbon intensity of the generation mix of the United States' balancing areas.

Source: https://www.eia.gov/opendata, API v2, route electricity/rto/fuel-type-data (Form EIA-930,
net generation by energy source). A period is named by the hour's END, in UTC. A value is text, a
number or null. An answer holds 5000 rows at most; more are read by offset. The key goes into the
URL, and the answer repeats it. Pace: the "Open Data FAQs" ask for less than 9000 requests an hour
and 5 a second.

An answer is taken as it stands: where one holds a single fuel, that fuel is the mix, as it is in
areas with nothing but hydro power or wind. An answer that says it was asked for some of the fuels
is no mix and is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_nullable,
    read_number,
    read_options,
    refusing,
    require_address,
    require_match,
    require_option,
    require_secret,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval, floor_to, parse_instant
from pals_grid.core.mix import Fuel, Generation, fuel_of
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Quantity, touching
from pals_grid_connectors.generation import (
    FACTOR_OPTIONS,
    observe_mix,
    past_of,
    read_factors,
)
from pals_grid_connectors.paging import rows_of_pages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.ports import FetchContext
    from pals_grid.core.series import Observation

NAME = "EIA"
ROUTE = "/electricity/rto/fuel-type-data/data/"
HOUR = timedelta(hours=1)
PAGE_ROWS = 5000
MAX_PAGES = 100
# What the route says of itself in every answer, an empty one too.
DESCRIPTION = "net generation by balancing authority and energy source"
FUELS = {
    "COL": Fuel.COAL,
    "NG": Fuel.GAS,
    "NUC": Fuel.NUCLEAR,
    "OIL": Fuel.OIL,
    "WAT": Fuel.HYDRO,  # with pumped storage where an area does not tell it apart
    "SUN": Fuel.SOLAR,
    "SNB": Fuel.SOLAR,  # with a battery
    "WND": Fuel.WIND_ONSHORE,
    "WNB": Fuel.WIND_ONSHORE,  # with a battery
    "GEO": Fuel.GEOTHERMAL,
    "BAT": Fuel.STORAGE,
    "PS": Fuel.STORAGE,
    "OES": Fuel.STORAGE,
    "UES": Fuel.STORAGE,
    "OTH": Fuel.OTHER,
    "UNK": Fuel.OTHER,
}


class Eia:
    """Average carbon intensity of one balancing area, gCO2eq/kWh, by the hour."""

    summary: ClassVar[str] = "EIA: carbon of the hourly generation mix of US balancing areas"
    quantity: ClassVar[Quantity] = Quantity.AVERAGE_INTENSITY
    needs_secret: ClassVar[bool] = True
    pace: ClassVar[Pace | None] = Pace(2, 1.0)
    # Each hour, with hours of lag.
    rhythm: ClassVar[Rhythm | None] = Rhythm(every_s=3600.0, late_s=6 * 3600.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("respondent", "PJM, CISO, ERCO ... ; needed to fetch", ""),
        *FACTOR_OPTIONS,
        ConnectorOption("base_url", "address of the API", "https://api.eia.gov/v2"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._respondent = require_match(
            "options.respondent",
            given["respondent"].upper(),
            "[A-Z0-9]{0,8}",
            "must be the code of a balancing area",
        )
        self._factors = read_factors(given)
        self._base_url = require_address("options.base_url", given["base_url"])

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the hours that touch ``window`` and are past; the key is the context's secret."""
        require_option(NAME, "respondent", self._respondent)
        key = require_secret(NAME, "an API key", context)
        past = past_of(window, context.fetched_at)
        if past is None:
            return []
        asked = self._question(past, key)
        with refusing(NAME):
            rows = self._fetch_rows(asked, context)
            found = observe_mix(self._read(rows), self._factors, context.fetched_at)
        return touching(found, window)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer; hours at its edges that it holds in part are gaps.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it is not this route's, of several areas and none is chosen, or
                of some of the fuels only.
        """
        with refusing(NAME):
            rows, _ = _load_rows(payload)
            return observe_mix(self._read(rows), self._factors, known_at)

    def _question(self, past: Interval, key: str) -> dict[str, str]:
        return {
            "api_key": key,
            "frequency": "hourly",
            "data[0]": "value",
            "facets[respondent][]": self._respondent,
            "start": _stamp(floor_to(past.start_at, HOUR) + HOUR),
            "end": _stamp(floor_to(past.end_at, HOUR) + HOUR),
            "sort[0][column]": "period",
            "sort[0][direction]": "asc",
            "sort[1][column]": "fueltype",
            "sort[1][direction]": "asc",
            "length": str(PAGE_ROWS),
        }

    def _fetch_rows(self, asked: Mapping[str, str], context: FetchContext) -> list[object]:
        def fetch_page(offset: int) -> tuple[list[object], Decimal]:
            response = context.http.get(self._base_url + ROUTE, {**asked, "offset": str(offset)})
            raise_for_status(response)
            return _load_rows(response.body)

        return rows_of_pages(NAME, MAX_PAGES, "total", fetch_page)

    def _read(self, rows: list[object]) -> list[Generation]:
        areas = {read_member(row, "respondent", str) for row in rows}
        wanted = self._respondent or next(iter(areas), "")
        if areas - {wanted} and (not self._respondent or wanted not in areas):
            named = ", ".join(sorted(areas)[:8])
            raise InvalidValue(
                "options.respondent", self._respondent or None, f"must be one of {named}"
            )
        return [_read_row(row) for row in rows if read_member(row, "respondent", str) == wanted]


def _load_rows(payload: bytes) -> tuple[list[object], Decimal]:
    """Rows of one page, and how many there are in all."""
    document = load_json(payload)
    _raise_error(document)
    response = read_member(document, "response", dict)
    rows = read_member(response, "data", list)
    description = response.get("description", DESCRIPTION)
    if not isinstance(description, str) or DESCRIPTION not in description:
        raise InvalidValue("response.description", description, f"must say {DESCRIPTION!r}")
    if response.get("frequency", "hourly") != "hourly":
        raise InvalidValue("response.frequency", response["frequency"], "must be hourly, in UTC")
    _require_every_fuel(document)
    return rows, read_number("response.total", response.get("total", Decimal(len(rows))))


def _raise_error(document: object) -> None:
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str) and isinstance(document, dict) and "code" in document:
        raise FeedRejected(f"{NAME} says: {document['code']}, {error}")
    if isinstance(error, dict) and str(error.get("code", "")).startswith(("API_KEY", "OVER_RATE")):
        raise FeedRejected(f"{NAME} says: {error['code']}, {error.get('message')}")


def _require_every_fuel(document: object) -> None:
    """Refuse an answer that repeats a question for some of the fuels only."""
    facets: object = document
    for name in ("request", "params", "facets"):
        facets = facets.get(name) if isinstance(facets, dict) else None
    if isinstance(facets, dict) and facets.get("fueltype"):
        shown = str(facets["fueltype"])
        raise InvalidValue("request.params.facets.fueltype", shown, "must not be there: no mix")


def _read_row(row: object) -> Generation:
    code = read_member(row, "fueltype", str)
    fuel = fuel_of("fueltype", code, FUELS)
    end_at = _read_period(read_member(row, "period", str))
    record = row if isinstance(row, dict) else {}
    if record.get("value-units", "megawatthours") != "megawatthours":
        raise InvalidValue("value-units", str(record["value-units"]), "must be megawatthours")
    # Energy of one hour in MWh is its mean power in MW.
    power_mw = read_nullable(row, "value", f" for {code} at {end_at.isoformat()}")
    return Generation(code, fuel, Interval(end_at - HOUR, end_at), power_mw)


def _read_period(text: str) -> datetime:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d", text):
        raise InvalidValue("period", text, "must be an hour of UTC such as 2025-04-01T01")
    return parse_instant("period", f"{text}:00Z")


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H")
