"""Telemetry: taken in once, read back, kept for a while."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import floor_to
from pals_grid.service.paging import paged
from pals_grid.store.demand import DEMAND_BIN, DemandRepository
from pals_grid.store.engine import notify
from pals_grid.store.partitions import RAW_KEPT_DAYS, drop_partitions_before, ensure_partitions
from pals_grid.store.site_meters import SiteMeterRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.telemetry import PowerPoint, StoredEngineRow, TelemetryRepository
from pals_grid.wire.messages import TelemetryAck

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node, NodeCapability
    from pals_grid.core.intervals import Interval
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged
    from pals_grid.wire.messages import TelemetryBatch

__all__ = [
    "PowerPoint",
    "StoredEngineRow",
    "ingest",
    "keep_demand",
    "load_engine_rows",
    "load_power_series",
    "maintain_partitions",
]

PARTITION_DAYS_AHEAD = 3
DEMAND_BACK = timedelta(minutes=30)
DEMAND_BACK_HOURLY = timedelta(hours=6)
DEMAND_KEPT = timedelta(days=181)


def ingest(context: Context, node: Node, batch: TelemetryBatch) -> TelemetryAck:
    """Store a node's batch; when this returns it is committed. Sent again it changes nothing.

    Raises:
        InvalidValue: names the row and the field; nothing of the batch is stored.
    """
    _require_plausible(node.capability, batch)
    with context.database.begin() as connection:
        telemetry = TelemetryRepository(connection)
        engine_rows, gpu_rows = telemetry.ingest(node.id, batch, context.clock.now())
        if engine_rows:
            notify(connection, "telemetry", node.site_id)
    return TelemetryAck(
        spool_id=batch.spool_id,
        seq=batch.seq,
        engine_rows_inserted=engine_rows,
        gpu_rows_inserted=gpu_rows,
    )


def _require_plausible(capability: NodeCapability, batch: TelemetryBatch) -> None:
    """Refuse what the node cannot have drawn or served: one such row would bend every plan.

    The bounds are wide, since a node's own figures are a model: twice its most power, and ten
    times its most throughput (at least 100 000 tokens/s, for nodes without a table).
    """
    most_w = 2 * capability.power_max_w
    most_tokens_per_s = max(10 * capability.curve.max_tokens_per_s, 1e5)
    for i, row in enumerate(batch.engine_rows):
        duration_s = (row.end_at - row.start_at).total_seconds()
        if duration_s <= 0:
            continue  # the store refuses it, and says why
        for field, value, rate in (
            ("node_energy_j", row.node_energy_j, most_w),
            ("tokens_out", row.tokens_out, most_tokens_per_s),
        ):
            if value > rate * duration_s:
                bound = f"must be at most {rate * duration_s:g} in {duration_s:g} s at this node"
                raise InvalidValue(f"engine_rows[{i}].{field}", value, bound)


def load_engine_rows(
    context: Context, slug: str, interval: Interval, page: Page, node_id: int | None = None
) -> Paged[StoredEngineRow]:
    """Rows of 5 s that start inside ``interval``, by start, node and engine.

    Raises:
        NotFound: no such site.
    """
    after = page.after(tuple[datetime, int, str])
    with context.database.read() as connection:
        found = TelemetryRepository(connection).load_engine_rows(
            site_id=SiteRepository(connection).load(slug).id,
            interval=interval,
            node_id=node_id,
            limit=page.limit + 1,
            after=after,
        )
    return paged(found, page, lambda item: item.key)


def load_power_series(
    context: Context, slug: str, interval: Interval, step_s: float
) -> list[PowerPoint]:
    """Mean power and throughput of a site over steps of ``step_s``; gaps are left out.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return TelemetryRepository(connection).load_power_series(site.id, interval, step_s)


def keep_demand(context: Context) -> None:
    """Add up what each site was asked for by five minutes, so that plans need not.

    The last half-hour, and since the last time; once an hour six hours, for rows that came late.
    """
    now = context.clock.now()
    is_first = now - floor_to(now, timedelta(hours=1)) < DEMAND_BIN
    back = DEMAND_BACK_HOURLY if is_first else DEMAND_BACK
    with context.database.begin() as connection:
        demand = DemandRepository(connection)
        kept_at = demand.latest_at() or now - DEMAND_KEPT
        demand.add_up(floor_to(min(now - back, kept_at), DEMAND_BIN))
        if is_first:
            demand.forget(now - DEMAND_KEPT)


def maintain_partitions(context: Context) -> None:
    """Make the days ahead and drop raw rows that are too old; the sums by minute stay.

    So do readings of sites' meters. The notes of batches go with the rows: a batch sent again after
    that is refused by its age.
    """
    now = context.clock.now()
    today, kept = now.date(), timedelta(days=RAW_KEPT_DAYS)
    with context.database.begin() as connection:
        ensure_partitions(connection, today, today + timedelta(days=PARTITION_DAYS_AHEAD))
        TelemetryRepository(connection).forget_batches(now - kept)
        SiteMeterRepository(connection).prune(now - kept)
    with context.database.begin() as connection:
        drop_partitions_before(connection, today - kept)
