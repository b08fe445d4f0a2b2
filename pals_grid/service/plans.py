"""Plans: made, stored, shown with what they saw."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.allocator.envelopes import EnvelopeSplitter
from pals_grid.core.intervals import Interval
from pals_grid.service.paging import paged
from pals_grid.service.planning import load_planning
from pals_grid.service.reservations import ONLINE_FOR_PLANNING, is_online
from pals_grid.service.runs import end_run
from pals_grid.store.engine import notify
from pals_grid.store.envelopes import EnvelopeRepository
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.plans import PlanRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.budget import (
        BudgetInterval,
        NodeShare,
        Plan,
        PowerBudget,
        PowerEnvelope,
    )
    from pals_grid.core.fallback import SlotSource
    from pals_grid.core.feed import Feed
    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged
    from pals_grid.service.plan_inputs import ThermalLimits
    from pals_grid.service.reservations import Reservation
    from pals_grid.store.jobs import Claim

SAME_WITHIN_W = 1.0
WHOLE_PLANS = 48
PLAN_JOB = "replan"
"""Name of the job that plans each site once in its slot."""


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """One line of the list of plans."""

    version: int
    created_at: datetime
    planner: str
    trigger: str
    intervals: int


@dataclass(frozen=True, slots=True)
class FeedEvidence:
    """A feed's values as recorded when the plan was made.

    Over the plan's horizon, and over the times before it that values were taken from.
    """

    feed: Feed
    observations: tuple[Observation, ...]


def replan(context: Context, site_id: int, trigger: str, *, only_if_changed: bool = False) -> Plan:
    """Make a site's next plan from what is known now, and tell its nodes.

    One at a time per site, so versions follow each other. ``trigger`` says what happened. With
    ``only_if_changed`` (new feed values) a plan whose limits from now on are within 1 W of those
    in force, with the same reasons and the same signals known, is not stored and wakes no node:
    the plan in force is returned.

    Raises:
        NotFound: no such site.
    """
    with context.database.begin() as connection:
        return replan_within(context, connection, site_id, trigger, only_if_changed=only_if_changed)


def replan_since(context: Context, site_id: int, trigger: str, since: datetime) -> Plan:
    """Do what ``replan`` does, unless a plan was begun after ``since``: that one is returned.

    Of a hundred nodes that come back at once, all but a few find themselves counted on.

    Raises:
        NotFound: no such site.
    """
    with context.database.begin() as connection:
        SiteRepository(connection).lock(site_id)
        plans = PlanRepository(connection)
        made_at = plans.latest_created_at(site_id)
        if made_at is not None and made_at > since:
            return plans.load(site_id)
        return replan_within(context, connection, site_id, trigger)


def replan_run(context: Context, site_id: int, trigger: str, claim: Claim) -> Plan:
    """Do what ``replan`` does, for a claimed run that ends with it.

    Raises:
        NotFound: no such site.
        RunTakenOver: when the run is another's by now: nothing is stored.
    """
    with context.database.begin() as connection:
        plan = replan_within(context, connection, site_id, trigger)
        end_run(context, connection, claim)
        return plan


def replan_within(
    context: Context,
    connection: Connection,
    site_id: int,
    trigger: str,
    *,
    only_if_changed: bool = False,
) -> Plan:
    """Do what ``replan`` does inside the caller's transaction, with what made it necessary."""
    sites, plans = SiteRepository(connection), PlanRepository(connection)
    sites.lock(site_id)
    site = sites.load_by_id(site_id)
    now = context.clock.now()
    seen = load_planning(connection, site, now)
    budget = context.planner(seen.request)
    if only_if_changed and plans.latest_key(site_id) is not None:
        held = plans.load(site_id)
        if _is_same(held.budget, budget, now):
            return held
    plan = plans.insert(site, budget, seen.inputs, trigger, now)
    shares = _allocate(budget, seen.fleet, seen.reservations, seen.hot)
    EnvelopeRepository(connection).insert_shares(plan, shares)
    notify(connection, "plan", site_id)
    return plan


def counts_on(connection: Connection, site_id: int, seen_at: datetime | None) -> bool:
    """Whether the plan in force was made with a node online that was last seen at ``seen_at``."""
    made_at = PlanRepository(connection).latest_created_at(site_id)
    return made_at is not None and is_online(seen_at, made_at)


def list_newly_offline(context: Context) -> dict[int, list[str]]:
    """Names of nodes unseen for 60 s that their site's plan in force counts on, by site's id."""
    with context.database.read() as connection:
        return NodeRepository(connection).list_newly_offline(
            context.clock.now(), ONLINE_FOR_PLANNING
        )


