"""From a feed's price to what a site pays for a MWh, with every part of the sum."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import EPOCH, Interval
from pals_grid.core.tariff import Tariff

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, tzinfo

_INSTANT = timedelta(milliseconds=1)
PLAIN = Tariff(name="no tariff", valid_from_at=EPOCH)
"""The feed's price is the price: what holds before a site's first tariff."""


@dataclass(frozen=True, slots=True)
class PricePart:
    """What one adder or tax comes to over an interval, in the site's currency per MWh."""

    name: str
    price_per_mwh: float


@dataclass(frozen=True, slots=True)
class EnergyPrice:
    """A price per MWh in the site's currency, and what it is the sum of."""

    price_per_mwh: float
    feed_price_per_mwh: float
    feed_currency: str
    rate: float
    factor: float
    parts: tuple[PricePart, ...]

    def sentence(self) -> str:
        """Spell the sum out: ``84.50 = 61.20 × 1 + 12.00 network + 11.30 VAT``."""
        feed = f"{self.feed_price_per_mwh:.2f}"
        if self.rate != 1:
            feed += f" {self.feed_currency} × {self.rate:g}"
        terms = [
            f"{'-' if part.price_per_mwh < 0 else '+'} {abs(part.price_per_mwh):.2f} {part.name}"
            for part in self.parts
        ]
        return " ".join([f"{self.price_per_mwh:.2f} = {feed} × {self.factor:g}", *terms])


def energy_price(
    tariff: Tariff, interval: Interval, feed_price: float, unit: str, site: tuple[str, tzinfo]
) -> EnergyPrice:
    """Price of a MWh drawn evenly over ``interval``, at most a day.

    Args:
        tariff: the one in force.
        interval: when; an adder that holds for a part of it counts by that part.
        feed_price: mean of the feed over ``interval``.
        unit: of the feed, ``<ISO 4217>/MWh``.
        site: its currency and its time zone.

    Raises:
        InvalidValue: when the feed is in a currency that the tariff does not convert.
    """
    site_currency, zone = site
    currency = currency_of(unit)
    rate = tariff.rate_from(currency, site_currency)
    if rate is None:
        bound = f"must be {site_currency}/MWh, or a tariff has to state its conversion"
        raise InvalidValue("unit", unit, bound)
    total = feed_price * rate * tariff.factor
    parts = []
    for adder in tariff.adders:
        share = tariff.share_in(adder.in_period, interval, zone)
        if share > 0:
            parts.append(PricePart(adder.name, adder.price_per_mwh * share))
    total += sum(part.price_per_mwh for part in parts)
    for tax in tariff.taxes:
        amount = total * tax.ratio if tax.ratio is not None else tax.price_per_mwh or 0.0
        parts.append(PricePart(tax.name, amount))
        total += amount
    return EnergyPrice(total, feed_price, currency, rate, tariff.factor, tuple(parts))


@dataclass(frozen=True, slots=True)
class DatedTariff:
    """A tariff as it was stored; ``id`` 0 is one that is not."""

    id: int
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class Pricing:
    """A site's tariffs by the time from which they hold, its currency and its time zone."""

    currency: str
    zone: tzinfo
    tariffs: tuple[DatedTariff, ...] = ()

    @classmethod
    def of(cls, currency: str, zone: tzinfo, stored: Iterable[DatedTariff]) -> Pricing:
        """Take the tariffs in the order in which they were stored.

        Of two that begin at the same instant the later one stored holds.
        """
        by_start = {item.tariff.valid_from_at: item for item in stored}
        return cls(currency, zone, tuple(by_start[start_at] for start_at in sorted(by_start)))

    def with_candidate(self, tariff: Tariff) -> Pricing:
        """Return the pricing as it would be with one tariff more."""
        return Pricing.of(self.currency, self.zone, (*self.tariffs, DatedTariff(0, tariff)))

    def at(self, instant: datetime) -> DatedTariff:
        """Return the tariff in force; before the first the plain one, with id 0."""
        index = bisect_right([item.tariff.valid_from_at for item in self.tariffs], instant)
        return self.tariffs[index - 1] if index else DatedTariff(0, PLAIN)

    def price(self, interval: Interval, feed_price: float, unit: str) -> EnergyPrice:
        """Price by the tariff that is in force when ``interval`` begins.

        Raises:
            InvalidValue: when that tariff does not convert the feed's currency.
        """
        tariff = self.at(interval.start_at).tariff
        return energy_price(tariff, interval, feed_price, unit, (self.currency, self.zone))

    def can_price(self, unit: str, instant: datetime) -> bool:
        """Whether a price in ``unit`` means something at ``instant``."""
        tariff = self.at(instant).tariff
        return tariff.rate_from(currency_of(unit), self.currency) is not None

    def currencies(self) -> frozenset[str]:
        """Currencies that a price feed may be in, at some time."""
        conversions = (item.tariff.conversion for item in self.tariffs)
        return frozenset({self.currency, *(c.from_currency for c in conversions if c)})

    def risk_per_mwh(self, interval: Interval) -> float:
        """Expected coincident-peak charge of a MWh drawn evenly over ``interval``."""
        return self.at(interval.start_at).tariff.risk_per_mwh(interval)

    def edges(self, interval: Interval) -> set[datetime]:
        """Instants inside ``interval`` at which the tariff's part of a price changes."""
        found = {item.tariff.valid_from_at for item in self.tariffs}
        for item in {self.at(interval.start_at), *self.tariffs}:
            for name in {a.in_period for a in item.tariff.adders if a.in_period is not None}:
                for span in item.tariff.spans(name, interval, self.zone):
                    found |= {span.start_at, span.end_at}
        return {edge for edge in found if interval.start_at < edge < interval.end_at}


class StepPricing:
    """Prices of many steps of one long interval: a line in the feed's price between two edges."""

    def __init__(self, pricing: Pricing, interval: Interval) -> None:
        self._pricing = pricing
        self.edges = sorted(pricing.edges(interval))
        self._lines: dict[tuple[int, str], tuple[float, float] | None] = {}

    def price_at(self, instant: datetime, feed_price: float, unit: str) -> float | None:
        """Price at an instant of the interval; None where nothing converts the currency."""
        key = bisect_right(self.edges, instant), unit
        if key not in self._lines:
            self._lines[key] = self._line(instant, unit)
        line = self._lines[key]
        return None if line is None else line[0] + line[1] * feed_price

    def _line(self, instant: datetime, unit: str) -> tuple[float, float] | None:
        if not self._pricing.can_price(unit, instant):
            return None
        moment = Interval(instant, instant + _INSTANT)
        at_zero, at_one = (self._pricing.price(moment, x, unit).price_per_mwh for x in (0.0, 1.0))
        return at_zero, at_one - at_zero


def currency_of(unit: str) -> str:
    """Currency of ``<ISO 4217>/MWh``."""
    return unit.partition("/")[0]
