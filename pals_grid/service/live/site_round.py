"""One site's live grants: its book, and what a round makes of what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fill import Wants
from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.levels import Levels
from pals_grid.allocator.live import live_round
from pals_grid.allocator.outlook import GrantRules, SiteBudget
from pals_grid.core.fleet import Origin
from pals_grid.core.live import RoundRecord
from pals_grid.core.site import LiveGrants
from pals_grid.service.live.demand import DemandHolder, kept_ratio
from pals_grid.service.live.fallbacks import SilentNodes, SiteSchedules, Spans
from pals_grid.service.live.other_load import OtherLoadEstimate
from pals_grid.store.grants import GrantRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from pals_grid.allocator.fleet_arrays import Floats
    from pals_grid.allocator.grants import Round
    from pals_grid.core.fleet import Node
    from pals_grid.core.live import SiteReading
    from pals_grid.core.site import Site
    from pals_grid.service.live.fallbacks import Fallbacks
    from pals_grid.service.live.shares import PlanShares
    from pals_grid.store.live_sites import LiveNode, PlanKey

# The database's clock is a wall clock: a step of up to a second may pass unseen. The rounds see one
# report of each node every few seconds: three tell a liar.
RULES = GrantRules(clock_step_s=1.0, lie_reports=3)
HEARD_S = 8.0
LIMIT_STEP_W = 1.0
AHEAD_S = 10.0


@dataclass(frozen=True, slots=True)
class SiteView:
    """What a round sees of a site, at ``now`` by our clock, ``database_s`` by the database's."""

    site: Site
    seen: Sequence[LiveNode]
    plans: Sequence[PlanKey]
    shares: dict[int, PlanShares]
    reading: SiteReading | None
    now: datetime
    database_s: float


