"""Times as files write them: with an offset, or by clocks that change twice a year."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pals_grid.core.connecting import read_number
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import EPOCH, require_utc


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How times are written, and the zone of those without an offset."""

    pattern: str
    zone: ZoneInfo | None

    def read(
        self,
        field: str,
        text: str,
        previous: datetime | None = None,
        *,
        may_repeat: bool = False,
    ) -> datetime:
        """Read into UTC; of a repeated local time, the first that does not go back."""
        instant, zone = self._parse(field, text)
        if zone is None:
            return require_utc(field, instant)
        early, late = both_folds(field, instant, zone)
        if early > late:
            raise InvalidValue(field, text, f"must exist in {zone}, whose clocks skip it")
        goes_back = previous is not None and (
            early < previous or (early == previous and not may_repeat)
        )
        return late if goes_back else early

    def read_end(self, field: str, text: str, start_at: datetime) -> datetime:
        """Read the end of an interval that begins at ``start_at`` into UTC.

        Around a change of clocks the end is read by the clock that showed the start.
        """
        instant, zone = self._parse(field, text)
        if zone is None:
            return require_utc(field, instant)
        start = start_at.astimezone(zone).replace(tzinfo=None)
        early, late = both_folds(field, instant, zone)
        start_early, start_late = both_folds(field, start, zone)
        by_same_clock = start_at + (instant - start)
        if (early == late and start_early == start_late) or by_same_clock <= start_at:
            return late
        return by_same_clock

    def _parse(self, field: str, text: str) -> tuple[datetime, ZoneInfo | None]:
        """Read a time, with the zone that it still needs."""
        try:
            instant = self._parse_text(text.strip())
        except (ValueError, OverflowError, InvalidValue) as error:
            raise InvalidValue(
                field, text, f"must be a time of the format {self.pattern}"
            ) from error
        if instant.tzinfo is not None:
            return instant, None
        if self.zone is None:
            raise InvalidValue(field, text, "must carry a UTC offset, or option timezone be given")
        return instant, self.zone

    def _parse_text(self, text: str) -> datetime:
        if self.pattern == "iso":
            return datetime.fromisoformat(text)
        if self.pattern in {"unix", "unix_ms"}:
            number = float(read_number("time", text))
            return EPOCH + timedelta(seconds=number / (1000 if self.pattern == "unix_ms" else 1))
        return datetime.strptime(text, self.pattern)  # noqa: DTZ007 - the caller adds the zone


def both_folds(field: str, local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Both readings of a local time: equal mostly, first the later one where clocks skip it.

    Raises:
        InvalidValue: for a time so near the ends of the calendar that UTC has none.
    """
    try:
        early, late = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except OverflowError as error:
        raise InvalidValue(field, local.isoformat(), "must be in the years 1 to 9999") from error
    return early, late


def read_zone(name: str) -> ZoneInfo | None:
    """The zone of that name; None for an empty one."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError) as error:
        raise InvalidValue("options.timezone", name, "must be an IANA time zone") from error
