"""What nodes may draw that no new envelope reaches: kept free until their schedules end."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.service.envelopes import share_of_safe_limit_w
from pals_grid.store.envelopes import EnvelopeRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.plans import PlanRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.fleet import Node
    from pals_grid.core.intervals import Interval
    from pals_grid.core.site import Site

ONLINE_FOR_PLANNING = timedelta(seconds=60)
LONGEST_SCHEDULE = timedelta(days=8)


Schedule: TypeAlias = "tuple[tuple[Interval, float], ...]"


@dataclass(frozen=True, slots=True)
class Reservation:
    """One silent node's: the most that any schedule it may hold allows at a time.

    Each of ``schedules``, in order of time, grants power from now to its own end; after that, and
    where there is none, the node draws ``safe_w``. It draws at least ``least_w`` and at most
    ``most_w``, whatever it was granted.
    """

    schedules: tuple[Schedule, ...]
    safe_w: float
    least_w: float
    most_w: float

    def power_w_in(self, interval: Interval) -> float:
        """Return the most that the node may draw at any time of ``interval``."""
        granted = [
            power_w
            for schedule in self.schedules or ((),)
            for power_w in self._powers_w(schedule, interval)
        ]
        return max(self.least_w, min(self.most_w, max(granted)))

    def _powers_w(self, schedule: Schedule, interval: Interval) -> list[float]:
        """What one schedule allows during an interval; the safe limit from its end on."""
        first = bisect_right(schedule, interval.start_at, key=_end_at)
        last = bisect_left(schedule, interval.end_at, key=_start_at)
        found = [power_w for _, power_w in schedule[first:last]]
        end_at = schedule[-1][0].end_at if schedule else interval.start_at
        return found if found and interval.end_at <= end_at else [*found, self.safe_w]


def _start_at(grant: tuple[Interval, float]) -> datetime:
    return grant[0].start_at


def _end_at(grant: tuple[Interval, float]) -> datetime:
    return grant[0].end_at


def is_online(seen_at: datetime | None, now: datetime) -> bool:
    """Whether a plan made ``now`` counts on a node that was last seen at ``seen_at``."""
    return seen_at is not None and now - seen_at < ONLINE_FOR_PLANNING


def load_reservations(
    connection: Connection, site: Site, fleet: Sequence[Node], now: datetime
) -> dict[int, Reservation]:
    """Return the reservations of the nodes of ``fleet`` that are offline, by node.

    A plan made with a node offline gives it no more than this, so only plans made while it was
    counted on are looked at.
    """
    silent = [node for node in fleet if not is_online(node.last_seen_at, now)]
    return reserve(connection, site, silent, fleet, now) if silent else {}


def reserve(
    connection: Connection,
    site: Site,
    silent: Sequence[Node],
    fleet: Sequence[Node],
    now: datetime,
) -> dict[int, Reservation]:
    """Return the reservations of ``silent`` nodes of ``fleet``, at least one, by node."""
    acknowledged = NodeRepository(connection).load_acknowledged([node.id for node in silent])
    reader = _GrantReader(connection, site, min(map(_seen_at, silent)), now)
    total_w = sum(node.capability.power_max_w for node in fleet)
    return {
        node.id: Reservation(
            schedules=reader.schedules(node, acknowledged.get(node.id, 0)),
            safe_w=share_of_safe_limit_w(site, node, total_w),
            least_w=node.capability.power_min_w,
            most_w=node.capability.power_max_w,
        )
        for node in silent
    }


def _seen_at(node: Node) -> datetime:
    return node.last_seen_at or node.registered_at


class _GrantReader:
    """What a site's plans granted from ``now`` on; each plan is read once for all nodes."""

    def __init__(self, connection: Connection, site: Site, since: datetime, now: datetime) -> None:
        self._plans, self._envelopes = PlanRepository(connection), EnvelopeRepository(connection)
        self._site = site
        self._now = now
        # What was made longer ago than a schedule can last grants nothing any more.
        since = max(since - ONLINE_FOR_PLANNING, now - LONGEST_SCHEDULE)
        made = self._plans.list_made(site.id, since)
        self._made = {version: (plan_id, created_at) for version, plan_id, created_at in made}
        self._grants: dict[int, Mapping[int, Schedule]] = {}

    def schedules(self, node: Node, acknowledged: int) -> tuple[Schedule, ...]:
        """What a node may hold: the version that it acknowledged, or one it may have got unseen."""
        seen_at = _seen_at(node)
        first = max(
            (v for v, (_, at) in self._made.items() if at <= seen_at - ONLINE_FOR_PLANNING),
            default=0,
        )
        last_at = seen_at + ONLINE_FOR_PLANNING
        possible = {v for v, (_, at) in self._made.items() if v >= first and at <= last_at}
        found = (self._of_version(version) for version in sorted({*possible, acknowledged}))
        return tuple(grants[node.id] for grants in found if node.id in grants)

    def _of_version(self, version: int) -> Mapping[int, Schedule]:
        if version not in self._grants:
            known = self._made.get(version)
            plan_id = known[0] if known else self._plans.find_id(self._site.id, version)
            grants = {} if plan_id is None else self._envelopes.load_grants(plan_id, self._now)
            self._grants[version] = grants
        return self._grants[version]
