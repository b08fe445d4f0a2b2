"""Kinds of arguments that several commands take."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import click

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class Instant(click.ParamType["datetime"]):
    """ISO 8601 with offset."""

    name = "instant"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read into UTC."""
        field = param.name if param is not None and param.name else "instant"
        try:
            return parse_instant(field, str(value))
        except InvalidValue as error:
            self.fail(f"{error.bound}, got {value!r}", param, ctx)


class Finite(click.ParamType[float]):
    """A number from ``low`` to ``high``, never NaN."""

    name = "number"

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._high = high

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not self._low <= number <= self._high:
            bound = f"must be a number from {self._low:g} to {self._high:g}, got {value!r}"
            self.fail(bound, param, ctx)
        return number


class Slug(click.ParamType[str]):
    """A site's slug; safe inside a path of the API."""

    name = "slug"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Take as it is."""
        text = str(value)
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", text):
            self.fail(f"must be lower-case letters, digits and hyphens, got {text!r}", param, ctx)
        return text


def read_pairs(field: str, pairs: Iterable[str]) -> dict[str, str]:
    """Read ``key=value`` arguments.

    Raises:
        InvalidValue: for one without ``=``, or a key given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidValue(field, pair, "must be KEY=VALUE")
        if key in found:
            raise InvalidValue(field, pair, f"must give {key} once")
        found[key] = value
    return found
