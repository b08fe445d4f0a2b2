"""Day-ahead prices out of a file, each known from when its market publishes the next day's."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity
from pals_grid.evaluate.series_file import Columns, read_series_file
from pals_grid.forecast.issued import Announced

if TYPE_CHECKING:
    from pathlib import Path


def read_day_ahead(path: Path, zone: str, published_at: str) -> Announced:
    """Read prices; those of a local day of ``zone`` are known from ``published_at`` the day before.

    Raises:
        InvalidValue: for a file that cannot be read, or a time that is no HH:MM.
    """
    try:
        clock = time.fromisoformat(published_at)
    except ValueError as error:
        raise InvalidValue("published_at", published_at, "must be HH:MM") from error
    series = read_series_file(path, Quantity.PRICE, Columns())
    local = ZoneInfo(zone)

    def known_s(start_s: float) -> float:
        day = datetime.fromtimestamp(start_s, UTC).astimezone(local).date() - timedelta(days=1)
        return datetime.combine(day, clock, local).timestamp()

    known = {int(start_s // 3600): known_s(start_s) for start_s in series.starts_s}
    return Announced(
        series.starts_s,
        series.ends_s,
        series.values,
        [known[int(start_s // 3600)] for start_s in series.starts_s],
    )
