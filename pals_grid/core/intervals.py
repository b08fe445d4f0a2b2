"""Half-open UTC intervals and slot grids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def require_utc(field: str, instant: datetime) -> datetime:
    """Return ``instant`` in UTC.

    Raises:
        InvalidValue: for a naive time, whose meaning nobody can know.
    """
    if instant.tzinfo is None:
        raise InvalidValue(field, instant.isoformat(), "must carry a UTC offset")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise InvalidValue(field, instant.isoformat(), "must be in the years 1 to 9999") from error


def parse_instant(field: str, text: str) -> datetime:
    """Read an ISO 8601 instant with offset (``Z`` included) into UTC.

    Raises:
        InvalidValue: when the text is no instant or carries no offset.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue(field, text, "must be an ISO 8601 instant with offset") from error
    return require_utc(field, instant)


def format_minute(instant: datetime) -> str:
    """Write an instant as providers ask for it: ISO 8601 in UTC, to the minute."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """``[start_at, end_at)`` in UTC."""

    start_at: datetime
    end_at: datetime

    def __post_init__(self) -> None:
        require_utc("start_at", self.start_at)
        require_utc("end_at", self.end_at)
        if self.end_at <= self.start_at:
            raise InvalidValue(
                "end_at", self.end_at.isoformat(), f"must be after start_at {self.start_at}"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_at - self.start_at).total_seconds()

    def contains(self, instant: datetime) -> bool:
        """Whether ``instant`` lies inside."""
        return self.start_at <= instant < self.end_at

    def overlap_s(self, other: Interval) -> float:
        """Seconds shared with ``other``; zero when they only touch."""
        shared = min(self.end_at, other.end_at) - max(self.start_at, other.start_at)
        return max(0.0, shared.total_seconds())


def floor_to(instant: datetime, step: timedelta) -> datetime:
    """Return the last multiple of ``step`` since the epoch that is not after ``instant``."""
    return instant - (instant - EPOCH) % step


def slots(start_at: datetime, end_at: datetime, step: timedelta) -> Iterator[Interval]:
    """Cut ``[start_at, end_at)`` on the grid of ``step``; the first and last may be shorter."""
    cursor = start_at
    while cursor < end_at:
        edge = min(floor_to(cursor, step) + step, end_at)
        yield Interval(cursor, edge)
        cursor = edge
