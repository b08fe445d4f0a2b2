"""Plans, what they saw, their intervals and each node's envelopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import Range

from pals_grid.core.budget import (
    BudgetInterval,
    Plan,
    PlanInput,
    PowerBudget,
    PowerEnvelope,
    Reason,
)
from pals_grid.core.errors import NotFound
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.store.tables import envelope, feed, node, plan, plan_input, plan_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from pals_grid.core.site import Site

_INTERVAL_NUMBERS = (
    "limit_w",
    "price_per_mwh",
    "carbon_g_per_kwh",
    "demand_tokens_per_s",
    "planned_tokens_per_s",
    "expected_power_w",
    "shortfall_tokens_per_s",
)


class PlanRepository:
    """Plans over an open connection. Whoever adds one holds the site's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(
        self,
        site: Site,
        budget: PowerBudget,
        inputs: Sequence[PlanInput],
        trigger: str,
        created_at: datetime,
    ) -> Plan:
        """Store the next version of a site's plan."""
        held = self.latest_key(site.id)
        version = held[1] + 1 if held else 1
        row = {
            "site_id": site.id,
            "version": version,
            "planner": budget.planner,
            "trigger": trigger,
            "policy": msgspec.to_builtins(site.policy),
            "created_at": created_at,
        }
        plan_id = self._connection.execute(insert(plan).values(row).returning(plan.c.id)).scalar()
        assert plan_id is not None
        if inputs:
            self._connection.execute(insert(plan_input), [_input_row(plan_id, i) for i in inputs])
        rows = [_interval_row(plan_id, item) for item in budget.intervals]
        self._connection.execute(insert(plan_interval), rows)
        return Plan(plan_id, site.id, version, created_at, trigger, tuple(inputs), budget)

    def insert_envelopes(self, plan_id: int, envelopes: Sequence[PowerEnvelope]) -> None:
        """Store the nodes' shares of a plan; each spans one of its intervals exactly."""
        rows = [
            {
                "plan_id": plan_id,
                "node_id": item.node_id,
                "during": _during(item.interval),
                "power_min_w": item.power_min_w,
                "power_max_w": item.power_max_w,
                "target_tokens_per_s": item.target_tokens_per_s,
            }
            for item in envelopes
        ]
        if rows:
            self._connection.execute(insert(envelope), rows)

    def latest_key(self, site_id: int) -> tuple[int, int] | None:
        """Return id and version of the plan in force, or None without a plan."""
        query = select(plan.c.id, plan.c.version).where(plan.c.site_id == site_id)
        row = self._connection.execute(query.order_by(plan.c.version.desc()).limit(1)).one_or_none()
        return None if row is None else (row.id, row.version)

    def latest_created_at(self, site_id: int) -> datetime | None:
        """Return when the plan in force was made, or None without a plan."""
        query = select(plan.c.created_at).where(plan.c.site_id == site_id)
        return self._connection.execute(query.order_by(plan.c.version.desc()).limit(1)).scalar()

    def latest_version_for_node(self, node_id: int) -> int | None:
        """Return the version in force at the node's site, or None without a plan."""
        site_id = select(node.c.site_id).where(node.c.id == node_id).scalar_subquery()
        query = select(func.max(plan.c.version)).where(plan.c.site_id == site_id)
        return self._connection.execute(query).scalar()

    def load(self, site_id: int, version: int | None = None) -> Plan:
        """Return a version of a site's plan, the latest by default.

        Raises:
            NotFound: no such plan.
        """
        query = select(plan).where(plan.c.site_id == site_id)
        if version is not None:
            query = query.where(plan.c.version == version)
        row = self._connection.execute(query.order_by(plan.c.version.desc()).limit(1)).one_or_none()
        if row is None:
            raise NotFound("plan", "latest" if version is None else version)
        return Plan(
            id=row.id,
            site_id=row.site_id,
            version=row.version,
            created_at=row.created_at,
            trigger=row.trigger,
            inputs=self._load_inputs(row.id),
            budget=PowerBudget(row.planner, self._load_intervals(row.id)),
        )

    def list_before(
        self, site_id: int, version: int | None, limit: int
    ) -> list[Row[int, datetime, str, str, int]]:
        """Up to ``limit`` plans, newest first, those before ``version``.

        Rows of version, created_at, planner, trigger and the number of intervals.
        """
        count = (
            select(func.count())
            .where(plan_interval.c.plan_id == plan.c.id)
            .scalar_subquery()
            .label("intervals")
        )
        query = (
            select(plan.c.version, plan.c.created_at, plan.c.planner, plan.c.trigger, count)
            .where(plan.c.site_id == site_id)
            .order_by(plan.c.version.desc())
            .limit(limit)
        )
        if version is not None:
            query = query.where(plan.c.version < version)
        return list(self._connection.execute(query))

    def load_envelopes(
        self, plan_id: int, *, node_id: int | None = None, from_at: datetime | None = None
    ) -> list[PowerEnvelope]:
        """Envelopes of a plan by time and node, those that end after ``from_at``."""
        query = (
            select(envelope, plan_interval.c.reason, plan_interval.c.event_id)
            .join(plan_interval)
            .where(envelope.c.plan_id == plan_id)
            .order_by(envelope.c.during, envelope.c.node_id)
        )
        if node_id is not None:
            query = query.where(envelope.c.node_id == node_id)
        if from_at is not None:
            query = query.where(func.upper(envelope.c.during) > from_at)
        return [_envelope(row) for row in self._connection.execute(query)]

    def _load_inputs(self, plan_id: int) -> tuple[PlanInput, ...]:
        query = (
            select(plan_input, feed.c.name, feed.c.quantity)
            .join(feed)
            .where(plan_input.c.plan_id == plan_id)
            .order_by(plan_input.c.feed_id)
        )
        return tuple(_input(row) for row in self._connection.execute(query))

    def _load_intervals(self, plan_id: int) -> tuple[BudgetInterval, ...]:
        query = select(plan_interval).where(plan_interval.c.plan_id == plan_id)
        rows = self._connection.execute(query.order_by(plan_interval.c.during))
        return tuple(_interval(row) for row in rows)


