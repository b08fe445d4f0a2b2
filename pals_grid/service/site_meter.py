"""A site's own meter: what is measured at its grid connection, told by whoever reads it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import require_utc
from pals_grid.store.site_meters import SiteMeterRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pals_grid.core.live import SiteReading
    from pals_grid.service.context import Context

MOST_READINGS = 1000
MAX_AGE = timedelta(days=1)
MAX_AHEAD = timedelta(seconds=5)
MOST_OVER_CONNECTION = 10.0
MAX_SOURCE = 200


def record_readings(context: Context, slug: str, readings: Sequence[SiteReading]) -> int:
    """Store readings of a site's power; those already known change nothing. Returns how many new.

    Raises:
        NotFound: no such site.
        InvalidValue: names the reading and the field; nothing is stored.
    """
    if not 1 <= len(readings) <= MOST_READINGS:
        raise InvalidValue("readings", len(readings), f"must be from 1 to {MOST_READINGS}")
    now = context.clock.now()
    with context.database.begin() as connection:
        site = SiteRepository(connection).load(slug)
        most_w = MOST_OVER_CONNECTION * site.policy.grid_connection_w
        for i, reading in enumerate(readings):
            _require_plausible(f"readings[{i}]", reading, now, most_w)
        return SiteMeterRepository(connection).insert(site.id, readings, now)


def load_latest_reading(context: Context, slug: str) -> SiteReading | None:
    """Return the newest reading of a site; None where no meter ever said anything.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return SiteMeterRepository(connection).load_latest([site.id]).get(site.id)


def _require_plausible(field: str, reading: SiteReading, now: datetime, most_w: float) -> None:
    """A reading in another unit or of another time would bend every round: it is refused."""
    at = require_utc(f"{field}.at", reading.at)
    if at > now + MAX_AHEAD:
        bound = f"must be at most {MAX_AHEAD.seconds} s ahead of the service's clock"
        raise InvalidValue(f"{field}.at", at.isoformat(), bound)
    if at < now - MAX_AGE:
        bound = f"must be at most {MAX_AGE.total_seconds() / 3600:g} h old"
        raise InvalidValue(f"{field}.at", at.isoformat(), bound)
    if not math.isfinite(reading.power_w) or not 0 <= reading.power_w <= most_w:
        bound = f"must be from 0 to {most_w:g}, ten times the grid connection"
        raise InvalidValue(f"{field}.power_w", reading.power_w, bound)
    if not 1 <= len(reading.source.strip()) <= MAX_SOURCE:
        bound = f"must have 1 to {MAX_SOURCE} characters"
        raise InvalidValue(f"{field}.source", reading.source[:80], bound)
