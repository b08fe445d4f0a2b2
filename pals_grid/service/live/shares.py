"""What plans allow soon: limits of sites and shares of nodes, kept while they are of use."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pals_grid.store.live_sites import LiveSiteRepository

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.allocator.fleet_arrays import Flags, Floats, Indices

AHEAD = timedelta(minutes=15)
RENEWED_BEFORE = timedelta(minutes=3)


@dataclass(frozen=True, slots=True, eq=False)
class PlanShares:
    """A plan from some time on: T intervals, M nodes. Times are wall clock, s since 1970.

    ``power_w`` and ``target_tokens_per_s`` are (T, M), the others (T,).
    """

    start_s: Floats
    end_s: Floats
    limit_w: Floats
    power_w: Floats
    target_tokens_per_s: Floats
    rows: dict[int, int]
    known_until: datetime

    def during(self, from_s: float, to_s: float) -> Flags:
        """Intervals that touch ``[from_s, to_s)``."""
        found: Flags = (self.start_s < to_s) & (self.end_s > from_s)
        return found

    def covers(self, from_s: float, to_s: float) -> bool:
        """Whether the plan lasts all the time: after its end nodes go back to their safe limits."""
        found = self.during(from_s, to_s)
        return bool(
            found.any() and self.start_s[found].min() <= from_s and self.end_s[found].max() >= to_s
        )

    def edges_s(self, from_s: float, to_s: float) -> list[float]:
        """Instants inside ``(from_s, to_s)`` at which what is allowed may change."""
        edges = np.unique(np.concatenate([self.start_s, self.end_s]))
        return [float(edge) for edge in edges if from_s < edge < to_s]

    def indices(self, node_ids: Collection[int]) -> Indices:
        """Columns of these nodes; -1 for one that the plan does not know."""
        return np.array([self.rows.get(node_id, -1) for node_id in node_ids], dtype=np.intp)

    def most_w(self, columns: Indices, safe_w: Floats, from_s: float, to_s: float) -> Floats:
        """Return the most that nodes may draw at any time of ``[from_s, to_s)``, in W."""
        found = self.during(from_s, to_s)
        if not found.any() or self.power_w.shape[1] == 0:
            return safe_w.copy()
        power_w = self.power_w[found].max(axis=0)[columns]
        power_w = np.where(columns < 0, safe_w, power_w)
        return power_w if self.covers(from_s, to_s) else np.maximum(power_w, safe_w)

    def targets(self, columns: Indices, at_s: float) -> Floats:
        """Throughput to which nodes fill up with work that may wait, in tokens/s."""
        found = np.flatnonzero(self.during(at_s, at_s + 1e-3))
        if len(found) == 0 or self.target_tokens_per_s.shape[1] == 0:
            return np.zeros(len(columns))
        return np.where(columns < 0, 0.0, self.target_tokens_per_s[found[0]][columns])

    def least_limit_w(self, safe_w: float, from_s: float, to_s: float) -> float:
        """Return the least that the site may draw at any time of ``[from_s, to_s)``, in W."""
        found = self.during(from_s, to_s)
        limits = [*self.limit_w[found].tolist(), *([] if self.covers(from_s, to_s) else [safe_w])]
        return float(min(limits))


class ShareCache:
    """Plans' next quarter of an hour, loaded once for all sites."""

    def __init__(self) -> None:
        self._held: dict[int, PlanShares] = {}

    def load(
        self, connection: Connection, plan_ids: Collection[int], now: datetime
    ) -> dict[int, PlanShares]:
        """Return these plans from ``now`` on; others are forgotten."""
        self._held = {
            plan_id: self._held[plan_id]
            for plan_id in plan_ids
            if plan_id in self._held and self._held[plan_id].known_until - RENEWED_BEFORE > now
        }
        missing = [plan_id for plan_id in plan_ids if plan_id not in self._held]
        if missing:
            self._held.update(_load(connection, missing, now))
        return self._held


def _load(
    connection: Connection, plan_ids: Collection[int], now: datetime
) -> dict[int, PlanShares]:
    live, to_at = LiveSiteRepository(connection), now + AHEAD
    limits: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for plan_id, start_s, end_s, limit_w in live.load_limits(plan_ids, now, to_at):
        limits[plan_id].append((start_s, end_s, limit_w))
    shares: dict[int, list[_Share]] = defaultdict(list)
    for row in live.load_shares(plan_ids, now, to_at):
        shares[row[0]].append(_Share(row[1], row[2], row[3], row[4], row[5]))
    return {plan_id: _plan_shares(limits[plan_id], shares[plan_id], to_at) for plan_id in plan_ids}


class _Share(NamedTuple):
    node_id: int
    start_s: float
    end_s: float
    power_max_w: float
    target_tokens_per_s: float


def _plan_shares(
    limits: Sequence[tuple[float, float, float]], shares: Sequence[_Share], known_until: datetime
) -> PlanShares:
    """Lay out a plan; nothing is allowed to the site where only nodes' shares are known."""
    spans = {(start_s, end_s): limit_w for start_s, end_s, limit_w in limits}
    for share in shares:
        spans.setdefault((share.start_s, share.end_s), 0.0)
    times = {span: i for i, span in enumerate(sorted(spans))}
    rows = {node_id: i for i, node_id in enumerate(dict.fromkeys(one.node_id for one in shares))}
    power_w, targets = np.zeros((2, len(times), len(rows)))
    for share in shares:
        at = times[share.start_s, share.end_s], rows[share.node_id]
        power_w[at], targets[at] = share.power_max_w, share.target_tokens_per_s
    return PlanShares(
        start_s=np.array([start_s for start_s, _ in times]),
        end_s=np.array([end_s for _, end_s in times]),
        limit_w=np.array([spans[span] for span in times]),
        power_w=power_w,
        target_tokens_per_s=targets,
        rows=rows,
        known_until=known_until,
    )
