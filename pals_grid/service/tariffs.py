"""Tariffs: what is stored, what one would change, and one more stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import Conflict, InvalidValue
from pals_grid.core.intervals import floor_to, slots
from pals_grid.core.time_of_use import month_before, month_of
from pals_grid.service.demand import PeakReader
from pals_grid.service.plans import replan_within
from pals_grid.service.signals import load_signals
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import StoredTariff, TariffRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.fallback import SlotSource
    from pals_grid.core.intervals import Interval
    from pals_grid.core.pricing import EnergyPrice, Pricing
    from pals_grid.core.site import Site
    from pals_grid.core.tariff import Tariff
    from pals_grid.service.context import Context
    from pals_grid.service.demand import MonthlyDemand

__all__ = [
    "PreviewSlot",
    "StoredTariff",
    "TariffPreview",
    "TariffsView",
    "list_tariffs",
    "preview_tariff",
    "set_tariff",
]

AHEAD = timedelta(hours=48)
MOST_STORED = 1000
EARLIEST_BACK = timedelta(days=3 * 366)


@dataclass(frozen=True, slots=True)
class TariffsView:
    """A site's tariffs, the newest stored first; ``in_force_id`` is None before the first."""

    site: str
    currency: str
    timezone: str
    in_force_id: int | None
    tariffs: tuple[StoredTariff, ...]

    @property
    def version(self) -> int:
        """Rises with each one stored; 0 before the first."""
        return _version(self.tariffs)

    @property
    def in_force(self) -> StoredTariff | None:
        """The one that holds now."""
        return next((item for item in self.tariffs if item.id == self.in_force_id), None)


@dataclass(frozen=True, slots=True)
class PreviewSlot:
    """One slot of the next 48 h: price by the tariffs stored, and with the one previewed.

    None where no feed has a price, or nothing converts its currency.
    """

    interval: Interval
    source: SlotSource | None
    before: EnergyPrice | None
    after: EnergyPrice | None
    risk_after_per_mwh: float


@dataclass(frozen=True, slots=True)
class TariffPreview:
    """What a tariff would change: prices from when it begins, at the earliest now, and peaks.

    ``month_before`` is last month by the tariffs stored, ``month_after`` by the one previewed.
    """

    currency: str
    slots: tuple[PreviewSlot, ...]
    month_before: MonthlyDemand
    month_after: MonthlyDemand


def list_tariffs(context: Context, slug: str) -> TariffsView:
    """Every tariff of a site, kept for ever.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return _view(connection, site, context.clock.now())


def preview_tariff(context: Context, slug: str, tariff: Tariff) -> TariffPreview:
    """Work out what a tariff would change, and store nothing.

    The 48 h begin now, or when the tariff does; where its feeds do not know prices that far
    ahead, slots are without one.

    Raises:
        NotFound: no such site.
        InvalidValue: for a tariff that the site cannot have.
    """
    now = context.clock.now()
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        pricing = TariffRepository(connection).load_pricing(site)
        check_tariff(site, tariff, now)
        after = pricing.with_candidate(tariff)
        month = month_before(month_of(now, pricing.zone), pricing.zone)
        reader = PeakReader(connection, site, now)
        last_at = month.end_at - timedelta.resolution
        return TariffPreview(
            currency=site.policy.currency,
            slots=tuple(_preview_slots(connection, site, (pricing, after), tariff, now)),
            month_before=reader.month(pricing.at(last_at).tariff, month),
            month_after=reader.month(tariff, month),
        )


def set_tariff(
    context: Context, slug: str, tariff: Tariff, expected_version: int | None = None
) -> StoredTariff:
    """Store one more tariff and plan by it; those before it stay.

    One that is there already as it is, and would hold, is returned and not stored again.

    Raises:
        NotFound: no such site.
        InvalidValue: for a tariff that the site cannot have.
        Conflict: when another one was stored since ``expected_version``.
    """
    with context.database.begin() as connection:
        sites = SiteRepository(connection)
        site = sites.load(slug)
        sites.lock(site.id)
        now = context.clock.now()
        check_tariff(site, tariff, now)
        tariffs = TariffRepository(connection)
        stored_so_far = tariffs.list_all(site.id)
        begin_then = [
            item for item in stored_so_far if item.tariff.valid_from_at == tariff.valid_from_at
        ]
        if begin_then and begin_then[-1].tariff == tariff:
            return begin_then[-1]
        version = _version(stored_so_far)
        if expected_version not in {None, version}:
            raise Conflict(
                f"the tariffs of site {slug!r} are at version {version}, not {expected_version}"
            )
        if len(stored_so_far) >= MOST_STORED:
            raise InvalidValue("tariff", MOST_STORED, f"a site keeps at most {MOST_STORED}")
        stored = tariffs.insert(site.id, tariff, now)
        replan_within(context, connection, site.id, f"tariff {tariff.name} set")
    return stored


def _version(stored: Sequence[StoredTariff]) -> int:
    return max((item.id for item in stored), default=0)


def check_tariff(site: Site, tariff: Tariff, now: datetime) -> None:
    """Refuse a tariff that the site cannot have.

    Raises:
        InvalidValue: naming what is wrong.
    """
    conversion = tariff.conversion
    if conversion is not None and conversion.from_currency == site.policy.currency:
        bound = f"must be another currency than the site's, {site.policy.currency}"
        raise InvalidValue("conversion.from_currency", conversion.from_currency, bound)
    if conversion is not None and conversion.as_of > (now + timedelta(days=1)).date():
        bound = f"must not be after today, {now.date()}"
        raise InvalidValue("conversion.as_of", conversion.as_of.isoformat(), bound)
    if abs(tariff.valid_from_at - now) > EARLIEST_BACK:
        bound = f"must be within {EARLIEST_BACK.days} days of now"
        raise InvalidValue("valid_from_at", tariff.valid_from_at.isoformat(), bound)


def _view(connection: Connection, site: Site, now: datetime) -> TariffsView:
    repository = TariffRepository(connection)
    stored = repository.list_all(site.id)
    return TariffsView(
        site=site.policy.slug,
        currency=site.policy.currency,
        timezone=site.policy.timezone,
        in_force_id=repository.load_pricing(site).at(now).id or None,
        tariffs=tuple(reversed(stored)),
    )


def _preview_slots(
    connection: Connection,
    site: Site,
    pricings: tuple[Pricing, Pricing],
    tariff: Tariff,
    now: datetime,
) -> list[PreviewSlot]:
    before, after = pricings
    step = timedelta(seconds=site.policy.slot_s)
    begin_at = floor_to(max(now, tariff.valid_from_at), step)
    grid = list(slots(begin_at, begin_at + AHEAD, step))
    # Read with the candidate, so that a feed in the currency that it converts is seen.
    signals = load_signals(connection, site, after, grid, now)
    return [
        PreviewSlot(
            interval=slot,
            source=source,
            before=_price(before, slot, source),
            after=_price(after, slot, source),
            risk_after_per_mwh=after.risk_per_mwh(slot),
        )
        for slot, source in zip(grid, signals.price_sources, strict=True)
    ]


def _price(pricing: Pricing, slot: Interval, source: SlotSource | None) -> EnergyPrice | None:
    if source is None or not pricing.can_price(source.unit, slot.start_at):
        return None
    return pricing.price(slot, source.value, source.unit)
