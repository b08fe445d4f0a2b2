"""Tariffs as JSON: one shape for files, requests and the store, with every error by its path."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import MISSING, asdict, fields
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant
from pals_grid.core.tariff import (
    FORMAT,
    Adder,
    CoincidentPeak,
    Conversion,
    DemandCharge,
    RiskHour,
    Tariff,
    Tax,
)
from pals_grid.core.time_of_use import HolidayRule, Period

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
Read = Any
"""``Callable[[str, object], T]`` of each field's own type."""


def read_tariff(document: object) -> Tariff:
    """Read a tariff of format 1.

    Raises:
        InvalidValue: names the path of the field, its bound and the value; unknown fields too.
    """
    given = _mapping("tariff", document)
    held = given.get("format", FORMAT)
    if held != FORMAT or isinstance(held, bool):
        raise InvalidValue("format", held, f"must be {FORMAT}")
    rest = {name: value for name, value in given.items() if name != "format"}
    return _build(Tariff, "", rest, _TARIFF)


def write_tariff(tariff: Tariff) -> dict[str, Any]:
    """Return the JSON that ``read_tariff`` reads back as the same tariff."""
    return {"format": FORMAT, **_plain(asdict(tariff))}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def _build(
    kind: Callable[..., T], path: str, given: Mapping[str, object], readers: Mapping[str, Read]
) -> T:
    """Read the fields that are there and build; errors carry the path."""
    for name, value in given.items():
        if name not in readers:
            bound = f"is not known: must be of {', '.join(readers)}"
            raise InvalidValue(_join(path, name), value, bound)
    for item in fields(kind):  # type: ignore[arg-type]
        if item.default is MISSING and item.name not in given:
            raise InvalidValue(_join(path, item.name), None, "is required")
    values = {name: readers[name](_join(path, name), value) for name, value in given.items()}
    try:
        return kind(**values)
    except InvalidValue as error:
        raise InvalidValue(_join(path, error.field), error.value, error.bound) from error


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _mapping(path: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidValue(path, value, "must be an object")
    return value


def _text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue(path, value, "must be text")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        raise InvalidValue(path, ascii(value), "must be without NUL and lone surrogates")
    return value


def _number(path: str, value: object) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number of hundreds of digits
            number = float(value)
    if not math.isfinite(number):
        raise InvalidValue(path, value, "must be a finite number")
    return number


def _integer(path: str, value: object) -> int:
    number = _number(path, value)
    if number != int(number):
        raise InvalidValue(path, value, "must be a whole number")
    return int(number)


def _instant(path: str, value: object) -> datetime:
    return parse_instant(path, _text(path, value))


def _day(path: str, value: object) -> date:
    try:
        return date.fromisoformat(_text(path, value))
    except ValueError as error:
        raise InvalidValue(path, value, "must be a date such as 2026-12-25") from error


def _rule(path: str, value: object) -> HolidayRule:
    try:
        return HolidayRule(_text(path, value))
    except ValueError as error:
        bound = f"must be of {', '.join(HolidayRule)}"
        raise InvalidValue(path, value, bound) from error


def _maybe(read: Callable[[str, object], T]) -> Callable[[str, object], T | None]:
    return lambda path, value: None if value is None else read(path, value)


def _each(read: Callable[[str, object], T]) -> Callable[[str, object], tuple[T, ...]]:
    def read_all(path: str, value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise InvalidValue(path, value, "must be a list")
        return tuple(read(f"{path}[{i}]", item) for i, item in enumerate(value))

    return read_all


def _object(kind: Callable[..., T], readers: Mapping[str, Read]) -> Callable[[str, object], T]:
    return lambda path, value: _build(kind, path, _mapping(path, value), readers)


_PERIOD: Mapping[str, Read] = {
    "name": _text,
    "start": _text,
    "end": _text,
    "days": _each(_text),
    "months": _each(_integer),
    "holidays": _rule,
}
_ADDER: Mapping[str, Read] = {
    "name": _text,
    "price_per_mwh": _number,
    "in_period": _maybe(_text),
}
_TAX: Mapping[str, Read] = {
    "name": _text,
    "price_per_mwh": _maybe(_number),
    "ratio": _maybe(_number),
}
_DEMAND_CHARGE: Mapping[str, Read] = {
    "name": _text,
    "price_per_kw": _number,
    "window_s": _integer,
    "in_period": _maybe(_text),
    "ratchet_ratio": _number,
    "ratchet_months": _integer,
}
_RISK_HOUR: Mapping[str, Read] = {
    "start_at": _instant,
    "end_at": _instant,
    "probability_ratio": _number,
}
_COINCIDENT_PEAK: Mapping[str, Read] = {
    "name": _text,
    "price_per_kw": _number,
    "hours": _each(_object(RiskHour, _RISK_HOUR)),
}
_CONVERSION: Mapping[str, Read] = {"from_currency": _text, "rate": _number, "as_of": _day}
_TARIFF: Mapping[str, Read] = {
    "name": _text,
    "valid_from_at": _instant,
    "factor": _number,
    "adders": _each(_object(Adder, _ADDER)),
    "taxes": _each(_object(Tax, _TAX)),
    "periods": _each(_object(Period, _PERIOD)),
    "holidays": _each(_day),
    "demand_charges": _each(_object(DemandCharge, _DEMAND_CHARGE)),
    "coincident_peaks": _each(_object(CoincidentPeak, _COINCIDENT_PEAK)),
    "conversion": _maybe(_object(Conversion, _CONVERSION)),
}
