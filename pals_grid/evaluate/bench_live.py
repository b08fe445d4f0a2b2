"""What live rounds of ten thousand nodes cost, reads and writes of the database included.

Nodes, plans and statuses are made up in the database of a scratch server; the rounds are the
service's own, five seconds apart, and every grant is acknowledged before the next.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from sqlalchemy import text

from pals_grid.core.clock import SystemClock
from pals_grid.core.site import LiveGrants, SitePolicy
from pals_grid.evaluate.grants_nodes import make_fleet
from pals_grid.evaluate.scratch import scratch_database
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.live.allocating import LiveAllocator
from pals_grid.service.sites import create_site

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.fleet import NodeCapability
    from pals_grid.store.engine import Database

SPACE_S = 5.0

_NODE = text("""
    INSERT INTO node (site_id, name, token_sha256, hardware, origin, agent_version, gpus, models,
        power_min_w, power_max_w, curve, registered_at, last_seen_at)
    VALUES (:site_id, :name, :token, 'bench', 'simulated', '1', '[]', '[]',
        :power_min_w, :power_max_w, :curve, now(), now()) RETURNING id
""")
_PLAN = text("""
    WITH made AS (
        INSERT INTO plan (site_id, version, planner, trigger, policy, created_at)
        VALUES (:site_id, 1, 'bench', 'bench', '{}', now()) RETURNING id
    ), slots AS (
        SELECT id AS plan_id, tstzrange(at, at + interval '30 min') AS during
        FROM made, generate_series(CAST(:from_at AS timestamptz),
            CAST(:from_at AS timestamptz) + interval '2 h', interval '30 min') AS at
    )
    INSERT INTO plan_interval (plan_id, during, limit_w, reason, explanation, demand_tokens_per_s,
        planned_tokens_per_s, expected_power_w, shortfall_tokens_per_s)
    SELECT plan_id, during, :limit_w, 'demand', '', 0, 0, 0, 0 FROM slots
""")
_ENVELOPES = text("""
    INSERT INTO envelope (plan_id, node_id, during, power_min_w, power_max_w, target_tokens_per_s)
    SELECT plan_id, node.id, during, node.power_min_w,
           node.power_min_w + 0.5 * (node.power_max_w - node.power_min_w), 0
    FROM plan_interval JOIN plan ON plan.id = plan_id JOIN node USING (site_id)
""")
_SAY = text("""
    INSERT INTO node_live (node_id, at, status)
    SELECT said.node_id, clock_timestamp(), CAST(said.status AS jsonb) || jsonb_build_object(
        'grant_epoch', coalesce(power_grant.epoch, 0),
        'grant_sequence', coalesce(power_grant.sequence, 0))
    FROM unnest(CAST(:node_ids AS bigint[]), CAST(:statuses AS text[])) AS said (node_id, status)
    LEFT JOIN power_grant ON power_grant.node_id = said.node_id
    ON CONFLICT (node_id) DO UPDATE SET at = excluded.at, status = excluded.status
""")


@dataclass(frozen=True, slots=True)
class LiveCost:
    """CPU of the service's process and time by the wall clock, in ms, of the rounds measured."""

    sites: int
    nodes: int
    cpu_p50_ms: float
    cpu_max_ms: float
    wall_p50_ms: float
    wall_max_ms: float
    granted: int


