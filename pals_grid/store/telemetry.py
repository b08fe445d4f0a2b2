"""Telemetry of the nodes: taken in exactly once, read back raw or as means over time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.store.demand import DEMAND_BIN, DemandRepository
from pals_grid.store.engine import lock
from pals_grid.store.ingest import check_batch, insert_engine_rows, insert_gpu_rows
from pals_grid.store.partitions import ensure_partitions
from pals_grid.store.power_series import PowerPoint, load_draw, load_mean_power, load_power_points
from pals_grid.store.tables import engine_row, ingest_batch, node
from pals_grid.wire.messages import EngineRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

    from pals_grid.wire.messages import TelemetryBatch

__all__ = ["PowerPoint", "StoredEngineRow", "TelemetryRepository"]

_ROW_FIELDS = EngineRow.__struct_fields__


LEAST_RECORD_S = 300.0
"""Demand is not judged by less than five minutes of rows."""


@dataclass(frozen=True, slots=True)
class StoredEngineRow:
    """An engine row with its node; ``key`` continues a listing after it."""

    node_id: int
    node: str
    row: EngineRow

    @property
    def key(self) -> tuple[datetime, int, str]:
        """What ``load_engine_rows`` takes as ``after``."""
        return (self.row.start_at, self.node_id, self.row.engine)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Sums of a site over one step."""

    start_at: datetime
    tokens_out: float
    requests_arrived: float
    requests_finished: float
    covered_s: float