def _during(interval: Interval) -> Range[datetime]:
    return Range(interval.start_at, interval.end_at, bounds="[)")


def _input_row(plan_id: int, item: PlanInput) -> dict[str, object]:
    return {
        "plan_id": plan_id,
        "feed_id": item.feed_id,
        "as_of": item.as_of,
        "latest_known_at": item.latest_known_at,
        "values": item.values,
        "coverage_ratio": item.coverage_ratio,
        "kinds": [kind.value for kind in item.kinds],
    }


def _input(row: Row[tuple[object, ...]]) -> PlanInput:
    return PlanInput(
        feed_id=row.feed_id,
        feed=row.name,
        quantity=Quantity(row.quantity),
        as_of=row.as_of,
        latest_known_at=row.latest_known_at,
        values=row._mapping["values"],  # noqa: SLF001 - public by its documentation
        coverage_ratio=row.coverage_ratio,
        kinds=tuple(ValueKind(kind) for kind in row.kinds),
    )


def _interval_row(plan_id: int, item: BudgetInterval) -> dict[str, object]:
    return {
        "plan_id": plan_id,
        "during": _during(item.interval),
        "reason": item.reason.value,
        "explanation": item.explanation,
        "event_id": item.event_id,
        **{name: getattr(item, name) for name in _INTERVAL_NUMBERS},
    }


def _interval(row: Row[tuple[object, ...]]) -> BudgetInterval:
    return BudgetInterval(
        interval=Interval(row.during.lower, row.during.upper),
        reason=Reason(row.reason),
        explanation=row.explanation,
        event_id=row.event_id,
        **{name: getattr(row, name) for name in _INTERVAL_NUMBERS},
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
