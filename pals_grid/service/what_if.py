"""What tomorrow would be: the plan as the site stands, with changes, and the plan's rivals.

Everything is worked out from what the planner would look at now, and modelled. Nothing is stored,
and no node hears of it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.core.errors import Busy, Conflict, InvalidValue, NotFound
from pals_grid.core.intervals import EPOCH, Interval
from pals_grid.core.pricing import DatedTariff, Pricing
from pals_grid.counterfactual.course import outcome_of, planned_course
from pals_grid.counterfactual.plant import Nodes, Plant, lone_node, node_kind
from pals_grid.counterfactual.rivals import RIVALS, Absent, Rivals
from pals_grid.service.events import load_reference
from pals_grid.service.planning import load_planning
from pals_grid.service.tariffs import check_tariff
from pals_grid.service.what_if_changes import Changes, changed_request, check_event
from pals_grid.service.what_if_sources import load_edges, sources_of
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from pals_grid.core.budget import PlanRequest, PlanSlot, PowerBudget
    from pals_grid.core.fleet import Node
    from pals_grid.core.site import Site, Slo
    from pals_grid.counterfactual.course import Course, Outcome
    from pals_grid.counterfactual.plant import NodeKind
    from pals_grid.service.context import Context
    from pals_grid.service.planning import Planning
    from pals_grid.service.what_if_sources import SourceShare
    from pals_grid.wire.messages import NodeStatus

AS_IT_STANDS = "as-it-stands"
WITH_CHANGES = "with-changes"
FORESIGHT = "perfect-foresight"
NO_FORESIGHT = (
    "of a day to come nothing is known beyond the forecast, which the plan has already;"
    " the backtest has it for days past"
)
LONGEST = timedelta(hours=48)
WAIT_S = 2.0
_RUNNING = threading.BoundedSemaphore(1)
"""A what-if is seconds of one core: a process works out one at a time."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One course and what comes of it.

    ``outcome`` counts the interval that was asked for, ``whole`` the plan's whole horizon, over
    which all alternatives of the same demand serve the same tokens, less those that are lost.
    ``changed``: under the changes. ``low`` and ``high`` are the interval's with P10 and P90 of
    what our own models forecast, of price and demand at once; None where they forecast nothing.
    """

    name: str
    changed: bool
    course: Course
    outcome: Outcome
    whole: Outcome
    low: Outcome | None
    high: Outcome | None


@dataclass(frozen=True, slots=True)
class Missing:
    """An alternative that is not there, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Alternatives for ``interval`` as of ``made_at``, all modelled, at node boundary.

    ``horizon`` is the plan's; ``budget`` the plan as the site stands, ``changed_budget`` the one
    with the changes, None without any.
    """

    site: str
    name: str
    currency: str
    timezone: str
    made_at: datetime
    interval: Interval
    horizon: Interval
    alternatives: tuple[Alternative, ...]
    absent: tuple[Missing, ...]
    sources: tuple[SourceShare, ...]
    notes: tuple[str, ...]
    budget: PowerBudget
    changed_budget: PowerBudget | None

    def alternative(self, name: str) -> Alternative:
        """Return one by its name.

        Raises:
            NotFound: where it is absent.
        """
        for item in self.alternatives:
            if item.name == name:
                return item
        raise NotFound("alternative", name)


def what_if(
    context: Context,
    slug: str,
    changes: Changes,
    start_at: datetime | None = None,
    end_at: datetime | None = None,
) -> WhatIf:
    """Work out alternatives for a stretch of the plan's horizon; the site's next day by default.

    Raises:
        NotFound: no such site.
        InvalidValue: for changes outside their bounds, or a stretch outside the horizon.
        Conflict: when no node is online, so that nothing could be served.
        Busy: when another one is being worked out.
    """
    if not _RUNNING.acquire(timeout=WAIT_S):
        raise Busy("another what-if is being worked out; ask again in a few seconds")
    try:
        worlds = _load(context, slug, changes)
        return _answer(context, worlds, changes, start_at, end_at)
    finally:
        _RUNNING.release()


@dataclass(frozen=True, slots=True)
class _World:
    """What a plan would look at, and the same at the edges of our forecasts."""

    request: PlanRequest
    planning: Planning
    changed: bool
    edges: tuple[tuple[PlanSlot, ...], tuple[PlanSlot, ...]] | None

    def at_edges(self) -> list[PlanRequest]:
        return [replace(self.request, slots=slots) for slots in self.edges or ()]


@dataclass(frozen=True, slots=True)
class _Worlds:
    """As the site stands, and changed (None without changes); the nodes that are online."""

    site: Site
    now: datetime
    held: _World
    changed: _World | None
    plant: Plant
    unknown: tuple[str, ...]

    @property
    def seen(self) -> _World:
        """What the rivals are in."""
        return self.changed or self.held


def _load(context: Context, slug: str, changes: Changes) -> _Worlds:
    now = context.clock.now()
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        held = _world(connection, site, site, Changes(), now)
        if not held.request.fleets:
            raise Conflict(f"no node of site {slug!r} is online: there is nothing to plan with")
        changed = None
        if not changes.is_none:
            changed = _world(connection, changes.site(site), site, changes, now)
        online = {node.node_id for node in held.planning.fleet if node.online}
        seen = NodeRepository(connection).list_live_after(site.id, None, len(held.planning.fleet))
    nodes = [(node, status) for node, status, _ in seen if node.id in online]
    modelled = {node.id: _modelled(node, status, site.policy.slo) for node, status in nodes}
    return _Worlds(
        site=site,
        now=now,
        held=held,
        changed=changed,
        plant=Plant(tuple(lone_node(node.capability, modelled[node.id]) for node, _ in nodes)),
        unknown=tuple(node.name for node, _ in nodes if modelled[node.id] is None),
    )


def _world(
    connection: Connection, site: Site, stored: Site, changes: Changes, now: datetime
) -> _World:
    pricing = TariffRepository(connection).load_pricing(stored)
    if changes.tariff is not None:
        check_tariff(stored, changes.tariff, now)
        alone = DatedTariff(0, replace(changes.tariff, valid_from_at=EPOCH))
        pricing = Pricing.of(pricing.currency, pricing.zone, [alone])
    planning = load_planning(connection, site, now, pricing)
    reference = None
    if changes.event is not None:
        check_event(changes.event, _horizon(planning.request), now)
        reference = load_reference(connection, stored, changes.event.start_at, now)
    change = partial(changed_request, changes=changes, site=site, reference=reference)
    edges = load_edges(connection, site, planning, pricing, now)
    return _World(
        request=change(planning.request),
        planning=planning,
        changed=not changes.is_none,
        edges=None
        if edges is None
        else (
            change(replace(planning.request, slots=edges[0])).slots,
            change(replace(planning.request, slots=edges[1])).slots,
        ),
    )


def _modelled(node: Node, status: NodeStatus | None, slo: Slo) -> NodeKind | None:
    """Return the fitted plant's node of the same hardware; None where it knows none.

    Engines of a node are taken to share its GPUs evenly; without a status it has one a model.
    """
    models = [item.model for item in status.engines] if status else []
    models = models or list(node.models)
    if len(set(models)) != 1 or node.gpu_count % len(models):
        return None
    kind = Nodes(
        gpu_model=node.gpu_model, model=models[0], gpu_count=node.gpu_count // len(models), count=1
    )
    try:
        return node_kind(kind, slo)
    except (NotFound, InvalidValue):
        return None


def _answer(
    context: Context,
    worlds: _Worlds,
    changes: Changes,
    start_at: datetime | None,
    end_at: datetime | None,
) -> WhatIf:
    policy = worlds.site.policy
    horizon = _horizon(worlds.held.request)
    during, notes = _stretch(policy.timezone, horizon, worlds.now, start_at, end_at)
    budget = context.planner(worlds.held.request)
    found = [_planned(context, AS_IT_STANDS, worlds.held, budget, during)]
    changed_budget = None
    if worlds.changed is not None:
        changed_budget = context.planner(worlds.changed.request)
        found.append(_planned(context, WITH_CHANGES, worlds.changed, changed_budget, during))
    rivals, absent = _rivals(worlds, during)
    return WhatIf(
        site=policy.slug,
        name=policy.name,
        currency=policy.currency,
        timezone=policy.timezone,
        made_at=worlds.now,
        interval=during,
        horizon=horizon,
        alternatives=(*found, *rivals),
        absent=(Missing(FORESIGHT, NO_FORESIGHT), *absent),
        sources=sources_of(worlds.seen.planning, during),
        notes=(*notes, *_notes(worlds, changes)),
        budget=budget,
        changed_budget=changed_budget,
    )


def _notes(worlds: _Worlds, changes: Changes) -> Iterator[str]:
    if worlds.unknown:
        yield (
            f"There is no model of the engines of {_listed(worlds.unknown)}: left alone they are"
            " taken to draw a straight line from their floor to their most, which is too little."
        )
    if changes.tariff is not None:
        yield "The tariff is taken to hold throughout, whatever it is valid from."


def _rivals(worlds: _Worlds, during: Interval) -> tuple[list[Alternative], list[Missing]]:
    """Return every rival in the changed world, or why it is not there."""
    found, absent = [], []
    for name in RIVALS:

        def course(request: PlanRequest, name: str = name) -> Course:
            return Rivals(request, worlds.plant, not worlds.unknown).course(name)

        try:
            first = course(worlds.seen.request)
        except Absent as reason:
            absent.append(Missing(name, str(reason)))
        else:
            found.append(_alternative(name, worlds.seen, during, first, course))
    return found, absent


def _planned(
    context: Context, name: str, world: _World, budget: PowerBudget, during: Interval
) -> Alternative:
    return _alternative(
        name,
        world,
        during,
        planned_course(name, world.request, budget),
        lambda request: planned_course(name, request, context.planner(request)),
    )


def _alternative(
    name: str,
    world: _World,
    during: Interval,
    course: Course,
    again: Callable[[PlanRequest], Course],
) -> Alternative:
    edges = [outcome_of(again(request), request, during) for request in world.at_edges()]
    low, high = edges or (None, None)
    return Alternative(
        name=name,
        changed=world.changed,
        course=course,
        outcome=outcome_of(course, world.request, during),
        whole=outcome_of(course, world.request, _horizon(world.request)),
        low=low,
        high=high,
    )


def _horizon(request: PlanRequest) -> Interval:
    return Interval(request.slots[0].interval.start_at, request.slots[-1].interval.end_at)


def _stretch(
    timezone: str,
    horizon: Interval,
    now: datetime,
    start_at: datetime | None,
    end_at: datetime | None,
) -> tuple[Interval, list[str]]:
    """Return what is counted, inside the horizon, and what has to be said of it."""
    if start_at is None and end_at is None:
        return _next_day(timezone, horizon, now)
    begin = start_at if start_at is not None else horizon.start_at
    end = end_at if end_at is not None else min(horizon.end_at, begin + LONGEST)
    bound = f"must be from {horizon.start_at.isoformat()} to {horizon.end_at.isoformat()}"
    for name, instant in (("start_at", begin), ("end_at", end)):
        if not horizon.start_at <= instant <= horizon.end_at:
            raise InvalidValue(name, instant.isoformat(), f"{bound}: the plan's horizon")
    during = Interval(begin, end)
    if during.duration_s > LONGEST.total_seconds():
        hours = LONGEST.total_seconds() / 3600
        raise InvalidValue("end_at", end.isoformat(), f"must be at most {hours:g} h after start_at")
    return during, []


def _next_day(timezone: str, horizon: Interval, now: datetime) -> tuple[Interval, list[str]]:
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    begin, end = (
        datetime.combine(today + timedelta(days=days), time(), zone).astimezone(UTC)
        for days in (1, 2)
    )
    reach = f"A plan reaches {round(horizon.duration_s / 3600, 1):g} h ahead"
    if begin >= horizon.end_at:
        cut = Interval(horizon.start_at, min(horizon.end_at, horizon.start_at + LONGEST))
        return cut, [f"{reach}, not to tomorrow: counted is all of it."]
    if end > horizon.end_at:
        return Interval(begin, horizon.end_at), [f"{reach}: tomorrow is counted up to there."]
    return Interval(begin, end), []


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
