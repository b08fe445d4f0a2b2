"""A tariff: what a site pays for energy and for its peaks, on top of a feed's price.

Energy, per MWh in the site's currency::

    (feed x rate x factor) + adders in force + taxes, in the order in which they are listed

``rate`` is there where the feed is in another currency. A tax is an amount per MWh, or a ratio
of all that stands before it; a ratio of a negative sum is negative too. Demand charges and the
risk of coincident peaks are per kW: they stand beside the energy's cost, never in it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, require_utc
from pals_grid.core.units import KWH_PER_MWH, S_PER_H

if TYPE_CHECKING:
    from datetime import date, datetime, tzinfo

    from pals_grid.core.time_of_use import Period

FORMAT = 1
WINDOWS_S = (900, 1800, 3600)
MOST_PER_MWH = 1e6
MOST_PER_KW = 1e6
MOST_ITEMS = 50
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Adder:
    """An amount per MWh, always or only inside the period of this name; may be negative."""

    name: str
    price_per_mwh: float
    in_period: str | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)
        _require_between("price_per_mwh", self.price_per_mwh, -MOST_PER_MWH, MOST_PER_MWH)


@dataclass(frozen=True, slots=True)
class Tax:
    """An amount per MWh, or a ratio of all that stands before it: one of the two."""

    name: str
    price_per_mwh: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)
        if (self.price_per_mwh is None) is (self.ratio is None):
            raise InvalidValue("ratio", self.ratio, "give either ratio or price_per_mwh")
        if self.price_per_mwh is not None:
            _require_between("price_per_mwh", self.price_per_mwh, -MOST_PER_MWH, MOST_PER_MWH)
        if self.ratio is not None:
            _require_between("ratio", self.ratio, 0.0, 10.0)


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """An amount per kW of the month's highest mean power over windows of ``window_s``.

    With ``in_period`` only windows that begin inside that period count. With a ratchet the billed
    peak is at least ``ratchet_ratio`` of the highest of the ``ratchet_months`` months before.
    """

    name: str
    price_per_kw: float
    window_s: int = 900
    in_period: str | None = None
    ratchet_ratio: float = 0.0
    ratchet_months: int = 0

    def __post_init__(self) -> None:
        _require_name(self.name)
        _require_between("price_per_kw", self.price_per_kw, 0.0, MOST_PER_KW)
        if self.window_s not in WINDOWS_S:
            raise InvalidValue("window_s", self.window_s, "must be 900, 1800 or 3600")
        _require_between("ratchet_ratio", self.ratchet_ratio, 0.0, 1.0)
        _require_between("ratchet_months", self.ratchet_months, 0, 24)
        if (self.ratchet_ratio > 0) is not (self.ratchet_months > 0):
            bound = "must be above 0 exactly where ratchet_ratio is"
            raise InvalidValue("ratchet_months", self.ratchet_months, bound)


@dataclass(frozen=True, slots=True)
class RiskHour:
    """Time in which the grid's own peak may fall, and how likely that is (0 to 1)."""

    start_at: datetime
    end_at: datetime
    probability_ratio: float = 1.0

    def __post_init__(self) -> None:
        Interval(self.start_at, self.end_at)
        _require_between("probability_ratio", self.probability_ratio, 0.0, 1.0)

    @property
    def interval(self) -> Interval:
        """When."""
        return Interval(self.start_at, self.end_at)


@dataclass(frozen=True, slots=True)
class CoincidentPeak:
    """An amount per kW of the mean power drawn while the grid has its peak.

    Which hour that will be is a stated guess: ``hours`` with a probability each.
    """

    name: str
    price_per_kw: float
    hours: tuple[RiskHour, ...]

    def __post_init__(self) -> None:
        _require_name(self.name)
        _require_between("price_per_kw", self.price_per_kw, 0.0, MOST_PER_KW)
        if not 1 <= len(self.hours) <= 1000:
            raise InvalidValue("hours", len(self.hours), "must have 1 to 1000 hours")

    def risk_per_mwh(self, interval: Interval) -> float:
        """Expected charge of a MWh drawn evenly over ``interval``."""
        return sum(
            self.price_per_kw
            * KWH_PER_MWH
            * hour.probability_ratio
            / (hour.interval.duration_s / S_PER_H)
            * interval.overlap_s(hour.interval)
            / interval.duration_s
            for hour in self.hours
        )


