"""Instants in a site's time zone: as text, as HTML with UTC beside it, and back from a form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from markupsafe import Markup

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid_dashboards.console.formats import UNKNOWN

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


FIRST_YEAR, LAST_YEAR = 1970, 2199
"""As the API takes them: days can be added to and taken from any of them."""


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The clock on a site's wall, and the instant that the page was made at."""

    zone: ZoneInfo
    now: datetime

    @property
    def zone_name(self) -> str:
        """The zone as people know it: ``Europe/London (GMT)``."""
        local = self.now.astimezone(self.zone)
        short = local.tzname() or ""
        if not short or short == self.zone.key:
            return self.zone.key
        return f"{self.zone.key} ({short if short.isalpha() else f'UTC{short}'})"

    @property
    def today(self) -> date:
        """The site's day."""
        return self.now.astimezone(self.zone).date()

    def clock(self, instant: datetime) -> str:
        """``14:30`` on the same day, ``22 Nov 14:30`` on another, with the year in another."""
        local = instant.astimezone(self.zone)
        if local.date() == self.today:
            return f"{local:%H:%M}"
        if local.year == self.today.year:
            return f"{local.day} {local:%b %H:%M}"
        return f"{local.day} {local:%b %Y %H:%M}"

    def tag(self, instant: datetime | None) -> Markup | str:
        """Return a ``time`` element: local on its face, UTC in the tooltip."""
        return UNKNOWN if instant is None else _tag(instant, self.clock(instant))

    def span(self, start_at: datetime, end_at: datetime) -> Markup:
        """Two ``time`` elements; the day is not said twice, seconds only where there are some."""
        on_start_day = LocalTime(self.zone, start_at)
        same_day = end_at.astimezone(self.zone).date() == on_start_day.today
        end = (on_start_day if same_day else self).clock(end_at)
        return Markup("{}–{}").format(
            _tag(start_at, self.clock(start_at) + _seconds(start_at)),
            _tag(end_at, end + _seconds(end_at)),
        )

    def month_name(self, instant: datetime) -> str:
        """``November 2026``, of the month that the instant lies in."""
        return f"{instant.astimezone(self.zone):%B %Y}"

    def dated_span(self, start_at: datetime, end_at: datetime) -> Markup:
        """``Sat 21 Nov 2026, 14:30–15:30``."""
        local = start_at.astimezone(self.zone)
        day = f"{local:%a} {local.day} {local:%b %Y}"
        return Markup("{}, {}").format(day, LocalTime(self.zone, start_at).span(start_at, end_at))

    def form_value(self, instant: datetime) -> str:
        """Value of a ``datetime-local`` field."""
        return f"{instant.astimezone(self.zone):%Y-%m-%dT%H:%M}"

    def instant(self, field: str, text: str) -> datetime:
        """Read a ``datetime-local`` field; of an hour that comes twice, the first.

        Raises:
            InvalidValue: when it is no time, or one that the zone's clocks skip.
        """
        try:
            naive = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidValue(field, text, "must be a date and a time") from error
        _require_year(field, text, naive.year)
        if naive.tzinfo is not None:
            return naive.astimezone(UTC)
        utc = naive.replace(tzinfo=self.zone).astimezone(UTC)
        if utc.astimezone(self.zone).replace(tzinfo=None) != naive:
            raise InvalidValue(
                field, text, f"does not exist in {self.zone.key}: the clocks go forward over it"
            )
        return utc

    def day(self, field: str, text: str) -> date:
        """Read a ``date`` field.

        Raises:
            InvalidValue: when it is no date.
        """
        try:
            found = date.fromisoformat(text)
        except ValueError as error:
            raise InvalidValue(field, text, "must be a date") from error
        _require_year(field, text, found.year)
        return found

    def days(self, first: date, last: date) -> Interval:
        """Return the interval from the start of ``first`` to the end of ``last``, 23 h days too.

        Raises:
            InvalidValue: when the last day is before the first.
        """
        if last < first:
            raise InvalidValue("to", last.isoformat(), f"must not be before {first}")
        start, end = (
            datetime.combine(day, time(), self.zone).astimezone(UTC)
            for day in (first, last + timedelta(days=1))
        )
        return Interval(start, end)


def _require_year(field: str, text: str, year: int) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise InvalidValue(field, text, f"must be in the years {FIRST_YEAR} to {LAST_YEAR}")


def _seconds(instant: datetime) -> str:
    return f":{instant.second:02}" if instant.second else ""


def _tag(instant: datetime, text: str) -> Markup:
    utc = instant.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S} UTC", text
    )