class TelemetryRepository:
    """Over an open connection; never commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ingest(self, node_id: int, batch: TelemetryBatch, received_at: datetime) -> tuple[int, int]:
        """Take in a batch; how many engine and GPU rows were new.

        A batch that was taken in before changes nothing, and a row that came in another batch is
        not counted again. Missing partitions are made.

        Raises:
            InvalidValue: names the first row and field at fault; nothing has been written.
        """
        check_batch(batch, received_at)
        self._ensure_days(batch)
        # One batch of a node at a time: overlapping ones would wait for each other's rows.
        lock(self._connection, "ingest", node_id)
        if not self._claim(node_id, batch, received_at):
            return (0, 0)
        return (
            insert_engine_rows(self._connection, node_id, batch.engine_rows),
            insert_gpu_rows(self._connection, node_id, batch.gpu_rows),
        )

    def load_engine_rows(
        self,
        *,
        site_id: int,
        interval: Interval,
        node_id: int | None = None,
        limit: int,
        after: tuple[datetime, int, str] | None = None,
    ) -> list[StoredEngineRow]:
        """Raw rows that start inside ``interval``, by start, node and engine."""
        order = (engine_row.c.start_at, engine_row.c.node_id, engine_row.c.engine)
        query = (
            select(engine_row, node.c.name.label("node_name"))
            .join(node, node.c.id == engine_row.c.node_id)
            .where(
                node.c.site_id == site_id,
                engine_row.c.start_at >= interval.start_at,
                engine_row.c.start_at < interval.end_at,
            )
            .order_by(*order)
            .limit(limit)
        )
        if node_id is not None:
            query = query.where(engine_row.c.node_id == node_id)
        if after is not None:
            query = query.where(tuple_(*order) > tuple_(*after))
        return [_stored(row) for row in self._connection.execute(query).mappings()]

    def load_power_series(
        self, site_id: int, interval: Interval, step_s: float
    ) -> list[PowerPoint]:
        """Means of the site over steps; see ``load_power_points``."""
        return load_power_points(self._connection, site_id, interval, step_s)

    def load_demand_history(
        self, site_id: int, interval: Interval, step_s: float
    ) -> list[tuple[datetime, float]]:
        """Output tokens/s that the site's clients asked for over each step.

        Requests that arrived, times the mean output of those that finished over the whole
        interval: what was served would be too little whenever a limit or a deferral held work
        back. Where nodes report no arrivals, what was served. Steps with rows over less than
        five minutes are left out: too little to judge demand by.
        """
        found = self._load_demand(site_id, interval, timedelta(seconds=step_s))
        steps = [step for step in found if step.covered_s >= min(step_s, LEAST_RECORD_S)]
        finished = sum(step.requests_finished for step in steps)
        arrived = sum(step.requests_arrived for step in steps)
        if finished == 0 or arrived == 0:
            return [(step.start_at, step.tokens_out / step.covered_s) for step in steps]
        each = sum(step.tokens_out for step in steps) / finished
        return [(step.start_at, step.requests_arrived * each / step.covered_s) for step in steps]

    def _load_demand(self, site_id: int, interval: Interval, step: timedelta) -> list[_Asked]:
        """Read the sums that are kept of five minutes, and since the last of them the rows.

        The rows alone where steps are no multiples of five minutes.
        """
        demand = DemandRepository(self._connection)
        latest_at = None if step % DEMAND_BIN else demand.latest_at(site_id)
        fresh_at = interval.start_at
        kept: list[_Asked] = []
        if latest_at is not None and latest_at > interval.start_at:
            fresh_at = max(interval.start_at, min(floor_to(latest_at, step), interval.end_at))
        if fresh_at > interval.start_at:
            sums = demand.load(site_id, Interval(interval.start_at, fresh_at), step)
            kept = [_Asked(*row) for row in sums]
        if fresh_at >= interval.end_at:
            return kept
        fresh = Interval(fresh_at, interval.end_at)
        points = load_power_points(self._connection, site_id, fresh, step.total_seconds())
        return kept + [
            _Asked(
                point.start_at,
                point.tokens_out_per_s * point.covered_s,
                point.requests_arrived_per_s * point.covered_s,
                point.requests_finished_per_s * point.covered_s,
                point.covered_s,
            )
            for point in points
        ]

    def mean_site_power_w(self, site_id: int, interval: Interval) -> tuple[float, float] | None:
        """Mean power at node boundary in W, and the seconds covered; None without rows."""
        return load_mean_power(self._connection, site_id, interval)

    def load_draw(
        self, site_id: int, interval: Interval, seen_after: datetime
    ) -> tuple[float, float]:
        """Mean power of the nodes that are there, and whose share it is; see ``load_draw``."""
        return load_draw(self._connection, site_id, interval, seen_after)

    def forget_batches(self, before_at: datetime) -> int:
        """Delete the notes of batches received before; their rows stay. Returns how many."""
        change = delete(ingest_batch).where(ingest_batch.c.received_at < before_at)
        return self._connection.execute(change).rowcount

    def _ensure_days(self, batch: TelemetryBatch) -> None:
        starts = [row.start_at for row in batch.engine_rows]
        starts += [row.start_at for row in batch.gpu_rows]
        if starts:
            first, last = min(starts).astimezone(UTC), max(starts).astimezone(UTC)
            ensure_partitions(self._connection, first.date(), last.date())

    def _claim(self, node_id: int, batch: TelemetryBatch, received_at: datetime) -> bool:
        """Note the batch; False when it was taken in before."""
        statement = (
            insert(ingest_batch)
            .values(
                node_id=node_id,
                spool_id=batch.spool_id,
                seq=batch.seq,
                engine_rows=len(batch.engine_rows),
                gpu_rows=len(batch.gpu_rows),
                received_at=received_at,
            )
            .on_conflict_do_nothing()
            .returning(ingest_batch.c.seq)
        )
        return self._connection.execute(statement).first() is not None


def _stored(values: RowMapping) -> StoredEngineRow:
    counts = {name: int(values[name]) for name in _COUNTS}
    origins = {name: Origin(values[name]) for name in ("energy_origin", "node_energy_origin")}
    plain = {name: values[name] for name in _ROW_FIELDS}
    return StoredEngineRow(
        values["node_id"], values["node_name"], EngineRow(**plain | counts | origins)
    )


_COUNTS = (
    "ticks",
    "ticks_over_envelope",
    "requests_arrived",
    "requests_finished",
    "ttft_misses",
    "itl_misses",
)
