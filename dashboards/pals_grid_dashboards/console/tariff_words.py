"""A tariff in plain words, and days and months as people type them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.time_of_use import DAYS, HolidayRule
from pals_grid_dashboards.console import formats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.tariff import DemandCharge, Tariff
    from pals_grid.core.time_of_use import Period
    from pals_grid_dashboards.console.local_time import LocalTime

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WINDOWS = {900: "quarter of an hour", 1800: "half hour", 3600: "hour"}
_HOLIDAYS = {
    HolidayRule.AS_USUAL: "",
    HolidayRule.NEVER: "not on public holidays",
    HolidayRule.ALWAYS: "and on public holidays",
}


@dataclass(frozen=True, slots=True)
class TariffLine:
    """One line of a tariff: what it is, and what it says."""

    name: str
    text: str


def tariff_lines(tariff: Tariff, currency: str, local: LocalTime) -> list[TariffLine]:
    """Every part of a tariff in the order in which it is added up."""
    periods = {period.name: period for period in tariff.periods}
    factor = f"× {tariff.factor:g}"
    if tariff.conversion is not None:
        held = tariff.conversion
        day = f"the rate of {held.as_of:%d %b %Y}"
        factor += f"; {held.from_currency} × {held.rate:g} = {currency}, {day}"
    lines = [TariffLine("Feed's price", factor)]
    for adder in tariff.adders:
        amount = formats.price(adder.price_per_mwh, currency)
        lines.append(TariffLine(adder.name, f"+ {amount}{_when(periods, adder.in_period)}"))
    for tax in tariff.taxes:
        if tax.ratio is not None:
            lines.append(TariffLine(tax.name, f"+ {100 * tax.ratio:g} % of all above"))
        else:
            lines.append(TariffLine(tax.name, f"+ {formats.price(tax.price_per_mwh, currency)}"))
    lines += [
        TariffLine(charge.name, _demand_words(charge, periods, currency))
        for charge in tariff.demand_charges
    ]
    for peak in tariff.coincident_peaks:
        amount = formats.with_unit(formats.number(peak.price_per_kw, 2), f"{currency}/kW")
        hours = ", ".join(
            f"{local.clock(hour.start_at)} ({formats.percent(hour.probability_ratio)})"
            for hour in peak.hours[:3]
        )
        more = f" and {len(peak.hours) - 3} more" if len(peak.hours) > 3 else ""
        text = f"{amount} drawn at the grid's peak, which may be at {hours}{more}"
        lines.append(TariffLine(peak.name, text))
    return lines


def period_words(period: Period) -> str:
    """When a period holds: ``16:00 to 19:00, mon-fri, nov-feb, not on public holidays``."""
    parts = [
        f"{period.start} to {period.end}",
        days_text(period.days),
        months_text(period.months),
        _HOLIDAYS[period.holidays],
    ]
    return ", ".join(part for part in parts if part)


def days_text(days: Sequence[str]) -> str:
    """Days as ``mon-fri``; all of them as nothing."""
    return _ranges([DAYS.index(day) for day in days], DAYS)


def months_text(months: Sequence[int]) -> str:
    """Months as ``nov-feb``; all of them as nothing."""
    return _ranges([month - 1 for month in months], MONTHS)


def read_days(text: str) -> list[str]:
    """Read ``mon-fri, sun``; nothing is every day.

    Raises:
        InvalidValue: for what is no day.
    """
    return [DAYS[i] for i in _read_ranges("days", text, DAYS)]


def read_months(text: str) -> list[int]:
    """Read ``nov-feb, jul``; nothing is every month.

    Raises:
        InvalidValue: for what is no month.
    """
    return [i + 1 for i in _read_ranges("months", text, MONTHS)]


def _when(periods: dict[str, Period], name: str | None) -> str:
    return "" if name is None else f", {period_words(periods[name])}"


def _demand_words(charge: DemandCharge, periods: dict[str, Period], currency: str) -> str:
    amount = formats.with_unit(formats.number(charge.price_per_kw, 2), f"{currency}/kW")
    words = f"{amount} of the month's highest {_WINDOWS[charge.window_s]}"
    words += _when(periods, charge.in_period)
    if charge.ratchet_months:
        share = formats.percent(charge.ratchet_ratio)
        words += f"; at least {share} of the highest of the {charge.ratchet_months} months before"
    return words


def _ranges(indices: Sequence[int], names: Sequence[str]) -> str:
    """Join neighbours, round the end of the week or the year too."""
    held = set(indices)
    if len(held) == len(names):
        return ""
    count = len(names)
    parts = []
    for start in sorted(held, key=lambda i: (i - _first_gap(held, count)) % count):
        if (start - 1) % count in held:
            continue
        end = start
        while (end + 1) % count in held:
            end = (end + 1) % count
        parts.append(names[start] if end == start else f"{names[start]}-{names[end]}")
    return ", ".join(parts)


def _first_gap(held: set[int], count: int) -> int:
    return next((i for i in range(count) if i not in held), 0)


def _read_ranges(field: str, text: str, names: Sequence[str]) -> list[int]:
    if not text.strip():
        return list(range(len(names)))
    found: set[int] = set()
    for part in re.split(r"[,;\s]+", re.sub(r"\s*[-–]\s*", "-", text.strip().lower())):
        start, _, end = part.partition("-")
        first, last = (_index(field, one, names) for one in (start, end or start))
        found |= {(first + i) % len(names) for i in range((last - first) % len(names) + 1)}
    return sorted(found)


def _index(field: str, text: str, names: Sequence[str]) -> int:
    if len(text) >= 3 and text[:3] in names:
        return names.index(text[:3])
    raise InvalidValue(field, text, f"must be of {', '.join(names)}, or a range such as mon-fri")
