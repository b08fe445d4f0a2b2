"""Grants as they are handed out: one row a node, written by the holder of the site's epoch alone.

All times here are the database's own clock, so that a lease is what an allocator reckoned with
whoever hands it out, and however late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

# The lock on the lease keeps a taker of the site waiting, or shows that there was one.
_WRITE = text("""
    WITH held AS (
        SELECT site_id, epoch FROM site_lease
        WHERE holder = :holder AND site_id = ANY(:held_sites) FOR SHARE
    ), made AS (
        SELECT * FROM unnest(
            CAST(:node_ids AS bigint[]), CAST(:site_ids AS bigint[]), CAST(:epochs AS bigint[]),
            CAST(:sequences AS bigint[]), CAST(:powers_w AS float8[]),
            CAST(:leases_s AS float8[]), CAST(:ends_s AS float8[])
        ) AS made (node_id, site_id, epoch, sequence, power_w, lease_s, ends_s)
    )
    INSERT INTO power_grant (node_id, site_id, epoch, sequence, power_w, lease_s, ends_at)
    SELECT node_id, site_id, epoch, sequence, power_w, lease_s, to_timestamp(ends_s)
    FROM made JOIN held USING (site_id, epoch)
    ON CONFLICT (node_id) DO UPDATE SET
        site_id = excluded.site_id, epoch = excluded.epoch, sequence = excluded.sequence,
        power_w = excluded.power_w, lease_s = excluded.lease_s, ends_at = excluded.ends_at
    WHERE (power_grant.epoch, power_grant.sequence) < (excluded.epoch, excluded.sequence)
    RETURNING node_id
""")


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant of a node as an allocator made it; ``ends_s`` is on the database's clock."""

    node_id: int
    site_id: int
    epoch: int
    sequence: int
    power_w: float
    lease_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class NodeGrant:
    """What a node was granted last, and until when by the database's clock."""

    epoch: int
    sequence: int
    power_w: float
    ends_at: datetime


def load_clock_s(connection: Connection) -> float:
    """The database's clock, in seconds since 1970."""
    query = text("SELECT extract(epoch FROM clock_timestamp())::float8")
    return float(connection.execute(query).scalar_one())


class PowerGrantRepository:
    """Grants over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, holder: str, rows: Sequence[GrantRow]) -> int:
        """Store the grants of the sites whose epoch ``holder`` still holds; returns how many."""
        if not rows:
            return 0
        values = {
            "holder": holder,
            "held_sites": sorted({row.site_id for row in rows}),
            "node_ids": [row.node_id for row in rows],
            "site_ids": [row.site_id for row in rows],
            "epochs": [row.epoch for row in rows],
            "sequences": [row.sequence for row in rows],
            "powers_w": [row.power_w for row in rows],
            "leases_s": [row.lease_s for row in rows],
            "ends_s": [row.ends_s for row in rows],
        }
        return len(self._connection.execute(_WRITE, values).all())

    def clear(self, site_ids: Collection[int]) -> None:
        """Hand out nothing more at these sites; what nodes hold runs out by itself."""
        query = text("DELETE FROM power_grant WHERE site_id = ANY(:site_ids)")
        self._connection.execute(query, {"site_ids": list(site_ids)})

    def load_of(self, node_ids: Collection[int]) -> dict[int, NodeGrant]:
        """Grants of these nodes that have not run out, by node."""
        query = text("""
            SELECT node_id, epoch, sequence, power_w, ends_at FROM power_grant
            WHERE node_id = ANY(:node_ids) AND ends_at > clock_timestamp()
        """)
        rows = self._connection.execute(query, {"node_ids": list(node_ids)})
        return {
            row.node_id: NodeGrant(row.epoch, row.sequence, row.power_w, row.ends_at)
            for row in rows
        }
