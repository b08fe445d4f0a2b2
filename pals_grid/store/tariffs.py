"""Tariffs of sites; rows are only ever added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select

from pals_grid.core.pricing import DatedTariff, Pricing
from pals_grid.core.tariff_document import read_tariff, write_tariff
from pals_grid.store.tables import tariff as table

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.site import Site
    from pals_grid.core.tariff import Tariff


@dataclass(frozen=True, slots=True)
class StoredTariff:
    """A tariff and when it was stored."""

    id: int
    recorded_at: datetime
    tariff: Tariff


class TariffRepository:
    """Tariffs over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, site_id: int, tariff: Tariff, recorded_at: datetime) -> StoredTariff:
        """Store one more tariff of a site."""
        row = {
            "site_id": site_id,
            "valid_from_at": tariff.valid_from_at,
            "recorded_at": recorded_at,
            "document": write_tariff(tariff),
        }
        made = self._connection.execute(insert(table).values(row).returning(table.c.id))
        return StoredTariff(made.scalar_one(), recorded_at, tariff)

    def list_all(self, site_id: int) -> list[StoredTariff]:
        """Every tariff of a site, in the order in which they were stored."""
        query = select(table).where(table.c.site_id == site_id).order_by(table.c.id)
        return [
            StoredTariff(row.id, row.recorded_at, read_tariff(row.document))
            for row in self._connection.execute(query)
        ]

    def load_pricing(self, site: Site) -> Pricing:
        """Return what a site pays, by the tariffs that are stored now."""
        stored = (DatedTariff(item.id, item.tariff) for item in self.list_all(site.id))
        return Pricing.of(site.policy.currency, ZoneInfo(site.policy.timezone), stored)
