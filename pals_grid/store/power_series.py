"""Power and throughput of a site over time, from the source that is fine and cheap enough.

Mean power is energy over the time that rows cover, added up over engines that report at the
same time; a gap in all of them lowers nothing, a node that is away counts as nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import Double, cast, extract, func, select

from pals_grid.core.intervals import EPOCH
from pals_grid.store.partitions import oldest_partition_day
from pals_grid.store.tables import engine_hour, engine_minute, engine_row, node

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select, Table

    from pals_grid.core.intervals import Interval

_RAW_MEAN_UP_TO_S = 6 * 3600.0


class Source(Enum):
    """Where a series comes from; the value is the shortest step in seconds."""

    RAW = 5
    MINUTE = 60
    HOUR = 3600


@dataclass(frozen=True, slots=True)
class PowerPoint:
    """Means of a site over one step, at node and at GPU boundary.

    ``power_limit_w`` sums the limits of the GPUs; ``covered_s`` is the time that rows cover.
    """

    start_at: datetime
    node_power_w: float
    gpu_power_w: float
    tokens_out_per_s: float
    power_limit_w: float
    requests_arrived_per_s: float
    requests_finished_per_s: float
    covered_s: float


def load_power_points(
    connection: Connection, site_id: int, interval: Interval, step_s: float
) -> list[PowerPoint]:
    """Means over steps on the epoch's grid; steps without any row are left out.

    Where only roll-ups are left, the step is raised to a multiple of theirs.
    """
    source = _pick_source(connection, interval, step_s)
    step = timedelta(seconds=math.ceil(step_s / source.value) * source.value)
    fine = step if source is Source.RAW else timedelta(seconds=source.value)
    bins = _bins(site_id, interval, source, fine).subquery()
    start_at = func.date_bin(step, bins.c.start_at, EPOCH).label("start_at")
    covered_s = func.sum(bins.c.covered_s)
    means = [func.sum(bins.c[name]) / covered_s for name in _SUMS]
    query = select(start_at, *means, covered_s).group_by(start_at).order_by(start_at)
    return [PowerPoint(*row) for row in connection.execute(query)]


def load_mean_power(
    connection: Connection, site_id: int, interval: Interval
) -> tuple[float, float] | None:
    """Mean power at node boundary in W and the seconds that rows cover; None without rows."""
    short = interval.duration_s <= _RAW_MEAN_UP_TO_S
    source = _pick_source(connection, interval, 5.0 if short else 60.0)
    bins = _bins(site_id, interval, source, timedelta(minutes=1)).subquery()
    query = select(func.sum(bins.c.node_energy_j), func.sum(bins.c.covered_s))
    energy_j, covered_s = connection.execute(query).one()
    return (energy_j / covered_s, covered_s) if covered_s else None


def load_draw(
    connection: Connection, site_id: int, interval: Interval, seen_after: datetime
) -> tuple[float, float]:
    """Mean power in W of a site's nodes seen after ``seen_after``, from whole minutes.

    Only nodes that reported in ``interval`` count; the second figure is their share of all those
    nodes' most power, 0 to 1.
    """
    energy_j, duration_s = engine_minute.c.node_energy_j, engine_minute.c.duration_s
    engines = (
        select(
            engine_minute.c.node_id,
            (func.sum(energy_j) / func.sum(duration_s)).label("power_w"),
        )
        .join(node, node.c.id == engine_minute.c.node_id)
        .where(
            node.c.site_id == site_id,
            engine_minute.c.start_at >= interval.start_at,
            engine_minute.c.start_at < interval.end_at,
        )
        .group_by(engine_minute.c.node_id, engine_minute.c.engine)
        .subquery()
    )
    nodes = (
        select(engines.c.node_id, func.sum(engines.c.power_w).label("power_w"))
        .group_by(engines.c.node_id)
        .subquery()
    )
    heard_w = func.sum(node.c.power_max_w).filter(nodes.c.node_id.is_not(None))
    query = (
        select(
            func.coalesce(func.sum(nodes.c.power_w), 0.0),
            func.coalesce(heard_w / func.nullif(func.sum(node.c.power_max_w), 0.0), 0.0),
        )
        .select_from(node)
        .outerjoin(nodes, nodes.c.node_id == node.c.id)
        .where(
            node.c.site_id == site_id,
            node.c.removed_at.is_(None),
            node.c.last_seen_at > seen_after,
        )
    )
    power_w, heard_ratio = connection.execute(query).one()
    return power_w, heard_ratio


_COUNTS = ("requests_arrived", "requests_finished")
_SUMS = ("node_energy_j", "gpu_energy_j", "tokens_out", "power_limit_j", *_COUNTS)


def _pick_source(connection: Connection, interval: Interval, step_s: float) -> Source:
    on_the_hour = interval.start_at.timestamp() % 3600 == 0
    if step_s % 3600 == 0 and on_the_hour:
        return Source.HOUR
    if step_s % 60 == 0:
        return Source.MINUTE
    oldest = oldest_partition_day(connection)
    kept = oldest is not None and oldest <= interval.start_at.date()
    return Source.RAW if kept else Source.MINUTE


def _bins(
    site_id: int, interval: Interval, source: Source, width: timedelta
) -> Select[tuple[object, ...]]:
    """Sums of the site over bins of ``width``, with the time covered by its busiest reporter."""
    table, duration_s, power_limit_j = _columns(source)
    start_at = func.date_bin(width, table.c.start_at, EPOCH).label("start_at")
    engines = (
        select(
            start_at,
            func.sum(table.c.node_energy_j).label("node_energy_j"),
            func.sum(table.c.gpu_energy_j).label("gpu_energy_j"),
            func.sum(table.c.tokens_out).label("tokens_out"),
            func.sum(power_limit_j).label("power_limit_j"),
            *(func.sum(table.c[name]).label(name) for name in _COUNTS),
            func.sum(duration_s).label("duration_s"),
        )
        .join(node, node.c.id == table.c.node_id)
        .where(
            node.c.site_id == site_id,
            table.c.start_at >= interval.start_at,
            table.c.start_at < interval.end_at,
        )
        .group_by(start_at, table.c.node_id, table.c.engine)
        .subquery()
    )
    sums = [func.sum(engines.c[name]).label(name) for name in _SUMS]
    covered_s = func.max(engines.c.duration_s).label("covered_s")
    return select(engines.c.start_at, *sums, covered_s).group_by(engines.c.start_at)


def _columns(source: Source) -> tuple[Table, ColumnElement[float], ColumnElement[float]]:
    if source is Source.RAW:
        duration_s = cast(extract("epoch", engine_row.c.end_at - engine_row.c.start_at), Double)
        return engine_row, duration_s, engine_row.c.power_limit_w * duration_s
    table = engine_hour if source is Source.HOUR else engine_minute
    return table, table.c.duration_s, table.c.power_limit_j
