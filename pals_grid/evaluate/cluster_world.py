"""A made-up cluster in a database: sites, their nodes, a week of their demand, prices, carbon.

Everything is synthetic, and written as rows: registering 10,000 nodes one by one plans as often.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.core.feed import Feed, FeedHealth
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import floor_to
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.core.site import SitePolicy
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.wire.messages import CurvePoint, GpuDescription, RegisterRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pals_grid.store.engine import Database

KINDS = 3
"""Kinds of machine at a site; machines of a kind have the same curve."""

SLOT_S = 300.0
HORIZON_S = 48 * 3600.0
FLOOR_W, MOST_W, MOST_TOKENS_PER_S = 1200.0, 6000.0, 9000.0

# One row a node and minute, as telemetry of 5 s would have left it.
_MINUTES = text("""
    INSERT INTO engine_minute (node_id, engine, model, start_at, gpu_energy_j, node_energy_j,
        idle_energy_j, tokens_in, tokens_out, requests_arrived, requests_finished, ttft_misses,
        itl_misses, ticks, ticks_over_envelope, energy_origin, node_energy_origin,
        power_draw_max_w, duration_s, power_limit_j, rows)
    SELECT node.id, 'e0', 'llama', at, 2.4e5, 3e5, 0, 3e5, 6e4 * level, 300 * level, 300 * level,
           0, 0, 120, 0, 'simulated', 'simulated', 5000, 60, 3.6e5, 12
    FROM node, generate_series(CAST(:start_at AS timestamptz), CAST(:end_at AS timestamptz),
                               interval '1 minute') AS at,
         LATERAL (SELECT 1 + 0.5 * sin(extract(epoch FROM at) / 13751) AS level) AS shape
    WHERE node.site_id = :site_id
    ON CONFLICT DO NOTHING
""")

_DEMAND = text("""
    INSERT INTO site_demand
    SELECT :site_id, at, 3e5 * :nodes * level, 1500 * :nodes * level, 1500 * :nodes * level, 300
    FROM generate_series(CAST(:start_at AS timestamptz), CAST(:end_at AS timestamptz),
                         interval '5 minutes') AS at,
         LATERAL (SELECT 1 + 0.5 * sin(extract(epoch FROM at) / 13751) AS level) AS shape
    WHERE at < :end_at
""")


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """How much to make.

    ``history_days`` of sums by five minutes of a site, the last ``minutes`` of sums by minute.
    """

    sites: int
    nodes_per_site: int
    history_days: float = 7.0
    minutes: float = 15.0
    slot_s: float = SLOT_S
    horizon_s: float = HORIZON_S


def node_token(site: int, node: int) -> str:
    """Token of a made-up node; both count from 0."""
    return f"bench-{site}-{node}"


def fill_cluster(database: Database, size: ClusterSize, now: datetime | None = None) -> list[int]:
    """Make the cluster; returns the sites' ids."""
    at = now or datetime.now(UTC)
    return [_fill_site(database, size, number, at) for number in range(size.sites)]


def _fill_site(database: Database, size: ClusterSize, number: int, now: datetime) -> int:
    with database.begin() as connection:
        site_id = SiteRepository(connection).insert(_policy(size, number), now).id
        nodes = NodeRepository(connection)
        for node in range(size.nodes_per_site):
            digest = hashlib.sha256(node_token(number, node).encode()).digest()
            nodes.upsert(site_id, _registration(node), digest, now)
        for quantity in (Quantity.PRICE, Quantity.AVERAGE_INTENSITY):
            _add_feed(connection, site_id, quantity, now, size.horizon_s)
        late_at = floor_to(now - timedelta(minutes=size.minutes), timedelta(minutes=5))
        start_at = floor_to(now - timedelta(days=size.history_days), timedelta(minutes=5))
        values = {"site_id": site_id, "start_at": start_at, "end_at": late_at}
        connection.execute(_DEMAND, {**values, "nodes": size.nodes_per_site})
        connection.execute(_MINUTES, {**values, "start_at": late_at, "end_at": now})
    return site_id


def _policy(size: ClusterSize, number: int) -> SitePolicy:
    most_w = size.nodes_per_site * MOST_W
    return SitePolicy(
        slug=f"site-{number}",
        name=f"Site {number}",
        grid_connection_w=0.9 * most_w,
        minimum_w=0.0,
        safe_limit_w=0.5 * most_w,
        carbon_price_per_tonne=60.0,
        deferrable_ratio=0.3,
        demand_tokens_per_s=0.5 * size.nodes_per_site * MOST_TOKENS_PER_S,
        slot_s=size.slot_s,
        horizon_s=size.horizon_s,
    )


def _registration(node: int) -> RegisterRequest:
    scale = 1 + node % KINDS / 10
    points = ((0.0, FLOOR_W), (0.6 * MOST_TOKENS_PER_S, 3200.0), (MOST_TOKENS_PER_S, MOST_W))
    return RegisterRequest(
        name=f"node-{node:05d}",
        hardware="synthetic",
        agent_version="bench",
        origin=Origin.SIMULATED,
        gpus=[
            GpuDescription(
                uuid=f"GPU-{node}-{gpu}",
                model="H100",
                limit_min_w=200,
                limit_max_w=700,
                limit_default_w=700,
            )
            for gpu in range(8)
        ],
        models=["llama"],
        power_min_w=FLOOR_W * scale,
        power_max_w=MOST_W * scale,
        curve=[CurvePoint(tokens_per_s=rate, power_w=power * scale) for rate, power in points],
    )


def _add_feed(
    connection: Connection, site_id: int, quantity: Quantity, now: datetime, horizon_s: float
) -> None:
    """A feed that knows every half-hour from a day ago to the end of the horizon."""
    feed = FeedRepository(connection).insert(
        Feed(
            id=0,
            site_id=site_id,
            name=quantity.value,
            connector="synthetic",
            quantity=quantity,
            options={},
            secret_ref=None,
            poll_s=86_400.0,
            stale_after_s=30 * 86_400.0,
            created_at=now,
        )
    )
    # Nobody is asked: what is known is written below.
    known = FeedHealth(last_success_at=now, next_attempt_at=now + timedelta(days=1))
    FeedRepository(connection).record_health(feed.id, known)
    step = timedelta(minutes=30)
    start_at = floor_to(now, step) - timedelta(days=1)
    unit = "EUR/MWh" if quantity is Quantity.PRICE else "gCO2eq/kWh"
    count = int((horizon_s + 2 * 86_400) / step.total_seconds())
    values = [
        Observation(
            start_at + i * step,
            start_at + (i + 1) * step,
            80 + 40 * math.sin(i / 7) + site_id % 10,
            unit,
            ValueKind.FORECAST,
            now,
        )
        for i in range(count)
    ]
    ObservationRepository(connection).add(feed.id, values, now)
