"""Nodes, their tokens and their last status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql

from pals_grid.core.errors import NotFound
from pals_grid.core.fleet import Node, NodeCapability, Origin, PowerCurve
from pals_grid.core.grant import Grant
from pals_grid.store.tables import enrolment_token, node, node_live
from pals_grid.wire.messages import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Row, Select

    from pals_grid.wire.messages import RegisterRequest

# One statement for the second-by-second sign of life: status, last seen, notification, and the
# node's grant with the lease that is left by the database's clock, which all replicas share. Its
# commit does not wait for the disk: a status is overwritten a second later, and lost in a crash by
# design; an acknowledgement that is lost with it was only ever of use to the book in memory.
# A status that a later one has overtaken changes nothing: what it does not acknowledge would seem
# to be forgotten. A node whose clock was set back is heard again after 60 s.
_RECORD_STATUS = text("""
    WITH was AS (
        SELECT last_seen_at FROM node WHERE id = :node_id
    ), live AS (
        INSERT INTO node_live (node_id, at, status) VALUES (:node_id, :at, CAST(:status AS jsonb))
        ON CONFLICT (node_id) DO UPDATE SET at = excluded.at, status = excluded.status
        WHERE CAST(excluded.status ->> 'at' AS timestamptz)
              >= CAST(node_live.status ->> 'at' AS timestamptz)
           OR excluded.at > node_live.at + interval '60 seconds'
    ), seen AS (
        UPDATE node SET last_seen_at = :at WHERE id = :node_id RETURNING site_id
    )
    SELECT was.last_seen_at, pg_notify('pals_grid', 'node:' || seen.site_id),
           set_config('synchronous_commit', 'off', true),
           power_grant.epoch, power_grant.sequence, power_grant.power_w,
           least(power_grant.lease_s,
                 extract(epoch FROM power_grant.ends_at - clock_timestamp()))::float8 AS left_s
    FROM was CROSS JOIN seen LEFT JOIN power_grant
         ON power_grant.node_id = :node_id AND power_grant.site_id = seen.site_id
""")

_BACKLOG = text("""
    SELECT coalesce(sum((engine ->> 'tokens_deferred')::float8), 0)
    FROM node JOIN node_live ON node_live.node_id = node.id,
         jsonb_array_elements(node_live.status -> 'engines') AS engine
    WHERE node.site_id = :site_id AND node.removed_at IS NULL AND node.last_seen_at > :seen_after
""")

# A throttled GPU draws no more than it does, whatever it may: that is off the node's most power.
_THROTTLED = text("""
    SELECT node.id, greatest(
        node.power_min_w,
        (live.status ->> 'node_power_w')::float8,
        node.power_max_w - (
            SELECT sum(greatest(0, coalesce(
                       (described ->> 'limit_max_w')::float8, (gpu ->> 'power_limit_w')::float8
                   ) - (gpu ->> 'power_draw_w')::float8))
            FROM jsonb_array_elements(live.status -> 'gpus') AS gpu
            LEFT JOIN jsonb_array_elements(node.gpus) AS described
                   ON described ->> 'uuid' = gpu ->> 'gpu_uuid'
            WHERE gpu -> 'clock_reasons' @> '["thermal"]'
        )
    ) AS limit_w
    FROM node JOIN node_live AS live ON live.node_id = node.id
    WHERE node.site_id = :site_id AND node.removed_at IS NULL AND node.last_seen_at > :seen_after
      AND live.status -> 'gpus' @> '[{"clock_reasons": ["thermal"]}]'
""")

# Silent for :patience now, but not yet so when its site's plan in force was made.
_NEWLY_OFFLINE = text("""
    SELECT node.site_id, array_agg(node.name ORDER BY node.name) AS names
    FROM node JOIN LATERAL (
        SELECT created_at FROM plan WHERE plan.site_id = node.site_id
        ORDER BY version DESC LIMIT 1
    ) AS plan ON true
    WHERE node.removed_at IS NULL
      AND node.last_seen_at <= CAST(:now AS timestamptz) - CAST(:patience AS interval)
      AND node.last_seen_at > plan.created_at - CAST(:patience AS interval)
    GROUP BY node.site_id ORDER BY node.site_id
