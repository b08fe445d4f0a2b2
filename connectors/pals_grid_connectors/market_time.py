"""Local times of market operators, and the local days and stamps that a window touches."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid_connectors.local_time import both_folds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from zoneinfo import ZoneInfo

    from pals_grid.core.intervals import Interval

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
FIVE_MINUTES = timedelta(minutes=5)


def read_naive(field: str, text: str, patterns: Sequence[str]) -> datetime:
    """Read a time without offset by the first of ``patterns`` that fits.

    Raises:
        InvalidValue: when none does.
    """
    for pattern in patterns:
        try:
            return datetime.strptime(text, pattern)  # noqa: DTZ007 - the caller adds the zone
        except ValueError:
            continue
    raise InvalidValue(field, text, f"must be a time of the format {' or '.join(patterns)}")


def from_clock(field: str, local: datetime, zone: ZoneInfo, *, repeated: bool) -> datetime:
    """Read a naive local time into UTC; ``repeated`` says that it is the second of its name.

    Raises:
        InvalidValue: for a time that the clocks skip, or one called repeated that is not.
    """
    early, late = both_folds(field, local, zone)
    if early > late:
        raise InvalidValue(field, local.isoformat(), f"must exist in {zone}, whose clocks skip it")
    if repeated and early == late:
        bound = f"must be in the hour that {zone} repeats, since it is flagged as repeated"
        raise InvalidValue(field, local.isoformat(), bound)
    return late if repeated else early


def days_of(start_at: datetime, end_at: datetime, zone: ZoneInfo) -> list[date]:
    """Local days that ``[start_at, end_at)`` touches; none where it is empty."""
    day = start_at.astimezone(zone).date()
    days: list[date] = []
    while start_at < end_at and midnight(day, zone) < end_at:
        days.append(day)
        day += DAY
    return days


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Begin of a local day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def known_end(window: Interval, now: datetime, zone: ZoneInfo, *, day_ahead: bool) -> datetime:
    """End of what can be known of ``window``: a day-ahead market's tomorrow, or now."""
    if not day_ahead:
        return min(window.end_at, now)
    return min(window.end_at, midnight(now.astimezone(zone).date() + 2 * DAY, zone))


def known_days(window: Interval, now: datetime, zone: ZoneInfo, *, day_ahead: bool) -> list[date]:
    """Local days that touch what can be known of ``window``."""
    return days_of(window.start_at, known_end(window, now, zone, day_ahead=day_ahead), zone)
