"""The energy report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.accounting.per_token import energy_j_per_token
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.units import kwh_from_j
from pals_grid.store.reports import GROUPINGS, EnergyRow, ReportRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.fleet import Origin
    from pals_grid.core.series import ValueKind
    from pals_grid.service.context import Context

MINUTE = timedelta(minutes=1)
RESOLUTION = timedelta.resolution

_NOTHING = EnergyRow(
    node=None,
    model=None,
    start_at=None,
    gpu_energy_j=0.0,
    node_energy_j=0.0,
    idle_energy_j=0.0,
    tokens_in=0.0,
    tokens_out=0.0,
    requests_finished=0.0,
    ttft_misses=0.0,
    itl_misses=0.0,
    cost=None,
    carbon_g=None,
    priced_ratio=0.0,
    carbon_ratio=0.0,
    origins=frozenset(),
    price_kinds=frozenset(),
    carbon_kinds=frozenset(),
    price_feeds=frozenset(),
    carbon_feeds=frozenset(),
)


@dataclass(frozen=True, slots=True)
class EnergyReportRow:
    """One group's sums. A key that is not grouped by is None.

    Cost is in the report's currency; cost, carbon and ``node_energy_j_per_token`` are at the
    node's boundary; joules per token count output tokens. ``priced_ratio`` and ``carbon_ratio``
    are the shares of the energy that a price or a carbon value covers, ``price_kinds`` and
    ``carbon_kinds`` how firm those are, ``price_feeds`` and ``carbon_feeds`` who said them.
    """

    node: str | None
    model: str | None
    start_at: datetime | None
    gpu_energy_kwh: float
    node_energy_kwh: float
    idle_energy_kwh: float
    tokens_in: float
    tokens_out: float
    gpu_energy_j_per_token: float | None
    node_energy_j_per_token: float | None
    cost: float | None
    carbon_g: float | None
    priced_ratio: float
    carbon_ratio: float
    requests_finished: int
    ttft_misses: int
    itl_misses: int
    origins: frozenset[Origin]
    price_kinds: frozenset[ValueKind] = frozenset()
    carbon_kinds: frozenset[ValueKind] = frozenset()
    price_feeds: frozenset[str] = frozenset()
    carbon_feeds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Rows by ``by`` (any of node, model, hour) and their total."""

    site: str
    interval: Interval
    by: frozenset[str]
    currency: str
    rows: tuple[EnergyReportRow, ...]
    total: EnergyReportRow


def energy_report(
    context: Context, slug: str, interval: Interval, by: frozenset[str]
) -> EnergyReport:
    """Energy, cost, carbon and tokens of a site over ``interval``, grouped by ``by``.

    Sums are kept by the minute: a bound inside one is moved outward to its edge, and the report's
    own ``interval`` says so.

    Raises:
        NotFound: no such site.
        InvalidValue: for a key that is not node, model or hour.
    """
    unknown = by - GROUPINGS
    if unknown:
        bound = f"must be of {', '.join(sorted(GROUPINGS))}"
        raise InvalidValue("by", min(unknown), bound)
    end_at = floor_to(interval.end_at + MINUTE - RESOLUTION, MINUTE)
    interval = Interval(floor_to(interval.start_at, MINUTE), end_at)
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        reports = ReportRepository(connection)
        rows = reports.energy(site_id=site.id, interval=interval, by=by)
        total = reports.energy(site_id=site.id, interval=interval, by=frozenset()) if by else rows
    return EnergyReport(
        site=slug,
        interval=interval,
        by=by,
        currency=site.policy.currency,
        rows=tuple(_row(row) for row in rows),
        total=_row(total[0] if total else _NOTHING),
    )


def _row(row: EnergyRow) -> EnergyReportRow:
    return EnergyReportRow(
        node=row.node,
        model=row.model,
        start_at=row.start_at,
        gpu_energy_kwh=kwh_from_j(row.gpu_energy_j),
        node_energy_kwh=kwh_from_j(row.node_energy_j),
        idle_energy_kwh=kwh_from_j(row.idle_energy_j),
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        gpu_energy_j_per_token=energy_j_per_token(row.gpu_energy_j, row.tokens_out),
        node_energy_j_per_token=energy_j_per_token(row.node_energy_j, row.tokens_out),
        cost=row.cost,
        carbon_g=row.carbon_g,
        priced_ratio=row.priced_ratio,
        carbon_ratio=row.carbon_ratio,
        requests_finished=round(row.requests_finished),
        ttft_misses=round(row.ttft_misses),
        itl_misses=round(row.itl_misses),
        origins=row.origins,
        price_kinds=row.price_kinds,
        carbon_kinds=row.carbon_kinds,
        price_feeds=row.price_feeds,
        carbon_feeds=row.carbon_feeds,
    )
