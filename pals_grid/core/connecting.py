"""What every connector needs: options checked, bad answers translated, values made."""

from __future__ import annotations

import json
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pals_grid.core.ports import ConnectorOption, HttpResponse

T = TypeVar("T")


def read_options(given: Mapping[str, str], known: tuple[ConnectorOption, ...]) -> dict[str, str]:
    """Options with defaults filled in.

    Raises:
        InvalidValue: for an option that is unknown, or required and missing.
    """
    names = {option.name for option in known}
    for name, value in given.items():
        if name not in names:
            allowed = ", ".join(sorted(names)) or "none"
            raise InvalidValue(f"options.{name}", value, f"unknown option; known are: {allowed}")
    for option in known:
        if option.default is None and not given.get(option.name):
            raise InvalidValue(f"options.{option.name}", None, f"is required: {option.help}")
    return {option.name: given.get(option.name) or option.default or "" for option in known}


def raise_for_status(response: HttpResponse, provider_says: str) -> None:
    """Translate a status of 400 and above, quoting the provider.

    Raises:
        FeedUnavailable: 408, 425, 429 and 5xx.
        FeedRejected: every other 4xx.
    """
    if response.status < 400:
        return
    message = f"HTTP {response.status} from {response.url}: {provider_says[:300]}"
    if response.status in {408, 425, 429} or response.status >= 500:
        wish = response.headers.get("retry-after", "")
        raise FeedUnavailable(message, float(wish) if wish.isdecimal() else None)
    raise FeedRejected(message)


@contextmanager
def refusing(provider: str) -> Iterator[None]:
    """Turn an InvalidValue inside into FeedDataInvalid, with the provider's name before it.

    Raises:
        FeedDataInvalid: when a value that the provider gave is out of bounds.
    """
    try:
        yield
    except InvalidValue as error:
        raise FeedDataInvalid(f"{provider}: {error}") from error


def load_json(payload: bytes) -> object:
    """Read JSON with every number as an exact Decimal.

    Raises:
        InvalidValue: when it is not JSON; NaN and Infinity are not.
    """
    try:
        text = payload.decode("utf-8-sig")
        return json.loads(
            text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse_constant
        )
    except (ValueError, InvalidOperation, RecursionError) as error:
        raise InvalidValue("payload", payload[:40], f"must be JSON ({error})") from error


def read_number(field: str, value: object) -> Decimal:
    """Read a finite number, given as such or as text, exactly.

    Raises:
        InvalidValue: for anything else.
    """
    number = None
    if isinstance(value, str | Decimal):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = None
    if number is None or not number.is_finite():
        shown = value if isinstance(value, str | Decimal | None) else type(value).__name__
        raise InvalidValue(field, None if shown is None else str(shown), "must be a finite number")
    return number


def read_member(record: object, name: str, kind: type[T]) -> T:
    """Read the member ``name`` of a JSON object, which must be of the type ``kind``.

    Raises:
        InvalidValue: when there is no such member, or it is of another type.
    """
    found = record.get(name) if isinstance(record, dict) else None
    if not isinstance(found, kind):
        raise InvalidValue(name, type(found).__name__, f"must be there and be a {kind.__name__}")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
