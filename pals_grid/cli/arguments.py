"""Kinds of arguments that several commands take."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

F = TypeVar("F", bound="Callable[..., Any]")


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


class InstantOrDay(Instant):
    """ISO 8601 with offset, or a date: its midnight in UTC."""

    name = "day"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read into UTC."""
        text = str(value)
        is_day = re.fullmatch(r"\d{4}-\d{2}-\d{2}", text)
        return super().convert(f"{text}T00:00Z" if is_day else text, param, ctx)


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


def options(*given: Callable[[F], F]) -> Callable[[F], F]:
    """All of these options at once, in their order."""

    def add(command: F) -> F:
        for option in reversed(given):
            command = option(command)
        return command

    return add


hardware_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--hardware",
    type=click.Choice(["auto", "nvml", "amd", "intel", "sim"]),
    default="auto",
    show_default=True,
    help="nvml, amd, intel: this machine's GPUs of that maker; sim: a simulated node; "
    "auto: all GPUs whose driver answers, else sim.",
)


def require_folder_of(field: str, path: Path | None) -> None:
    """Refuse a file to write whose folder is not there.

    Raises:
        InvalidValue: names ``field`` and the path.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise InvalidValue(field, str(path), "must be in a directory that exists")


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