""")


class NodeRepository:
    """Nodes over an open connection; one that was removed is only found by its reports."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_enrolment_token(self, site_id: int, token_sha256: bytes, at: datetime) -> None:
        """Store the digest of a token that lets nodes register at the site."""
        row = {"site_id": site_id, "token_sha256": token_sha256, "created_at": at}
        self._connection.execute(insert(enrolment_token).values(row))

    def load_enrolment(self, token_sha256: bytes) -> tuple[int, bytes] | None:
        """Site and stored digest of a valid enrolment token, or None."""
        query = select(enrolment_token.c.site_id, enrolment_token.c.token_sha256).where(
            enrolment_token.c.token_sha256 == token_sha256, enrolment_token.c.revoked_at.is_(None)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (row.site_id, row.token_sha256)

    def load_by_token(self, token_sha256: bytes) -> tuple[Node, bytes] | None:
        """Node and stored digest of a node token, or None."""
        query = _present().where(node.c.token_sha256 == token_sha256)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (_node(row), row.token_sha256)

    def upsert(
        self, site_id: int, request: RegisterRequest, token_sha256: bytes, at: datetime
    ) -> Node:
        """Store the node as it describes itself; the same name is the same node, removed or not."""
        values = {
            "token_sha256": token_sha256,
            "hardware": request.hardware,
            "origin": request.origin.value,
            "agent_version": request.agent_version,
            "gpus": msgspec.to_builtins(request.gpus),
            "models": list(request.models),
            "power_min_w": request.power_min_w,
            "power_max_w": request.power_max_w,
            "curve": msgspec.to_builtins(request.curve),
            "registered_at": at,
            "last_seen_at": at,
            "removed_at": None,
        }
        change = (
            postgresql.insert(node)
            .values(site_id=site_id, name=request.name, **values)
            .on_conflict_do_update(index_elements=["site_id", "name"], set_=values)
            .returning(node)
        )
        return _node(self._connection.execute(change).one())

    def find(self, site_id: int, name: str) -> Node | None:
        """Return the site's node of this name, or None."""
        query = _present().where(node.c.site_id == site_id, node.c.name == name)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _node(row)

    def remove(self, node_id: int, at: datetime) -> None:
        """Take a node out of use and forget its status; its row stays for its telemetry.

        Raises:
            NotFound: no such node.
        """
        change = update(node).where(node.c.id == node_id, node.c.removed_at.is_(None))
        if self._connection.execute(change.values(removed_at=at)).rowcount == 0:
            raise NotFound("node", node_id)
        self._connection.execute(delete(node_live).where(node_live.c.node_id == node_id))

    def record_status(
        self, node_id: int, status: bytes, at: datetime
    ) -> tuple[datetime | None, Grant | None]:
        """Overwrite the node's status (JSON), received ``at``, and tell the listeners.

        Returns when the node was seen before, and its grant with the lease that is left.
        """
        values = {"node_id": node_id, "at": at, "status": status.decode()}
        row = self._connection.execute(_RECORD_STATUS, values).one()
        if row.left_s is None or row.left_s <= 0:
            return row.last_seen_at, None
        return row.last_seen_at, Grant(row.epoch, row.sequence, row.power_w, row.left_s)

    def load(self, node_id: int) -> Node:
        """Return the node of this id.

        Raises:
            NotFound: no such node.
        """
        row = self._connection.execute(_present().where(node.c.id == node_id)).one_or_none()
        if row is None:
            raise NotFound("node", node_id)
        return _node(row)

    def total_power_max_w(self, site_id: int) -> float:
        """Sum of ``power_max_w`` over a site's nodes."""
        query = select(func.coalesce(func.sum(node.c.power_max_w), 0.0)).where(
            node.c.site_id == site_id, node.c.removed_at.is_(None)
        )
        return float(self._connection.execute(query).scalar_one())

    def load_acknowledged(self, node_ids: Collection[int]) -> dict[int, int]:
        """Version of the schedule that each of the nodes said last that it follows."""
        version = node_live.c.status["envelope_version"].as_integer()
        query = select(node_live.c.node_id, version).where(node_live.c.node_id.in_(node_ids))
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def load_live(self, node_id: int) -> tuple[Node, NodeStatus | None, datetime | None]:
        """Return the node, its last status and when that was received.

        Raises:
            NotFound: no such node.
        """
        row = self._connection.execute(_with_status().where(node.c.id == node_id)).one_or_none()
        if row is None:
            raise NotFound("node", node_id)
        return _live(row)

    def list_live_after(
        self, site_id: int, node_id: int | None, limit: int
    ) -> list[tuple[Node, NodeStatus | None, datetime | None]]:
        """Up to ``limit`` nodes of a site by id, those after ``node_id``, as ``load_live``."""
        query = _with_status().where(node.c.site_id == site_id).order_by(node.c.id).limit(limit)
        if node_id is not None:
            query = query.where(node.c.id > node_id)
        return [_live(row) for row in self._connection.execute(query)]

    def list_all(self, site_id: int) -> list[Node]:
        """Every node of a site, by id."""
        query = _present().where(node.c.site_id == site_id).order_by(node.c.id)
        return [_node(row) for row in self._connection.execute(query)]

    def list_newly_offline(self, now: datetime, patience: timedelta) -> dict[int, list[str]]:
        """Names, by site, of nodes unseen for ``patience`` that its plan still counts on."""
        rows = self._connection.execute(_NEWLY_OFFLINE, {"now": now, "patience": patience})
        return {row.site_id: row.names for row in rows}

    def load_throttled_w(self, site_id: int, seen_after: datetime) -> dict[int, float]:
        """Return what nodes can draw at most with a GPU throttled by its heat, in W, by node."""
        values = {"site_id": site_id, "seen_after": seen_after}
        rows = self._connection.execute(_THROTTLED, values)
        return {row.id: float(row.limit_w) for row in rows}

    def load_backlog_tokens(self, site_id: int, seen_after: datetime) -> float:
        """Output tokens of deferrable work at a site's nodes, those seen after ``seen_after``."""
        values = {"site_id": site_id, "seen_after": seen_after}
        return float(self._connection.execute(_BACKLOG, values).scalar_one())


def _present() -> Select[tuple[object, ...]]:
    return select(node).where(node.c.removed_at.is_(None))


def _with_status() -> Select[tuple[object, ...]]:
    query = select(node, node_live.c.status, node_live.c.at).outerjoin(node_live)
    return query.where(node.c.removed_at.is_(None))


def _live(row: Row[tuple[object, ...]]) -> tuple[Node, NodeStatus | None, datetime | None]:
    status = None if row.status is None else msgspec.convert(row.status, NodeStatus)
    return _node(row), status, row.at


def _node(row: Row[tuple[object, ...]]) -> Node:
    gpus: list[Mapping[str, object]] = row.gpus
    curve = PowerCurve(
        tuple(point["tokens_per_s"] for point in row.curve),
        tuple(point["power_w"] for point in row.curve),
    )
    return Node(
        id=row.id,
        site_id=row.site_id,
        name=row.name,
        hardware=row.hardware,
        gpu_model=", ".join(sorted({str(gpu["model"]) for gpu in gpus})),
        gpu_count=len(gpus),
        models=tuple(row.models),
        origin=Origin(row.origin),
        capability=NodeCapability(row.id, row.name, row.power_min_w, row.power_max_w, curve),
        registered_at=row.registered_at,
        last_seen_at=row.last_seen_at,
    )