class LiveSite:
    """A site that this replica decides about, from one epoch to the next. Times in s."""

    def __init__(
        self, site_id: int, epoch: int, mode: LiveGrants, database_s: float, rules: GrantRules
    ) -> None:
        self.site_id = site_id
        self.mode = mode
        self.book = GrantBook(epoch, database_s, rules)
        self.silent = SilentNodes()
        self.nodes: Sequence[Node] = ()
        self._key: tuple[tuple[int, datetime], ...] = ()
        self._fleet = FleetArrays.of([])
        self._levels = Levels(np.zeros(0), np.zeros(0, dtype=bool))
        self._demand = DemandHolder()
        self._other = OtherLoadEstimate()
        self._observed: dict[int, datetime] = {}

    @property
    def epoch(self) -> int:
        """The epoch of its grants."""
        return self.book.epoch

    def has_fleet(self, seen: Sequence[LiveNode]) -> bool:
        """Whether it knows these nodes as they registered last."""
        return self._key == tuple((one.node_id, one.registered_at) for one in seen)

    def take_fleet(self, nodes: Sequence[Node]) -> None:
        """Know the site's nodes, by id."""
        self.nodes = nodes
        self._key = tuple((node.id, node.registered_at) for node in nodes)
        self._fleet = FleetArrays.of([node.capability for node in nodes])
        steps_w = np.array([LIMIT_STEP_W * max(1, node.gpu_count) for node in nodes])
        self._levels = Levels(steps_w, np.zeros(len(nodes), dtype=bool))
        for node in nodes:
            if node.id in self.book:
                self.book.set_most(node.id, node.capability.power_max_w)

    def round(self, view: SiteView) -> tuple[list[GrantRow], RoundRecord]:
        """Decide; returns the grants to hand out, none in a dry run, and what was seen and done."""
        spans = _spans(view)
        schedules = self._schedules(view)
        fallbacks = schedules.fallbacks(spans, view.now)
        self._count_nodes(view, fallbacks, spans)
        heard = self._hear(view)
        said_w = self._said_w(view, set(heard))
        stated_w = view.site.policy.other_load_w
        other = self._other.observe(
            view.reading, math.fsum(said_w), stated_w, view.now, Origin.weakest(_origins(view.seen))
        )
        limits_w = [_limit_w(view, *span) for span in spans.both]
        now_w, next_w = (max(0.0, limit_w - other.power_w) for limit_w in limits_w)
        budget = SiteBudget(now_w, self._book_s(view, spans.step_s), next_w)
        reached = [row for row in heard if _takes_grants(view.seen[row], self.mode)]
        rows = {view.seen[row].node_id: row for row in reached}
        wants = self._wants(view, schedules.targets(spans.now_s))
        done = live_round(self.book, rows, self._fleet, wants, budget, view.database_s)
        record = RoundRecord(
            mode=self.mode,
            budget_w=limits_w[0],
            other_load=other,
            allowed_w=done.allowed_w,
            draw_w=math.fsum(said_w[row] for row in heard),
            lent_w=self.book.lent_w,
            excess_w=done.excess_w,
            excess_for_s=_for_s(done.excess_until_s, view.database_s),
            nodes=len(view.seen),
            heard=len(heard),
            reached=len(rows),
            cuts=done.cuts,
            raises=done.raises,
            liars=tuple(self.book.liars),
            quiet_for_s=max(0.0, self.book.quiet_until_s - view.database_s),
            plan_version=view.plans[-1].version if view.plans else 0,
            behind=fallbacks.behind,
            draw_origins=tuple(sorted(_origins(view.seen[row] for row in heard))),
        )
        if self.mode is LiveGrants.DRY_RUN:
            # Nobody holds them: as if all that was decided reached its node at once.
            for node_id, one in done.issued.items():
                self.book.acknowledge(node_id, self.epoch, one.grant.sequence)
            return [], record
        return self._rows(done), record

    def _schedules(self, view: SiteView) -> SiteSchedules:
        most_w = np.array([node.capability.power_max_w for node in self.nodes])
        total_w = float(most_w.sum())
        safe_w = most_w * (view.site.policy.safe_limit_w / total_w if total_w > 0 else 0.0)
        return SiteSchedules(self.nodes, view.seen, view.plans, view.shares, safe_w, self.silent)

    def _book_s(self, view: SiteView, wall_s: float) -> float:
        """A time of the service's clock on the database's."""
        return view.database_s + wall_s - view.now.timestamp()

    def _count_nodes(self, view: SiteView, fallbacks: Fallbacks, spans: Spans) -> None:
        """Nodes come and go; those that are here count with their schedules."""
        book, step_s = self.book, self._book_s(view, spans.step_s)
        here = {node.id for node in self.nodes}
        for node_id in book.node_ids:
            if node_id not in here:
                book.retire(node_id, view.database_s)
        powers_w = zip(fallbacks.now_w.tolist(), fallbacks.next_w.tolist(), strict=True)
        for node, (now_w, next_w) in zip(self.nodes, powers_w, strict=True):
            if node.id not in book:
                book.join(node.id, now_w, node.capability.power_max_w)
            book.set_fallback(node.id, now_w, step_s, next_w)

    def _hear(self, view: SiteView) -> list[int]:
        """Take in what nodes said since the last round; returns the rows of those heard of."""
        book, heard, is_dry = self.book, [], self.mode is LiveGrants.DRY_RUN
        for row, one in enumerate(view.seen):
            if one.status is None or one.said_at is None:
                continue
            is_new = self._observed.get(one.node_id) != one.said_at
            if (view.now - one.said_at).total_seconds() < HEARD_S:
                heard.append(row)
            elif not is_new:
                continue
            if is_dry:
                continue  # they hold nothing of what this book decided
            book.acknowledge(one.node_id, one.status.grant_epoch, one.status.grant_sequence)
            if is_new:
                self._observed[one.node_id] = one.said_at
                book.observe_draw(one.node_id, one.status.node_power_w, view.database_s)
        return heard

    def _said_w(self, view: SiteView, heard: Collection[int]) -> list[float]:
        """What each node said that it draws; one that is silent, no more than it may still have.

        What it drew under a grant that has run out would else be taken off the meter for ever.
        """
        said_w = [one.status.node_power_w if one.status else 0.0 for one in view.seen]
        return [
            power_w
            if row in heard
            else min(power_w, self.book.allowed_w(view.seen[row].node_id, view.database_s))
            for row, power_w in enumerate(said_w)
        ]

    def _wants(self, view: SiteView, targets: Floats) -> Wants:
        demand, urgent = self._demand.observe(view.seen, targets)
        kept = kept_ratio(view.site.policy.service_tiers)
        return Wants(demand, kept * urgent if kept > 0 else None, levels=self._levels)

    def _rows(self, done: Round) -> list[GrantRow]:
        return [
            GrantRow(
                node_id=node_id,
                site_id=self.site_id,
                epoch=one.grant.epoch,
                sequence=one.grant.sequence,
                power_w=one.grant.power_w,
                lease_s=one.grant.lease_s,
                ends_s=one.issued_s + one.grant.lease_s,
            )
            for node_id, one in done.issued.items()
        ]


def _spans(view: SiteView) -> Spans:
    """Until the next change of any plan that counts, and from then on to the horizon."""
    now_s = view.now.timestamp()
    end_s = now_s + RULES.horizon_s + AHEAD_S
    edges_s = [edge for plan in view.shares.values() for edge in plan.edges_s(now_s, end_s)]
    return Spans(now_s, min(edges_s, default=end_s), end_s)


def _limit_w(view: SiteView, from_s: float, to_s: float) -> float:
    """Return the least that the plan in force allows the site; the safe limit without one."""
    safe_w = view.site.policy.safe_limit_w
    if not view.plans or to_s <= from_s:
        return safe_w
    return view.shares[view.plans[-1].plan_id].least_limit_w(safe_w, from_s, to_s)


def _takes_grants(one: LiveNode, mode: LiveGrants) -> bool:
    """Whether a grant would be obeyed; a dry run counts on every node that obeys its schedule."""
    status = one.status
    if status is None or status.mode == "observing":
        return False
    return status.takes_grants or mode is LiveGrants.DRY_RUN


def _origins(seen: Iterable[LiveNode]) -> set[Origin]:
    """How the power of nodes is known that said any."""
    return {one.status.node_power_origin for one in seen if one.status is not None}


def _for_s(until_s: float | None, now_s: float) -> float | None:
    return None if until_s is None else max(0.0, until_s - now_s)
