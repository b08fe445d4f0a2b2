"""What a plan grants each node: shares, read as envelopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, func, insert, select, text

from pals_grid.core.budget import PowerEnvelope, Reason
from pals_grid.core.intervals import Interval
from pals_grid.store.plans import PlanRepository
from pals_grid.store.tables import SHARE_NUMBERS, envelope, plan_interval, plan_share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from pals_grid.core.budget import NodeShare, Plan

_FORGET_SHARES = text("""
    WITH old AS (
        SELECT id FROM plan
        WHERE site_id = :site_id AND created_at < :before_at
          AND version < (SELECT max(version) FROM plan WHERE site_id = :site_id)
    ), gone AS (
        DELETE FROM envelope_row USING old WHERE plan_id = old.id
    )
    DELETE FROM plan_share USING old WHERE plan_id = old.id
""")


class EnvelopeRepository:
    """Nodes' envelopes over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_shares(self, plan: Plan, shares: Sequence[NodeShare]) -> None:
        """Store the nodes' shares of a plan; each has a value for each of its intervals."""
        spans = [item.interval for item in plan.budget.intervals]
        edges = [span.start_at for span in spans] + [spans[-1].end_at]
        rows = [
            {
                "plan_id": plan.id,
                "number": number,
                "node_ids": list(item.node_ids),
                "edges": edges,
                **{name: list(getattr(item, name)) for name in SHARE_NUMBERS},
            }
            for number, item in enumerate(shares)
        ]
        if rows:
            self._connection.execute(insert(plan_share), rows)

    def forget_shares(self, site_id: int, before_at: datetime) -> None:
        """Delete the nodes' shares of a site's plans made before, but of the one in force."""
        values = {"site_id": site_id, "before_at": before_at}
        self._connection.execute(_FORGET_SHARES, values)

    def load(
        self, plan_id: int, *, node_id: int | None = None, from_at: datetime | None = None
    ) -> list[PowerEnvelope]:
        """Envelopes of a plan by time and node, those that end after ``from_at``."""
        query = (
            select(envelope, plan_interval.c.reason, plan_interval.c.event_id)
            .join(plan_interval, _of_interval())
            .where(envelope.c.plan_id == plan_id)
            .order_by(envelope.c.during, envelope.c.node_id)
        )
        if node_id is not None:
            query = query.where(envelope.c.node_id == node_id)
        if from_at is not None:
            query = query.where(func.upper(envelope.c.during) > from_at)
        return [_envelope(row) for row in self._connection.execute(query)]

    def load_present(self, site_id: int, at: datetime) -> dict[int, PowerEnvelope]:
        """Return what the plan in force allows each node of a site at an instant, by node."""
        key = PlanRepository(self._connection).latest_key(site_id)
        if key is None:
            return {}
        query = (
            select(envelope, plan_interval.c.reason, plan_interval.c.event_id)
            .join(plan_interval, _of_interval())
            .where(envelope.c.plan_id == key[0], envelope.c.during.op("@>")(at))
        )
        found = map(_envelope, self._connection.execute(query))
        return {item.node_id: item for item in found}

    def load_grants(
        self, plan_id: int, from_at: datetime
    ) -> dict[int, tuple[tuple[Interval, float], ...]]:
        """By node and in order of time what a plan grants it in W, ends after ``from_at`` alone."""
        found: dict[int, tuple[tuple[Interval, float], ...]] = {}
        query = select(plan_share.c.node_ids, plan_share.c.edges, plan_share.c.power_max_w)
        for row in self._connection.execute(query.where(plan_share.c.plan_id == plan_id)):
            spans = zip(row.edges, row.edges[1:], row.power_max_w, strict=False)
            grants = tuple((Interval(a, b), power_w) for a, b, power_w in spans if b > from_at)
            found.update(dict.fromkeys(row.node_ids, grants))
        return found or self._load_row_grants(plan_id, from_at)

    def _load_row_grants(
        self, plan_id: int, from_at: datetime
    ) -> dict[int, tuple[tuple[Interval, float], ...]]:
        """As ``load_grants``, of a plan that the previous release has made."""
        grants: dict[int, list[tuple[Interval, float]]] = {}
        for item in self.load(plan_id, from_at=from_at):
            grants.setdefault(item.node_id, []).append((item.interval, item.power_max_w))
        return {node_id: tuple(spans) for node_id, spans in grants.items()}


def _of_interval() -> ColumnElement[bool]:
    return and_(
        envelope.c.plan_id == plan_interval.c.plan_id, envelope.c.during == plan_interval.c.during
    )


def _envelope(row: Row[tuple[object, ...]]) -> PowerEnvelope:
    return PowerEnvelope(
        node_id=row.node_id,
        interval=Interval(row.during.lower, row.during.upper),
        power_min_w=row.power_min_w,
        power_max_w=row.power_max_w,
        target_tokens_per_s=row.target_tokens_per_s,
        reason=Reason(row.reason),
        event_id=row.event_id,
    )
