"""What live rounds read, for all sites at once: last statuses, plans in force, shares soon."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import text

from pals_grid.core.fleet import Origin

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row

PLANS_BACK = 16

_NODES = text("""
    SELECT node.id AS node_id, node.site_id, node.registered_at, node.last_seen_at,
           live.at AS said_at, CAST(live.status - 'gpus' AS text) AS status
    FROM node LEFT JOIN node_live AS live ON live.node_id = node.id
    WHERE node.site_id = ANY(:site_ids) AND node.removed_at IS NULL
    ORDER BY node.site_id, node.id
""")
_PLANS = text("""
    SELECT site.id AS site_id, newest.* FROM site CROSS JOIN LATERAL (
        SELECT id AS plan_id, version, created_at FROM plan
        WHERE plan.site_id = site.id ORDER BY version DESC LIMIT :most
    ) AS newest
    WHERE site.id = ANY(:site_ids) ORDER BY site.id, newest.version
""")
_LIMITS = text("""
    SELECT plan_id, extract(epoch FROM lower(during))::float8 AS start_s,
           extract(epoch FROM upper(during))::float8 AS end_s, limit_w
    FROM plan_interval
    WHERE plan_id = ANY(:plan_ids) AND during && tstzrange(:from_at, :to_at)
    ORDER BY plan_id, during
""")
# Of each array only what is asked for is looked at; the previous release's plans have rows.
_SHARES = text("""
    SELECT share.plan_id, one.node_id,
           extract(epoch FROM share.edges[at])::float8 AS start_s,
           extract(epoch FROM share.edges[at + 1])::float8 AS end_s,
           share.power_max_w[at] AS power_max_w,
           share.target_tokens_per_s[at] AS target_tokens_per_s
    FROM plan_share AS share
    CROSS JOIN LATERAL generate_series(
        greatest(1, width_bucket(CAST(:from_at AS timestamptz), share.edges)),
        least(cardinality(share.edges) - 1,
              width_bucket(CAST(:to_at AS timestamptz), share.edges))
    ) AS at
    CROSS JOIN LATERAL unnest(share.node_ids) AS one (node_id)
    WHERE share.plan_id = ANY(:plan_ids) AND share.edges[at] < :to_at
    UNION ALL
    SELECT plan_id, node_id, extract(epoch FROM lower(during))::float8,
           extract(epoch FROM upper(during))::float8, power_max_w, target_tokens_per_s
    FROM envelope_row
    WHERE plan_id = ANY(:plan_ids) AND during && tstzrange(:from_at, :to_at)
""")


class LiveEngine(msgspec.Struct, frozen=True):
    """What a round needs of an engine's status."""

    requests_running: int
    requests_waiting: int
    tokens_out_per_s: float
    requests_deferred: int = 0


class LiveStatus(msgspec.Struct, frozen=True):
    """What a round needs of a node's status."""

    mode: str
    envelope_version: int
    node_power_w: float
    engines: list[LiveEngine]
    takes_grants: bool = False
    grant_epoch: int = 0
    grant_sequence: int = 0
    node_power_origin: Origin = Origin.MODELLED


class LiveNode(msgspec.Struct, frozen=True):
    """A node and what it said last, received at ``said_at``; both None where nothing is known."""

    node_id: int
    site_id: int
    registered_at: datetime
    last_seen_at: datetime | None
    said_at: datetime | None
    status: LiveStatus | None


class PlanKey(msgspec.Struct, frozen=True):
    """A version of a site's plan."""

    plan_id: int
    version: int
    created_at: datetime


_read_status = msgspec.json.Decoder(LiveStatus).decode


class LiveSiteRepository:
    """Questions about many sites over an open connection, each one query."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load_nodes(self, site_ids: Collection[int]) -> dict[int, list[LiveNode]]:
        """Return the nodes in use of each site, by id, with what they said last."""
        found: dict[int, list[LiveNode]] = {site_id: [] for site_id in site_ids}
        rows = self._connection.execute(_NODES, {"site_ids": list(site_ids)})
        for node_id, site_id, registered_at, seen_at, said_at, status in rows:
            said = None if status is None else _read_status(status)
            found[site_id].append(LiveNode(node_id, site_id, registered_at, seen_at, said_at, said))
        return found

    def load_plans(self, site_ids: Collection[int]) -> dict[int, list[PlanKey]]:
        """Return the newest plans of each site, oldest of them first, ``PLANS_BACK`` at most."""
        found: dict[int, list[PlanKey]] = {site_id: [] for site_id in site_ids}
        values = {"site_ids": list(site_ids), "most": PLANS_BACK}
        for row in self._connection.execute(_PLANS, values):
            found[row.site_id].append(PlanKey(row.plan_id, row.version, row.created_at))
        return found

    def load_limits(
        self, plan_ids: Collection[int], from_at: datetime, to_at: datetime
    ) -> list[Row[int, float, float, float]]:
        """Rows of plan, start, end (s since 1970) and limit in W, by plan and time."""
        values = {"plan_ids": list(plan_ids), "from_at": from_at, "to_at": to_at}
        return list(self._connection.execute(_LIMITS, values))

    def load_shares(
        self, plan_ids: Collection[int], from_at: datetime, to_at: datetime
    ) -> list[Row[int, int, float, float, float, float]]:
        """Rows of plan, node, start, end (s since 1970), most power in W, target in tokens/s."""
        values = {"plan_ids": list(plan_ids), "from_at": from_at, "to_at": to_at}
        return list(self._connection.execute(_SHARES, values))
