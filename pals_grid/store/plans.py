"""A site's plans, version by version: what they saw and their intervals."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, select, text

from pals_grid.core.budget import Finding, Plan, PowerBudget
from pals_grid.core.errors import NotFound
from pals_grid.store.plan_rows import input_row, interval_row, read_input, read_interval
from pals_grid.store.tables import feed, plan, plan_input, plan_interval
from pals_grid.store.tables import node as node_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from pals_grid.core.budget import BudgetInterval, PlanInput
    from pals_grid.core.intervals import Interval
    from pals_grid.core.site import Site

THINNED_AT_ONCE = 100_000

# Rows of the previous release name their interval, and go before it.
_THIN = text("""
    WITH old AS (
        SELECT id, lead(created_at) OVER (ORDER BY version) AS replaced_at,
               max(version) OVER () - version AS behind
        FROM plan WHERE site_id = :site_id
    ), never AS (
        SELECT item.plan_id, item.during
        FROM old JOIN plan_interval AS item ON item.plan_id = old.id
        WHERE old.behind >= :keep AND lower(item.during) >= old.replaced_at
          AND NOT EXISTS (SELECT FROM envelope_row WHERE envelope_row.plan_id = old.id)
        LIMIT :at_once
    )
    DELETE FROM plan_interval USING never
    WHERE plan_interval.plan_id = never.plan_id AND plan_interval.during = never.during
""")


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
            "findings": msgspec.to_builtins(budget.findings),
            "created_at": created_at,
        }
        plan_id = self._connection.execute(insert(plan).values(row).returning(plan.c.id)).scalar()
        assert plan_id is not None
        if inputs:
            self._connection.execute(insert(plan_input), [input_row(plan_id, i) for i in inputs])
        rows = [interval_row(plan_id, item) for item in budget.intervals]
        self._connection.execute(insert(plan_interval), rows)
        return Plan(plan_id, site.id, version, created_at, trigger, tuple(inputs), budget)

    def thin(self, site_id: int, keep: int) -> int:
        """Of a site's plans but the last ``keep`` delete what never came into force.

        Those are the intervals that begin when the next plan was made already. Returns how many.
        """
        values = {"site_id": site_id, "keep": keep, "at_once": THINNED_AT_ONCE}
        return self._connection.execute(_THIN, values).rowcount

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
        site_id = select(node_table.c.site_id).where(node_table.c.id == node_id).scalar_subquery()
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
            budget=PowerBudget(
                row.planner,
                self._load_intervals(row.id),
                msgspec.convert(row.findings, tuple[Finding, ...]),
            ),
        )

    def load_findings(self, site_id: int) -> tuple[Finding, ...]:
        """Return what the plan in force could not keep; nothing without a plan."""
        query = select(plan.c.findings).where(plan.c.site_id == site_id)
        found = self._connection.execute(query.order_by(plan.c.version.desc()).limit(1)).scalar()
        return () if found is None else msgspec.convert(found, tuple[Finding, ...])

    def load_expected_power_w(self, site_id: int, before: Interval) -> float | None:
        """Return what the site was expected to draw when ``before`` ended.

        By the last plan that was made since it began and covers that instant.
        """
        query = (
            select(plan_interval.c.expected_power_w)
            .join(plan, plan.c.id == plan_interval.c.plan_id)
            .where(
                plan.c.site_id == site_id,
                plan.c.created_at >= before.start_at,
                plan_interval.c.during.contains(before.end_at - timedelta.resolution),
            )
            .order_by(plan.c.version.desc())
            .limit(1)
        )
        return self._connection.execute(query).scalar()

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

    def list_made(self, site_id: int, since: datetime) -> list[tuple[int, int, datetime]]:
        """Version, id and time of a site's plans from the one in force at ``since`` on."""
        first = (
            select(func.coalesce(func.max(plan.c.version), 0))
            .where(plan.c.site_id == site_id, plan.c.created_at <= since)
            .scalar_subquery()
        )
        query = (
            select(plan.c.version, plan.c.id, plan.c.created_at)
            .where(plan.c.site_id == site_id, plan.c.version >= first)
            .order_by(plan.c.version)
        )
        return [(row.version, row.id, row.created_at) for row in self._connection.execute(query)]

    def find_id(self, site_id: int, version: int) -> int | None:
        """Return the id of a version of a site's plan, or None."""
        query = select(plan.c.id).where(plan.c.site_id == site_id, plan.c.version == version)
        return self._connection.execute(query).scalar()

    def _load_inputs(self, plan_id: int) -> tuple[PlanInput, ...]:
        query = (
            select(plan_input, feed.c.name, feed.c.quantity)
            .join(feed)
            .where(plan_input.c.plan_id == plan_id)
            .order_by(plan_input.c.feed_id)
        )
        return tuple(read_input(row) for row in self._connection.execute(query))

    def _load_intervals(self, plan_id: int) -> tuple[BudgetInterval, ...]:
        query = select(plan_interval).where(plan_interval.c.plan_id == plan_id)
        rows = self._connection.execute(query.order_by(plan_interval.c.during))
        return tuple(read_interval(row) for row in rows)
