"""Periods of the wall clock: hours of some days of some months, in a site's own time zone.

What the clock on the wall says decides. In the night when it goes back, an hour comes twice and
both are inside; in the night when it goes forward, what it skips is in no period.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")


class HolidayRule(StrEnum):
    """What a public holiday does to a period."""

    AS_USUAL = "as_usual"
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Period:
    """``start`` to ``end`` by the wall clock (``HH:MM``, the end up to ``24:00``) on some days.

    A period whose end is not after its start runs past midnight and belongs to the day that it
    begins on. ``months`` are 1 to 12. ``holidays`` says what a public holiday does: the period
    holds on it as on any day of the week, never, or always, whatever the day of the week.

    Raises:
        InvalidValue: for what is no time, day or month, or an empty list of them.
    """

    name: str
    start: str = "00:00"
    end: str = "24:00"
    days: tuple[str, ...] = DAYS
    months: tuple[int, ...] = tuple(range(1, 13))
    holidays: HolidayRule = HolidayRule.AS_USUAL

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.strip()) <= 100:
            raise InvalidValue("name", self.name[:120], "must have 1 to 100 characters")
        for field, text in (("start", self.start), ("end", self.end)):
            if not _CLOCK.fullmatch(text) or (field, text) == ("start", "24:00"):
                last = "24:00" if field == "end" else "23:59"
                raise InvalidValue(field, text, f"must be a local time from 00:00 to {last}")
        _require_some("days", self.days, DAYS, "mon, tue, wed, thu, fri, sat, sun")
        _require_some("months", self.months, range(1, 13), "months from 1 to 12")

    def spans(
        self, interval: Interval, zone: tzinfo, holidays: Collection[date] = ()
    ) -> list[Interval]:
        """Parts of ``interval`` that lie inside the period, in order and apart."""
        found: list[Interval] = []
        for part, offset in _of_one_offset(interval, zone):
            first = (part.start_at + offset).date() - _DAY
            for days in itertools.count():
                day = first + days * _DAY
                start_at, end_at = self._on(day)
                begins = max(part.start_at, _instant(start_at, offset, part))
                ends = min(part.end_at, _instant(end_at, offset, part))
                if day > (part.end_at + offset).date():
                    break
                if begins < ends and self._holds_on(day, holidays):
                    _append(found, Interval(begins, ends))
        return found

    def _on(self, day: date) -> tuple[datetime, datetime]:
        """Start and end by the wall clock of the period that begins on ``day``."""
        start, end = _clock_s(self.start), _clock_s(self.end)
        midnight = datetime.combine(day, time())
        past_midnight = _DAY if end <= start else timedelta()
        return midnight + start, midnight + end + past_midnight

    def _holds_on(self, day: date, holidays: Collection[date]) -> bool:
        if day.month not in self.months:
            return False
        if day in holidays and self.holidays is not HolidayRule.AS_USUAL:
            return self.holidays is HolidayRule.ALWAYS
        return DAYS[day.weekday()] in self.days


def month_of(instant: datetime, zone: tzinfo) -> Interval:
    """Return the calendar month of a site's clock that ``instant`` lies in."""
    first = instant.astimezone(zone).date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    start_at, end_at = (
        datetime.combine(day, time(), zone).astimezone(instant.tzinfo) for day in (first, following)
    )
    return Interval(start_at, end_at)


def months_touching(interval: Interval, zone: tzinfo) -> list[Interval]:
    """Every calendar month that shares time with ``interval``, in order."""
    months = [month_of(interval.start_at, zone)]
    while months[-1].end_at < interval.end_at:
        months.append(month_of(months[-1].end_at, zone))
    return months


def month_before(month: Interval, zone: tzinfo) -> Interval:
    """Return the calendar month before ``month``."""
    return month_of(month.start_at - _DAY, zone)


def clock_floor(instant: datetime, step: timedelta, zone: tzinfo) -> datetime:
    """Return the last mark of ``step`` on the wall clock that is not after ``instant``."""
    offset = _offset(instant, zone)
    local = instant + offset
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return local - (local - midnight) % step - offset


def _require_some(
    field: str, given: Collection[object], known: Collection[object], words: str
) -> None:
    if not given:
        raise InvalidValue(field, list(given), f"must name at least one of {words}")
    for item in given:
        if item not in known:
            raise InvalidValue(field, item, f"must be of {words}")


def _clock_s(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


def _instant(local: datetime, offset: timedelta, part: Interval) -> datetime:
    return local.replace(tzinfo=part.start_at.tzinfo) - offset


def _append(found: list[Interval], span: Interval) -> None:
    if found and found[-1].end_at >= span.start_at:
        span = Interval(found.pop().start_at, span.end_at)
    found.append(span)


def _of_one_offset(interval: Interval, zone: tzinfo) -> Iterator[tuple[Interval, timedelta]]:
    """Cut ``interval`` where the zone's offset from UTC changes."""
    cursor = interval.start_at
    while cursor < interval.end_at:
        edge, offset = cursor, _offset(cursor, zone)
        while edge < interval.end_at and _offset(edge, zone) == offset:
            edge = min(edge + _DAY, interval.end_at)
        if _offset(edge, zone) != offset:
            edge = _change_before(edge, offset, zone)
        yield Interval(cursor, edge), offset
        cursor = edge


def _change_before(edge: datetime, offset: timedelta, zone: tzinfo) -> datetime:
    """Return the instant at which ``offset`` ended, at most a day before ``edge``."""
    low, high = edge - _DAY, edge
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
    return high.replace(microsecond=0)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()
