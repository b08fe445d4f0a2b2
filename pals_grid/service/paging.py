"""Lists a page at a time, by key and not by offset, so that new rows shift nothing."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LIMIT = 1000

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: up to ``limit`` items after ``cursor`` (a ``next_cursor``)."""

    limit: int = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidValue("limit", self.limit, f"must be from 1 to {MAX_LIMIT}")

    def after(self, kind: type[K]) -> K | None:
        """Key of the last item of the page before, or None for the first page.

        Raises:
            InvalidValue: when the cursor is not one of this list's.
        """
        if self.cursor is None:
            return None
        try:
            padded = self.cursor + "=" * (-len(self.cursor) % 4)
            return msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=kind)
        except (binascii.Error, ValueError, msgspec.DecodeError) as error:
            raise InvalidValue(
                "cursor", self.cursor[:80], "must be the next_cursor of the same list"
            ) from error


@dataclass(frozen=True, slots=True)
class Paged(Generic[T]):
    """Some items of a list; ``next_cursor`` is None on its last page."""

    items: tuple[T, ...]
    next_cursor: str | None


def paged(found: Sequence[T], page: Page, key: Callable[[T], object]) -> Paged[T]:
    """Cut ``found``, which was asked for with a limit of ``page.limit + 1``, to the page."""
    items = tuple(found[: page.limit])
    more = len(found) > page.limit
    return Paged(items, _cursor(key(items[-1])) if more else None)


def _cursor(key: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")