class LiveBench:
    """``nodes`` spread over ``sites``, all of them reporting."""

    def __init__(self, database: Database, sites: int, nodes: int) -> None:
        self._database = database
        self._rng = np.random.default_rng(1)
        clock = SystemClock()
        registry = ConnectorRegistry({})
        self._context = Context(database, clock, registry, RecordedHttp({}), plan_power_budget)
        fleet = make_fleet(nodes, 1)
        self._fleet: dict[int, NodeCapability] = {}
        from_at = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        for i, part in enumerate(np.array_split(np.arange(nodes), sites)):
            self._add_site(i, [fleet[j] for j in part], from_at)
        with database.begin() as connection:
            connection.execute(_ENVELOPES)

    def _add_site(self, number: int, part: list[NodeCapability], from_at: datetime) -> None:
        most_w = sum(node.power_max_w for node in part)
        least_w = sum(node.power_min_w for node in part)
        policy = SitePolicy(
            slug=f"s{number}",
            name="bench",
            grid_connection_w=most_w,
            minimum_w=0.0,
            safe_limit_w=least_w,
            live_grants=LiveGrants.ON,
        )
        site = create_site(self._context, policy)
        values = {"site_id": site.id, "from_at": from_at, "limit_w": (most_w + least_w) / 2}
        with self._database.begin() as connection:
            for node in part:
                self._fleet[_add_node(connection, site.id, node)] = node
            connection.execute(_PLAN, values)

    def say(self) -> None:
        """Let every node report, with work of its own, and hold what it was granted."""
        statuses = []
        for node in self._fleet.values():
            load = float(self._rng.uniform(0.05, 1.1)) * node.curve.max_tokens_per_s
            statuses.append(json.dumps(_status(load, node.curve.power_w_at(load))))
        values = {"node_ids": list(self._fleet), "statuses": statuses}
        with self._database.begin() as connection:
            connection.execute(text("UPDATE node SET last_seen_at = clock_timestamp()"))
            connection.execute(_SAY, values)

    def measure(self, rounds: int, space_s: float = SPACE_S) -> LiveCost:
        """Cost of ``rounds``, after some in which leases are taken and everything is loaded."""
        allocator = LiveAllocator(self._context, "bench")
        for _ in range(2):
            self.say()
            allocator.round()
        for site in allocator.sites.values():
            site.book.quiet_until_s = 0.0
        cpu_ms, wall_ms, granted, sites, nodes = [], [], 0, 0, 0
        for _ in range(rounds):
            begun_s = time.monotonic()
            self.say()
            cpu_s, wall_s = time.process_time(), time.monotonic()
            done = allocator.round()
            cpu_ms.append(1e3 * (time.process_time() - cpu_s))
            wall_ms.append(1e3 * (time.monotonic() - wall_s))
            granted, sites, nodes = granted + done.granted, done.sites, done.nodes
            time.sleep(max(0.0, begun_s + space_s - time.monotonic()))
        return LiveCost(
            sites, nodes, median(cpu_ms), max(cpu_ms), median(wall_ms), max(wall_ms), granted
        )


def measure_live(sites: int, nodes: int, rounds: int, space_s: float = SPACE_S) -> LiveCost:
    """Measure on a database of its own."""
    with scratch_database(None) as database:
        return LiveBench(database, sites, nodes).measure(rounds, space_s)


def show_live(nodes: int = 10_000, rounds: int = 10) -> None:
    """Print what rounds cost, at one site and at 300."""
    click.echo(f"\nlive rounds of {nodes} nodes, embedded Postgres: p50 and most")
    for sites in (1, 300):
        cost = measure_live(sites, nodes, rounds)
        cpu = f"{cost.cpu_p50_ms:.0f}, {cost.cpu_max_ms:.0f} ms"
        wall = f"{cost.wall_p50_ms:.0f}, {cost.wall_max_ms:.0f} ms"
        click.echo(
            f"{cost.sites} sites: CPU of the service {cpu}; wall clock {wall}; "
            f"{cost.granted / rounds:.0f} grants a round"
        )


def _add_node(connection: Connection, site_id: int, node: NodeCapability) -> int:
    points = zip(node.curve.tokens_per_s, node.curve.power_w, strict=True)
    curve = [{"tokens_per_s": tokens, "power_w": power_w} for tokens, power_w in points]
    values = {
        "site_id": site_id,
        "name": node.name,
        "token": f"{site_id}/{node.name}".encode(),
        "power_min_w": node.power_min_w,
        "power_max_w": node.power_max_w,
        "curve": json.dumps(curve),
    }
    return int(connection.execute(_NODE, values).scalar_one())


def _status(tokens_per_s: float, power_w: float) -> dict[str, Any]:
    """As an agent of eight GPUs sends it."""
    gpu = {"power_draw_w": 500.0, "power_limit_w": 700.0, "temperature_c": 60.0}
    engine = {
        "engine": "e0",
        "model": "bench",
        "power_limit_w": 5600.0,
        "power_draw_w": power_w,
        "max_num_seqs": 256,
        "requests_running": 100,
        "requests_waiting": 0,
        "tokens_out_per_s": tokens_per_s,
        "gpu_energy_j_per_token": 1.0,
        "reason": "least energy inside the objectives",
    }
    return {
        "at": "2026-01-01T00:00:00Z",
        "mode": "following",
        "envelope_version": 1,
        "power_envelope_w": power_w,
        "node_power_w": 0.5 * power_w,
        "node_power_origin": "simulated",
        "gpu_power_w": 0.4 * power_w,
        "tick_lag_ms": 1.0,
        "engines": [engine],
        "gpus": [{"gpu_uuid": f"GPU-{i}", **gpu} for i in range(8)],
        "takes_grants": True,
    }


if __name__ == "__main__":
    show_live()
