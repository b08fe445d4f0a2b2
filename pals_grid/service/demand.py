"""Demand charges of a site's months, from the power of its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.accounting.delivery import SitePowerReading
from pals_grid.accounting.demand import (
    coincident_cost,
    demand_cost,
    find_peak,
)
from pals_grid.core.intervals import Interval
from pals_grid.core.time_of_use import month_before, months_touching
from pals_grid.store.reports import ReportRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.accounting.demand import (
        DemandCost,
        Peak,
    )
    from pals_grid.core.fleet import Origin
    from pals_grid.core.site import Site
    from pals_grid.core.tariff import DemandCharge, Tariff
    from pals_grid.service.context import Context

READING_S = 900.0
MOST_MONTHS = 13


@dataclass(frozen=True, slots=True)
class MonthlyDemand:
    """What one calendar month's peaks cost by one tariff, in ``currency``.

    Power is the nodes', at node boundary: not the meter of the grid connection. ``month`` ends
    in the future while it runs. ``coincident_cost`` is an expectation over the hours at risk.
    ``origins`` say how that power is known.
    """

    month: Interval
    running: bool
    tariff: str
    currency: str
    charges: tuple[DemandCost, ...]
    coincident_cost: float
    origins: frozenset[Origin]


def load_demand_charges(
    context: Context, slug: str, interval: Interval
) -> tuple[MonthlyDemand, ...]:
    """Charges of every calendar month that ``interval`` touches, of the whole month so far.

    By the tariff in force at each month's end, or now while it runs. Months without such charges
    are left out, and so is what lies more than 13 months before the last.

    Raises:
        NotFound: no such site.
    """
    now = context.clock.now()
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        pricing = TariffRepository(connection).load_pricing(site)
        reader = PeakReader(connection, site, now)
        months = months_touching(interval, reader.zone)[-MOST_MONTHS:]
        found = []
        for month in months:
            last_at = min(now, month.end_at - timedelta.resolution)
            tariff = pricing.at(last_at).tariff
            if month.start_at < now and (tariff.demand_charges or tariff.coincident_peaks):
                found.append(reader.month(tariff, month))
        return tuple(found)


class PeakReader:
    """Peaks of one site's months; readings are loaded once a month."""

    def __init__(self, connection: Connection, site: Site, now: datetime) -> None:
        self._telemetry = TelemetryRepository(connection)
        self._reports = ReportRepository(connection)
        self._site = site
        self._now = now
        self._readings: dict[Interval, list[SitePowerReading]] = {}
        self.zone = ZoneInfo(site.policy.timezone)

    def month(self, tariff: Tariff, month: Interval) -> MonthlyDemand:
        """What a month's peaks cost by ``tariff``."""
        readings = self._load(month)
        charges = (self._cost(tariff, charge, month) for charge in tariff.demand_charges)
        return MonthlyDemand(
            month=month,
            running=month.end_at > self._now,
            tariff=tariff.name,
            currency=self._site.policy.currency,
            charges=tuple(charges),
            coincident_cost=sum(
                coincident_cost(peak, readings) for peak in tariff.coincident_peaks
            ),
            origins=self._reports.origins(self._site.id, month),
        )

    def reached_w(self, tariff: Tariff, charge: DemandCharge, month: Interval) -> float:
        """Peak in W that a month is billed for whatever comes; 0 where nothing was measured."""
        held_up_w = charge.ratchet_ratio * max(self._earlier_w(tariff, charge, month), default=0.0)
        return max(self._peak(tariff, charge, month).power_w or 0.0, held_up_w)

    def _cost(self, tariff: Tariff, charge: DemandCharge, month: Interval) -> DemandCost:
        earlier_w = self._earlier_w(tariff, charge, month)
        return demand_cost(charge, self._peak(tariff, charge, month), earlier_w)

    def _earlier_w(self, tariff: Tariff, charge: DemandCharge, month: Interval) -> list[float]:
        """Known peaks of the ratchet's months."""
        earlier_w = []
        before = month
        for _ in range(charge.ratchet_months):
            before = month_before(before, self.zone)
            peak = self._peak(tariff, charge, before)
            if peak.power_w is not None:
                earlier_w.append(peak.power_w)
        return earlier_w

    def _peak(self, tariff: Tariff, charge: DemandCharge, month: Interval) -> Peak:
        return find_peak(tariff, charge, month, self._load(month), self.zone)

    def _load(self, month: Interval) -> list[SitePowerReading]:
        if month not in self._readings:
            points = self._telemetry.load_power_series(self._site.id, month, READING_S)
            self._readings[month] = [
                SitePowerReading(
                    Interval(
                        point.start_at,
                        point.start_at + timedelta(seconds=min(READING_S, point.covered_s)),
                    ),
                    point.node_power_w,
                )
                for point in points
                if point.covered_s > 0
            ]
        return self._readings[month]