def load_plan(context: Context, slug: str, version: int | None = None) -> Plan:
    """Return a version of a site's plan, the latest by default.

    Raises:
        NotFound: no such site or plan.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return PlanRepository(connection).load(site.id, version)


def list_plans(context: Context, slug: str, page: Page) -> Paged[PlanSummary]:
    """Plans of a site, newest first.

    Raises:
        NotFound: no such site.
    """
    before = page.after(tuple[int])
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        rows = PlanRepository(connection).list_before(
            site.id, before[0] if before else None, page.limit + 1
        )
    plans = [PlanSummary(*row) for row in rows]
    return paged(plans, page, lambda plan: (plan.version,))


def load_plan_evidence(context: Context, slug: str, version: int) -> list[FeedEvidence]:
    """Return what each feed was known to say when a plan was made.

    Raises:
        NotFound: no such site or plan.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        plan = PlanRepository(connection).load(site.id, version)
        feeds = FeedRepository(connection).list_by_ids([item.feed_id for item in plan.inputs])
        as_of = {item.feed_id: item.as_of for item in plan.inputs}
        values = ObservationRepository(connection)
        evidence = []
        for feed in feeds:
            # A long value may touch more than one of the intervals.
            known = {
                (item.start_at, item.kind): item
                for interval in _evidence_intervals(plan.budget, feed.id)
                for item in values.load_known([feed.id], interval, as_of[feed.id])[feed.id]
            }
            evidence.append(FeedEvidence(feed, tuple(known.values())))
        return evidence


def prune_plans(context: Context, site_id: int) -> None:
    """Drop what no longer matters of a site's plans; what was in force is kept for good.

    Nodes' shares go when no node can follow them any more, a day after the plan's horizon; and of
    all but the last 48 plans the intervals that a later plan had replaced before they began.
    """
    with context.database.begin() as connection:
        horizon = timedelta(seconds=SiteRepository(connection).load_by_id(site_id).policy.horizon_s)
        before_at = context.clock.now() - horizon - timedelta(days=1)
        EnvelopeRepository(connection).forget_shares(site_id, before_at)
        PlanRepository(connection).thin(site_id, keep=WHOLE_PLANS)


def load_envelopes(context: Context, slug: str, version: int | None = None) -> list[PowerEnvelope]:
    """Return every node's envelopes of a plan, the latest by default, by time and node.

    Raises:
        NotFound: no such site or plan.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        plan = PlanRepository(connection).load(site.id, version)
        return EnvelopeRepository(connection).load(plan.id)


def _allocate(
    budget: PowerBudget,
    fleet: Sequence[NodeCapability],
    reservations: Mapping[int, Reservation],
    hot: ThermalLimits,
) -> list[NodeShare]:
    intervals = [item.interval for item in budget.intervals]
    reserved_w = [
        {key: one.power_w_in(interval) for key, one in reservations.items()}
        for interval in intervals
    ]
    most_w = [
        {key: limit_w for key, (during, limit_w) in hot.items() if during.overlap_s(interval) > 0}
        for interval in intervals
    ]
    return EnvelopeSplitter(fleet).split_all(budget.intervals, reserved_w, most_w)


def _horizon(budget: PowerBudget) -> Interval:
    return Interval(budget.intervals[0].interval.start_at, budget.intervals[-1].interval.end_at)


def _evidence_intervals(budget: PowerBudget, feed_id: int) -> list[Interval]:
    """The horizon, and before it the other times that values of a feed were taken from."""
    taken = {
        source.taken_from
        for item in budget.intervals
        for source in (item.price_source, item.carbon_source)
        if source is not None and source.feed_id == feed_id and source.taken_from is not None
    }
    return [*_joined(sorted(taken)), _horizon(budget)]


def _joined(intervals: Sequence[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for item in intervals:
        if joined and item.start_at <= joined[-1].end_at:
            start_at, end_at = joined[-1].start_at, max(joined[-1].end_at, item.end_at)
            joined[-1] = Interval(start_at, end_at)
        else:
            joined.append(item)
    return joined


def _is_same(held: PowerBudget, made: PowerBudget, now: datetime) -> bool:
    """Whether two plans order the same from ``now`` to the end of the one in force."""
    end_at = held.intervals[-1].interval.end_at
    edges = {item.interval.start_at for item in (*held.intervals, *made.intervals)}
    return end_at > now and all(
        _agree(_at(held, edge), _at(made, edge))
        for edge in {now, *(edge for edge in edges if now < edge < end_at)}
    )


def _at(budget: PowerBudget, instant: datetime) -> BudgetInterval | None:
    return next((item for item in budget.intervals if item.interval.contains(instant)), None)


def _agree(held: BudgetInterval | None, made: BudgetInterval | None) -> bool:
    return (
        held is not None
        and made is not None
        and abs(held.limit_w - made.limit_w) <= SAME_WITHIN_W
        and held.reason is made.reason
        and (held.price_per_mwh is None) is (made.price_per_mwh is None)
        and (held.carbon_g_per_kwh is None) is (made.carbon_g_per_kwh is None)
        and _same_source(held.price_source, made.price_source)
        and _same_source(held.carbon_source, made.carbon_source)
    )


def _same_source(held: SlotSource | None, made: SlotSource | None) -> bool:
    """Whether a signal still comes from the same place, so that the plan in force says so."""
    if held is None or made is None:
        return held is made
    return held.same_as(made)
