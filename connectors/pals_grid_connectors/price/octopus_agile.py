"""Octopus Agile: half-hour retail prices of Great Britain, without a key.

Source: https://docs.octopus.energy/rest/guides/endpoints, standard unit rates. Rates come newest
first, in pence per kWh, and are final once published, at about 16-18 h local time for the day
ahead. Product codes change every year or two; an old one goes on answering for its own time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_number,
    read_options,
    refusing,
    require_address,
    require_choice,
    require_match,
)
from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.intervals import floor_to, format_minute, parse_instant, slots
from pals_grid.core.ports import ConnectorOption, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, coverage_ratio, touching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, HttpResponse, Pace

NAME = "Octopus Agile"
UNIT = "GBP/MWh"
GBP_PER_MWH_IN_P_PER_KWH = Decimal(10)
REGIONS = "ABCDEFGHJKLMNP"
VALUE_FIELDS = {"exclude": "value_exc_vat", "include": "value_inc_vat"}
PAYMENT_METHODS = ("DIRECT_DEBIT", "NON_DIRECT_DEBIT")
HALF_HOUR = timedelta(minutes=30)
# A rate without an end holds until further notice; what nobody has said yet is not known for
# longer than a plan looks ahead.
OPEN_END = timedelta(hours=48)
MAX_PAGES = 100


class OctopusAgile:
    """Unit rates of one product in one region, GBP/MWh."""

    summary: ClassVar[str] = "Octopus Agile: half-hour electricity prices in Great Britain"
    quantity: ClassVar[Quantity] = Quantity.PRICE
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    # The next day's rates each afternoon, sometimes only in the evening.
    rhythm: ClassVar[Rhythm | None] = Rhythm(every_s=86_400.0, late_s=6 * 3600.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("product", "product code; codes change with time", "AGILE-24-10-01"),
        ConnectorOption("region", f"letter of the grid region, one of {REGIONS}; C: London", "C"),
        ConnectorOption("vat", "exclude or include value added tax", "exclude"),
        ConnectorOption(
            "payment_method",
            "DIRECT_DEBIT or NON_DIRECT_DEBIT, where rates depend on it",
            "DIRECT_DEBIT",
        ),
        ConnectorOption("base_url", "address of the API", "https://api.octopus.energy/v1"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._product = require_match(
            "options.product", given["product"], r"[A-Z0-9-]+", "must be an upper-case code"
        )
        self._region = require_match(
            "options.region", given["region"], f"[{REGIONS}]", f"must be one of {REGIONS}"
        )
        self._value_field = VALUE_FIELDS[require_choice("options.vat", given["vat"], VALUE_FIELDS)]
        self._payment_method = require_choice(
            "options.payment_method", given["payment_method"], PAYMENT_METHODS
        )
        self._base_url = require_address("options.base_url", given["base_url"])

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the rates over ``window``, longer ones cut into half hours of the clock."""
        found: set[Observation] = set()
        url: str | None = self._rates_url()
        params: dict[str, str] | None = {
            "period_from": format_minute(floor_to(window.start_at, HALF_HOUR)),
            "period_to": format_minute(_ceiling(window.end_at)),
        }
        for _ in range(MAX_PAGES):
            if url is None or coverage_ratio(found, window) >= 1.0:
                return sorted(found, key=lambda item: item.start_at)
            response = context.http.get(url, params)
            self._raise_for_status(response)
            with refusing(NAME):
                page = _load_page(response.body)
                rates = self._read_rates(page, window.end_at, context.fetched_at)
                found |= _half_hours(rates, window)
                url, params = self._next_url(page), None
        raise FeedDataInvalid(f"{NAME}: more than {MAX_PAGES} pages for one window")

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one page of rates, each as long as the page says.

        A rate without an end is taken to hold for 48 h after ``known_at``.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it is no page of rates.
        """
        with refusing(NAME):
            rates = self._read_rates(_load_page(payload), known_at + OPEN_END, known_at)
        return sorted(rates, key=lambda item: item.start_at)

    def _rates_url(self) -> str:
        tariff = f"E-1R-{self._product}-{self._region}"
        return (
            f"{self._base_url}/products/{self._product}/electricity-tariffs/{tariff}"
            "/standard-unit-rates/"
        )

    def _next_url(self, page: Mapping[str, object]) -> str | None:
        url = page.get("next")
        if url is None:
            return None
        if not isinstance(url, str) or _host(url) != _host(self._base_url):
            raise InvalidValue("next", url, f"must stay at {_host(self._base_url)}")
        return url

    def _raise_for_status(self, response: HttpResponse) -> None:
        says = response.body.decode("utf-8", "replace").strip()
        if response.status == 404:
            raise FeedRejected(
                f"{NAME} knows no product {self._product!r} in region {self._region!r}; product "
                f"codes change, so look up the present one: HTTP 404, {says[:200]}"
            )
        raise_for_status(response, says)

    def _read_rates(
        self, page: Mapping[str, object], open_end_at: datetime, known_at: datetime
    ) -> list[Observation]:
        records = read_member(page, "results", list)
        methods = {_payment_method(record) for record in records}
        if records and not methods & {None, self._payment_method}:
            others = ", ".join(sorted(str(method) for method in methods))
            raise FeedRejected(
                f"{NAME} has no rates for payment_method {self._payment_method}, only for {others}"
            )
        return [
            self._read_rate(record, open_end_at, known_at)
            for record in records
            if _payment_method(record) in {None, self._payment_method}
        ]

    def _read_rate(self, record: object, open_end_at: datetime, known_at: datetime) -> Observation:
        start_at = parse_instant("valid_from", read_member(record, "valid_from", str))
        if isinstance(record, dict) and "valid_to" in record and record["valid_to"] is None:
            end_at = max(open_end_at, start_at + HALF_HOUR)
        else:
            end_at = parse_instant("valid_to", read_member(record, "valid_to", str))
        rate = read_number(self._value_field, read_member(record, self._value_field, Decimal))
        value = float(rate * GBP_PER_MWH_IN_P_PER_KWH)
        return Observation(start_at, end_at, value, UNIT, ValueKind.MEASURED, known_at)


def _load_page(payload: bytes) -> Mapping[str, object]:
    page = load_json(payload)
    if isinstance(page, dict) and set(page) == {"detail"}:
        raise FeedRejected(f"{NAME} says: {page['detail']}")
    if not isinstance(page, dict) or "results" not in page:
        raise InvalidValue("payload", payload[:40], "must be a page of unit rates with results")
    return page


def _payment_method(record: object) -> str | None:
    method = record.get("payment_method") if isinstance(record, dict) else None
    if method is not None and not isinstance(method, str):
        raise InvalidValue("payment_method", type(method).__name__, "must be text or null")
    return method


def _half_hours(rates: Iterable[Observation], window: Interval) -> set[Observation]:
    """Rates that touch ``window``; those longer than a half hour cut on the clock.

    The cuts do not move with the window, so that the same half hour comes back the same.
    """
    first_at, last_at = floor_to(window.start_at, HALF_HOUR), _ceiling(window.end_at)
    found: set[Observation] = set()
    for rate in rates:
        if rate.end_at - rate.start_at <= HALF_HOUR:
            found.add(rate)
            continue
        parts = slots(max(rate.start_at, first_at), min(rate.end_at, last_at), HALF_HOUR)
        found.update(replace(rate, start_at=part.start_at, end_at=part.end_at) for part in parts)
    return set(touching(found, window))


def _ceiling(instant: datetime) -> datetime:
    floor = floor_to(instant, HALF_HOUR)
    return floor if floor == instant else floor + HALF_HOUR


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
