"""Figures as people read them: unit, thin spaces, sensible precision. Unknown is a dash."""

from __future__ import annotations

import math

THIN = "\u202f"
"""Narrow no-break space: between thousands, and between a figure and its unit."""
UNKNOWN = "\u2013"
MINUS = "\u2212"


def number(value: float | None, decimals: int = 0) -> str:
    """Fixed decimals with thin spaces between thousands."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{decimals}f}".replace(",", THIN)
    if not text.strip(f"-0.{THIN}"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """At least ``digits`` significant digits, whole numbers never cut."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    # The exponent after rounding: 9.999 has two digits before its point, not one.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return number(value, min(6, max(0, digits - 1 - exponent)))


def with_unit(text: str, unit: str) -> str:
    """Join a figure and its unit; a dash stays alone."""
    return text if text == UNKNOWN else f"{text}{THIN}{unit}"


def power(value_w: float | None) -> str:
    """Power given in W as W, kW or MW."""
    if value_w is None:
        return UNKNOWN
    size_w = abs(value_w)
    if size_w < 999.5:
        return with_unit(number(value_w), "W")
    if size_w < 999_500:
        return with_unit(significant(value_w / 1e3), "kW")
    return with_unit(significant(value_w / 1e6), "MW")


def energy_kwh(value_kwh: float | None) -> str:
    """Energy given in kWh, without its unit: small amounts keep three significant digits."""
    return significant(value_kwh)


def energy(value_kwh: float | None) -> str:
    """Energy given in kWh as Wh or kWh; what is under 1 Wh is only said to be so."""
    if value_kwh is None or abs(value_kwh) >= 1:
        return with_unit(significant(value_kwh), "kWh")
    if 0 < abs(value_kwh) < 0.001:
        return f"<{THIN}1{THIN}Wh"
    return with_unit(number(value_kwh * 1e3), "Wh")


def money(value: float | None, currency: str) -> str:
    """An amount in ``currency``; small sums keep four decimals, or they would all be zero."""
    decimals = 2 if value is None or abs(value) >= 1 or value == 0 else 4
    return with_unit(number(value, decimals), currency)


def price(value_per_mwh: float | None, currency: str) -> str:
    """A price per MWh."""
    return with_unit(number(value_per_mwh, 2), f"{currency}/MWh")


def carbon_intensity(value_g_per_kwh: float | None) -> str:
    """Carbon intensity in gCO2eq/kWh."""
    return with_unit(number(value_g_per_kwh), "gCO₂/kWh")


def carbon_mass(value_g: float | None) -> str:
    """Emissions given in grams, as g or kg."""
    if value_g is not None and abs(value_g) >= 1_000:
        return with_unit(significant(value_g / 1e3), "kg")
    return with_unit(significant(value_g), "g")


def tokens(value: float | None) -> str:
    """A count of tokens; from ten million on in millions."""
    if value is not None and abs(value) >= 1e7:
        return with_unit(significant(value / 1e6), "M")
    return number(value)


def percent(value_ratio: float | None) -> str:
    """A ratio from 0 to 1 as per cent; never rounded up to a full hundred."""
    if value_ratio is None:
        return UNKNOWN
    shown = value_ratio * 100
    if 99 < shown < 100:
        shown = math.floor(shown * 10) / 10
        return with_unit(number(shown, 1), "%")
    return with_unit(number(shown), "%")


def duration(value_s: float | None) -> str:
    """A length of time in its two largest units."""
    if value_s is None:
        return UNKNOWN
    whole_s = max(0, round(value_s))
    if whole_s < 90:
        return with_unit(number(whole_s), "s")
    minutes = round(whole_s / 60)
    if minutes < 90:
        return with_unit(number(minutes), "min")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        rest = f" {with_unit(str(minutes), 'min')}" if minutes else ""
        return with_unit(str(hours), "h") + rest
    return with_unit(number(hours // 24), "days")
