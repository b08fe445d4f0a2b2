"""What nodes fall back to without a grant: the highest of the schedules that they may follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.intervals import Interval
from pals_grid.service.reservations import ONLINE_FOR_PLANNING, is_online, reserve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.allocator.fleet_arrays import Floats
    from pals_grid.core.fleet import Node
    from pals_grid.core.site import Site
    from pals_grid.service.live.shares import PlanShares
    from pals_grid.service.reservations import Reservation
    from pals_grid.store.live_sites import LiveNode, PlanKey


@dataclass(frozen=True, slots=True)
class Spans:
    """The present and the time from the next change on, up to the horizon; wall clock, in s."""

    now_s: float
    step_s: float
    end_s: float

    @property
    def both(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Begin and end of either; the second is empty where nothing changes."""
        return (self.now_s, self.step_s), (self.step_s, self.end_s)


@dataclass(frozen=True, slots=True, eq=False)
class Fallbacks:
    """``now_w`` and ``next_w`` (N,) in W; ``behind`` counts nodes without the newest plan."""

    now_w: Floats
    next_w: Floats
    behind: int


def may_follow(seen: LiveNode, plans: Sequence[PlanKey], now: datetime) -> range | None:
    """Indices in ``plans`` of what a node may follow that is online; None where nobody knows.

    Versions only rise at a node: the one that it said last, and what was made since. Without one
    it may have fetched any that was in force since shortly before it said so.
    """
    version = seen.status.envelope_version if seen.status is not None else 0
    if not plans:
        return range(0) if version == 0 else None
    last = plans[-1].version
    if version == last:
        return range(len(plans) - 1, len(plans))
    if version == 0:
        since = (seen.last_seen_at or now) - ONLINE_FOR_PLANNING
        older = [i for i, plan in enumerate(plans) if plan.created_at <= since]
        if not older and plans[0].version > 1:
            return None
        return range(older[-1] if older else 0, len(plans))
    if not plans[0].version <= version < last:
        return None
    return range(version - plans[0].version, len(plans))


class SilentNodes:
    """Reservations of nodes that are not heard of, kept until they are heard again."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[datetime | None, Reservation]] = {}

    def load(
        self,
        connection: Connection,
        site: Site,
        silent: Sequence[Node],
        fleet: Sequence[Node],
        now: datetime,
    ) -> None:
        """Keep those of ``silent``."""
        known = {
            node.id: self._held[node.id]
            for node in silent
            if node.id in self._held and self._held[node.id][0] == node.last_seen_at
        }
        missing = [node for node in silent if node.id not in known]
        found = reserve(connection, site, missing, fleet, now) if missing else {}
        known.update({node.id: (node.last_seen_at, found[node.id]) for node in missing})
        self._held = known

    def most_w(self, node_id: int, from_s: float, to_s: float) -> float | None:
        """Return the most that a silent node may draw meanwhile; None where it is not loaded."""
        held = self._held.get(node_id)
        if held is None:
            return None
        interval = Interval(datetime.fromtimestamp(from_s, UTC), datetime.fromtimestamp(to_s, UTC))
        return held[1].power_w_in(interval)


@dataclass(frozen=True, slots=True, eq=False)
class SiteSchedules:
    """A site's nodes, N of them in the order of ``seen``, and the plans that they may follow."""

    nodes: Sequence[Node]
    seen: Sequence[LiveNode]
    plans: Sequence[PlanKey]
    shares: Mapping[int, PlanShares]
    safe_w: Floats
    silent: SilentNodes

    def fallbacks(self, spans: Spans, now: datetime) -> Fallbacks:
        """Return the most that each node's schedules may allow, inside what it can draw at all."""
        most_w = np.array([node.capability.power_max_w for node in self.nodes])
        least_w = np.array([node.capability.power_min_w for node in self.nodes])
        found_w = np.stack([most_w, most_w])
        groups: dict[tuple[range, bool], list[int]] = {}
        behind = 0
        for row, seen in enumerate(self.seen):
            if not is_online(seen.last_seen_at, now):
                self._of_silent(found_w, row, seen.node_id, spans)
                continue
            has_plan = seen.status is not None and seen.status.envelope_version > 0
            following = may_follow(seen, self.plans, now)
            behind += following is None or len(following) > 1
            if following is not None:
                groups.setdefault((following, has_plan), []).append(row)
        for (following, has_plan), rows in groups.items():
            found_w[:, rows] = self._of_plans(following, rows, spans)
            if not has_plan:  # it may have none yet
                found_w[:, rows] = np.maximum(found_w[:, rows], self.safe_w[rows])
        now_w, next_w = np.maximum(least_w, np.minimum(most_w, found_w))
        return Fallbacks(now_w, next_w, behind)

    def targets(self, at_s: float) -> Floats:
        """Throughput to which the newest plan fills nodes up with work that may wait, (N,)."""
        if not self.plans:
            return np.zeros(len(self.seen))
        plan = self.shares[self.plans[-1].plan_id]
        return plan.targets(plan.indices([one.node_id for one in self.seen]), at_s)

    def _of_silent(self, found_w: Floats, row: int, node_id: int, spans: Spans) -> None:
        for span, (from_s, to_s) in enumerate(spans.both):
            held_w = self.silent.most_w(node_id, from_s, to_s) if to_s > from_s else 0.0
            if held_w is not None:
                found_w[span, row] = held_w

    def _of_plans(self, following: range, rows: list[int], spans: Spans) -> Floats:
        """(2, rows): the most of any of these plans, or the safe limit where there is none."""
        safe_w, node_ids = self.safe_w[rows], [self.seen[row].node_id for row in rows]
        found_w = np.zeros((2, len(rows)))
        if len(following) == 0:
            return np.maximum(found_w, safe_w)
        for index in following:
            plan = self.shares[self.plans[index].plan_id]
            columns = plan.indices(node_ids)
            for span, (from_s, to_s) in enumerate(spans.both):
                if to_s > from_s:
                    most_w = plan.most_w(columns, safe_w, from_s, to_s)
                    found_w[span] = np.maximum(found_w[span], most_w)
        return found_w
