"""Nodes' schedules of the plans in force, held in memory: a stored plan never changes.

All nodes of a site ask for theirs at the same moment; the first one's question is the others'.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from pals_grid.core.budget import PowerEnvelope, Reason
from pals_grid.core.intervals import Interval
from pals_grid.store.tables import plan_interval, plan_share

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

SITES_HELD = 1000
_LOCKS = 64


@dataclass(frozen=True, slots=True)
class PlanSchedules:
    """One plan's: its intervals with their reasons and events, and each node's share of them.

    A share is the least and the most power in W and the tokens/s, by interval.
    """

    plan_id: int
    intervals: tuple[tuple[Interval, Reason, int | None], ...]
    shares: dict[int, tuple[array[float], array[float], array[float]]]

    def envelopes(self, node_id: int, from_at: datetime) -> list[PowerEnvelope]:
        """A node's, by time, those that end after ``from_at``; none where it has no share."""
        share = self.shares.get(node_id)
        if share is None:
            return []
        return [
            PowerEnvelope(node_id, interval, low_w, high_w, target, reason, event_id)
            for (interval, reason, event_id), low_w, high_w, target in zip(
                self.intervals, *share, strict=True
            )
            if interval.end_at > from_at
        ]


class ScheduleCache:
    """The last plan that was asked for of each site; safe to use by many threads."""

    def __init__(self, sites_held: int = SITES_HELD) -> None:
        self._sites_held = sites_held
        self._held: OrderedDict[int, PlanSchedules] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(_LOCKS)]

    def get(self, connection: Connection, site_id: int, plan_id: int) -> PlanSchedules:
        """Return a plan's schedules, from the database unless they are held."""
        found = self._find(site_id, plan_id)
        if found is not None:
            return found
        with self._loading[site_id % _LOCKS]:
            return self._find(site_id, plan_id) or self._load(connection, site_id, plan_id)

    def _find(self, site_id: int, plan_id: int) -> PlanSchedules | None:
        with self._lock:
            held = self._held.get(site_id)
            if held is None or held.plan_id != plan_id:
                return None
            self._held.move_to_end(site_id)
            return held

    def _load(self, connection: Connection, site_id: int, plan_id: int) -> PlanSchedules:
        made = load_schedules(connection, plan_id)
        with self._lock:
            # A transaction that began earlier may still ask for the plan before.
            held = self._held.get(site_id)
            if held is None or held.plan_id < plan_id:
                self._held[site_id] = made
            self._held.move_to_end(site_id)
            while len(self._held) > self._sites_held:
                self._held.popitem(last=False)
        return made


def load_schedules(connection: Connection, plan_id: int) -> PlanSchedules:
    """Read a plan's schedules; without shares where the previous release has made it."""
    during = plan_interval.c.during
    query = (
        select(
            func.lower(during).label("start_at"),
            func.upper(during).label("end_at"),
            plan_interval.c.reason,
            plan_interval.c.event_id,
        )
        .where(plan_interval.c.plan_id == plan_id)
        .order_by(during)
    )
    intervals = tuple(
        (Interval(row.start_at, row.end_at), Reason(row.reason), row.event_id)
        for row in connection.execute(query)
    )
    shares: dict[int, tuple[array[float], array[float], array[float]]] = {}
    for row in connection.execute(select(plan_share).where(plan_share.c.plan_id == plan_id)):
        numbers = (
            array("d", row.power_min_w),
            array("d", row.power_max_w),
            array("d", row.target_tokens_per_s),
        )
        shares.update(dict.fromkeys(row.node_ids, numbers))
    return PlanSchedules(plan_id, intervals, shares)
