"""Plans: made, stored, shown with what they saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.allocator.share import allocate_envelopes
from pals_grid.core.budget import PlanRequest, PlanSlot
from pals_grid.core.fleet import PowerCurve
from pals_grid.core.intervals import Interval
from pals_grid.forecast.seasonal import HISTORY_DAYS, forecast_demand
from pals_grid.planner.grid import plan_intervals
from pals_grid.service.paging import paged
from pals_grid.service.signals import load_signals
from pals_grid.store.engine import notify
from pals_grid.store.events import EventRepository
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.plans import PlanRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.budget import BudgetInterval, Plan, PlanInput, PowerBudget, PowerEnvelope
    from pals_grid.core.feed import Feed
    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.series import Observation
    from pals_grid.core.site import Site
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged

ONLINE_FOR_PLANNING = timedelta(seconds=60)
SAME_WITHIN_W = 1.0


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
    """A feed's values over the plan's horizon, as recorded when the plan was made."""

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
    fleet = _load_fleet(connection, site_id, now)
    request, inputs = _load_request(connection, site, fleet, now)
    budget = context.planner(request)
    if only_if_changed and plans.latest_key(site_id) is not None:
        held = plans.load(site_id)
        if _is_same(held.budget, budget, now):
            return held
    plan = plans.insert(site, budget, inputs, trigger, now)
    envelopes = [e for item in budget.intervals for e in allocate_envelopes(item, fleet)]
    plans.insert_envelopes(plan.id, envelopes)
    notify(connection, "plan", site_id)
    return plan


def is_online(seen_at: datetime | None, now: datetime) -> bool:
    """Whether a plan made ``now`` counts on a node that was last seen at ``seen_at``."""
    return seen_at is not None and now - seen_at < ONLINE_FOR_PLANNING


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
        horizon = _horizon(plan.budget)
        return [
            FeedEvidence(
                feed, tuple(values.load_known([feed.id], horizon, as_of[feed.id])[feed.id])
            )
            for feed in feeds
        ]


def load_envelopes(context: Context, slug: str, version: int | None = None) -> list[PowerEnvelope]:
    """Return every node's envelopes of a plan, the latest by default, by time and node.

    Raises:
        NotFound: no such site or plan.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        plans = PlanRepository(connection)
        return plans.load_envelopes(plans.load(site.id, version).id)


def _load_fleet(connection: Connection, site_id: int, now: datetime) -> list[NodeCapability]:
    """Capabilities of a site's nodes; one that was not seen for 60 s is offline."""
    return [
        replace(node.capability, online=is_online(node.last_seen_at, now))
        for node in NodeRepository(connection).list_all(site_id)
    ]


def _load_request(
    connection: Connection, site: Site, fleet: Sequence[NodeCapability], now: datetime
) -> tuple[PlanRequest, tuple[PlanInput, ...]]:
    policy = site.policy
    intervals = plan_intervals(policy, now, ())
    horizon = Interval(intervals[0].start_at, intervals[-1].end_at)
    signals = load_signals(connection, site.id, intervals, now)
    past = Interval(now - timedelta(days=HISTORY_DAYS), now)
    history = TelemetryRepository(connection).load_demand_history(site.id, past, policy.slot_s)
    curve = PowerCurve.combined([_curve(node) for node in fleet])
    # Unknown demand is not zero demand: nothing is throttled before there is a record.
    stated = policy.demand_tokens_per_s or curve.max_tokens_per_s
    demand = forecast_demand(history, intervals, stated)
    columns = (intervals, signals.price_per_mwh, signals.carbon_g_per_kwh, demand)
    request = PlanRequest(
        policy=policy,
        curve=curve,
        slots=tuple(PlanSlot(*values) for values in zip(*columns, strict=True)),
        events=tuple(EventRepository(connection).list_touching(site.id, horizon)),
        planned_at=now,
        backlog_tokens=NodeRepository(connection).load_backlog_tokens(
            site.id, now - ONLINE_FOR_PLANNING
        ),
    )
    return request, signals.inputs


def _curve(node: NodeCapability) -> PowerCurve:
    """Return what a node can do; one that is away serves nothing, but may draw its least."""
    return node.curve if node.online else PowerCurve((0.0,), (node.power_min_w,))


def _horizon(budget: PowerBudget) -> Interval:
    return Interval(budget.intervals[0].interval.start_at, budget.intervals[-1].interval.end_at)


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
    )
