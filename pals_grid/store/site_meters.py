"""Readings of sites' own meters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.core.live import SiteReading

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_INSERT = text("""
    INSERT INTO site_meter_reading (site_id, at, power_w, source, received_at)
    VALUES (:site_id, :at, :power_w, :source, :received_at) ON CONFLICT DO NOTHING
""")
_LATEST = text("""
    SELECT site.id AS site_id, newest.* FROM site CROSS JOIN LATERAL (
        SELECT at, power_w, source FROM site_meter_reading
        WHERE site_meter_reading.site_id = site.id ORDER BY at DESC LIMIT 1
    ) AS newest
    WHERE site.id = ANY(:site_ids)
""")


class SiteMeterRepository:
    """Meter readings over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, site_id: int, readings: Sequence[SiteReading], received_at: datetime) -> int:
        """Store readings; one of an instant that is there already changes nothing. How many new."""
        rows = [
            {
                "site_id": site_id,
                "at": one.at,
                "power_w": one.power_w,
                "source": one.source,
                "received_at": received_at,
            }
            for one in readings
        ]
        return sum(self._connection.execute(_INSERT, row).rowcount for row in rows)

    def load_latest(self, site_ids: Collection[int]) -> dict[int, SiteReading]:
        """Return the newest reading of each of these sites that has one."""
        rows = self._connection.execute(_LATEST, {"site_ids": list(site_ids)})
        return {row.site_id: SiteReading(row.at, row.power_w, row.source) for row in rows}

    def prune(self, before_at: datetime) -> int:
        """Drop readings from before; returns how many."""
        query = text("DELETE FROM site_meter_reading WHERE at < :before_at")
        return self._connection.execute(query, {"before_at": before_at}).rowcount
