"""Who decides about which site's grants: leases of sites, by the database's clock.

A lease that runs out may be taken by another replica, with a higher epoch. Safety hangs on the
epoch alone (``store.grants``); the length of the lease only says how soon a site goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.core.site import LiveGrants

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

LEASE_S = 15.0
FORGOTTEN_S = 3600.0
_WANTED = [LiveGrants.ON.value, LiveGrants.DRY_RUN.value]

_ANNOUNCE = text("""
    INSERT INTO allocator (name, seen_at, sites, nodes, round_s)
    VALUES (:holder, clock_timestamp(), :sites, :nodes, :round_s)
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, sites = excluded.sites,
        nodes = excluded.nodes, round_s = excluded.round_s
""")
_FORGET = text("""
    DELETE FROM allocator WHERE seen_at < clock_timestamp() - make_interval(secs => :age_s)
""")
_ADD = text("""
    INSERT INTO site_lease (site_id, holder, epoch, until_at)
    SELECT id, NULL, 0, clock_timestamp() FROM site WHERE policy ->> 'live_grants' = ANY(:wanted)
    ON CONFLICT DO NOTHING
""")
_COUNTS = text("""
    SELECT (SELECT count(*) FROM site WHERE policy ->> 'live_grants' = ANY(:wanted)) AS sites,
           (SELECT count(*) FROM allocator
            WHERE seen_at > clock_timestamp() - make_interval(secs => :age_s)) AS allocators
""")
_RENEW = text("""
    UPDATE site_lease SET until_at = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE holder = :holder RETURNING site_id, epoch
""")
# An epoch follows the clock, too: a database restored from a backup must not repeat one.
_NEXT_EPOCH = "greatest(site_lease.epoch + 1, floor(extract(epoch FROM clock_timestamp()))::bigint)"
_CLAIM = text(f"""
    WITH free AS (
        SELECT site_lease.site_id FROM site_lease JOIN site ON site.id = site_lease.site_id
        WHERE site_lease.until_at <= clock_timestamp()
          AND site.policy ->> 'live_grants' = ANY(:wanted)
        ORDER BY site_lease.until_at, site_lease.site_id LIMIT :most
        FOR UPDATE OF site_lease SKIP LOCKED
    )
    UPDATE site_lease SET holder = :holder, epoch = {_NEXT_EPOCH},
        until_at = clock_timestamp() + make_interval(secs => :lease_s)
    FROM free WHERE site_lease.site_id = free.site_id
    RETURNING site_lease.site_id, site_lease.epoch
""")  # noqa: S608 - of constants
_BEGIN_ANEW = text(f"""
    UPDATE site_lease SET epoch = {_NEXT_EPOCH}
    WHERE holder = :holder RETURNING site_id, epoch
""")  # noqa: S608 - of constants
_RELEASE = text("""
    UPDATE site_lease SET holder = NULL, until_at = clock_timestamp()
    WHERE holder = :holder AND site_id = ANY(:site_ids)
""")


@dataclass(frozen=True, slots=True)
class Shares:
    """Sites that want grants, and replicas that may decide about them."""

    sites: int
    allocators: int

    @property
    def fair(self) -> int:
        """How many sites each replica should have at most."""
        return -(-self.sites // max(1, self.allocators))


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that makes live rounds, and what its last pass over its sites came to."""

    name: str
    sites: int
    nodes: int
    round_s: float


def load_replicas(connection: Connection) -> list[Replica]:
    """Return the replicas that were there within the length of a lease, by name."""
    query = text("""
        SELECT name, sites, nodes, round_s FROM allocator
        WHERE seen_at > clock_timestamp() - make_interval(secs => :age_s) ORDER BY name
    """)
    rows = connection.execute(query, {"age_s": LEASE_S})
    return [Replica(row.name, row.sites, row.nodes, row.round_s) for row in rows]


class SiteLeaseRepository:
    """Leases of sites over an open connection, for one holder."""

    def __init__(self, connection: Connection, holder: str) -> None:
        self._connection = connection
        self._holder = holder

    def announce(self, sites: int, nodes: int, round_s: float) -> Shares:
        """Say that this replica is there, and what its last pass came to.

        Returns what there is to share, and among how many.
        """
        said = {"holder": self._holder, "sites": sites, "nodes": nodes, "round_s": round_s}
        self._connection.execute(_ANNOUNCE, said)
        self._connection.execute(_FORGET, {"age_s": FORGOTTEN_S})
        self._connection.execute(_ADD, {"wanted": _WANTED})
        values = {"wanted": _WANTED, "age_s": LEASE_S}
        row = self._connection.execute(_COUNTS, values).one()
        return Shares(row.sites, row.allocators)

    def renew(self) -> dict[int, int]:
        """Prolong all leases; returns the epochs by site: what is not among them is lost."""
        values = {"holder": self._holder, "lease_s": LEASE_S}
        rows = self._connection.execute(_RENEW, values)
        return {row.site_id: row.epoch for row in rows}

    def claim(self, most: int) -> dict[int, int]:
        """Take up to ``most`` sites that nobody holds; returns their new epochs by site."""
        if most <= 0:
            return {}
        values = {
            "holder": self._holder,
            "lease_s": LEASE_S,
            "wanted": _WANTED,
            "most": most,
        }
        rows = self._connection.execute(_CLAIM, values)
        return {row.site_id: row.epoch for row in rows}

    def begin_anew(self) -> dict[int, int]:
        """Take a new epoch for every site held; returns them by site."""
        rows = self._connection.execute(_BEGIN_ANEW, {"holder": self._holder})
        return {row.site_id: row.epoch for row in rows}

    def release(self, site_ids: Collection[int]) -> None:
        """Let sites go, so that another may take them at once."""
        values = {"holder": self._holder, "site_ids": list(site_ids)}
        self._connection.execute(_RELEASE, values)

    def leave(self) -> None:
        """Let all sites go and be counted no longer."""
        self.release(self.renew())
        self._connection.execute(
            text("DELETE FROM allocator WHERE name = :holder"), {"holder": self._holder}
        )