@dataclass(frozen=True, slots=True)
class Conversion:
    """Amounts of ``from_currency`` times ``rate`` are in the site's; the rate is that of a day."""

    from_currency: str
    rate: float
    as_of: date

    def __post_init__(self) -> None:
        if not _CURRENCY.fullmatch(self.from_currency):
            raise InvalidValue("from_currency", self.from_currency, "must be an ISO 4217 code")
        _require_between("rate", self.rate, 1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class Tariff:
    """One site's tariff from ``valid_from_at`` until a later one begins; UTC.

    Raises:
        InvalidValue: names the field, its bound and the value.
    """

    name: str
    valid_from_at: datetime
    factor: float = 1.0
    adders: tuple[Adder, ...] = ()
    taxes: tuple[Tax, ...] = ()
    periods: tuple[Period, ...] = ()
    holidays: tuple[date, ...] = ()
    demand_charges: tuple[DemandCharge, ...] = ()
    coincident_peaks: tuple[CoincidentPeak, ...] = ()
    conversion: Conversion | None = None

    def __post_init__(self) -> None:
        _require_name(self.name)
        require_utc("valid_from_at", self.valid_from_at)
        _require_between("factor", self.factor, -100.0, 100.0)
        for field in ("adders", "taxes", "periods", "demand_charges", "coincident_peaks"):
            _require_few(field, [item.name for item in getattr(self, field)])
        _require_few("holidays", [day.isoformat() for day in self.holidays], most=1000)
        known = [period.name for period in self.periods]
        for field in ("adders", "demand_charges"):
            for i, item in enumerate(getattr(self, field)):
                if item.in_period is not None and item.in_period not in known:
                    bound = f"must be one of the periods ({', '.join(known) or 'there is none'})"
                    raise InvalidValue(f"{field}[{i}].in_period", item.in_period, bound)

    def spans(self, period_name: str, interval: Interval, zone: tzinfo) -> list[Interval]:
        """Parts of ``interval`` inside one of the tariff's periods."""
        period = next(item for item in self.periods if item.name == period_name)
        return period.spans(interval, zone, self.holidays)

    def share_in(self, period_name: str | None, interval: Interval, zone: tzinfo) -> float:
        """Share of ``interval``, at most a day, that lies inside the period (None: always), 0-1."""
        if period_name is None:
            return 1.0
        period = next(item for item in self.periods if item.name == period_name)
        day_at = interval.start_at.replace(hour=0, minute=0, second=0, microsecond=0)
        spans = _spans_around(period, self.holidays, zone, day_at)
        return sum(interval.overlap_s(span) for span in spans) / interval.duration_s

    def rate_from(self, currency: str, site_currency: str) -> float | None:
        """Return what an amount in ``currency`` is multiplied by; None where nothing says."""
        if currency == site_currency:
            return 1.0
        if self.conversion is not None and self.conversion.from_currency == currency:
            return self.conversion.rate
        return None

    def risk_per_mwh(self, interval: Interval) -> float:
        """Expected coincident-peak charge of a MWh drawn evenly over ``interval``."""
        return sum(peak.risk_per_mwh(interval) for peak in self.coincident_peaks)


@lru_cache(maxsize=4096)
def _spans_around(
    period: Period, holidays: tuple[date, ...], zone: tzinfo, day_at: datetime
) -> tuple[Interval, ...]:
    """Spans of a UTC day and the one after it; the same days are asked for slot after slot."""
    two_days = Interval(day_at, day_at + timedelta(days=2))
    return tuple(period.spans(two_days, zone, holidays))


def _require_name(name: str) -> None:
    if not 1 <= len(name.strip()) <= 100:
        raise InvalidValue("name", name[:120], "must have 1 to 100 characters")


def _require_few(field: str, names: list[str], most: int = MOST_ITEMS) -> None:
    if len(names) > most:
        raise InvalidValue(field, len(names), f"must be at most {most}")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InvalidValue(f"{field}[{i}]", name, "must be named once")


def _require_between(field: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidValue(field, value, f"must be from {low:g} to {high:g}")
