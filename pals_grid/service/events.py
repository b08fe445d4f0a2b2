"""Demand-response events: ordered, cancelled, delivered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.accounting.delivery import SitePowerReading, measure_delivery
from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid.core.fleet import Origin, PowerCurve
from pals_grid.core.intervals import Interval, floor_to, slots
from pals_grid.service.paging import paged
from pals_grid.service.plans import replan_within
from pals_grid.store.engine import notify
from pals_grid.store.events import EventRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.plans import PlanRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pals_grid.core.events import DemandResponseEvent, EventRequest
    from pals_grid.core.site import Site
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged
    from pals_grid.store.telemetry import PowerPoint

REFERENCE_TIME = timedelta(hours=1)
REFERENCE_COVERED_S = 300.0
MINUTE = timedelta(minutes=1)
FINE_UP_TO_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class DeliveryPoint:
    """One minute of an event: the site's mean power; None where nothing was measured."""

    start_at: datetime
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivered against ordered, over the part of the event that has passed.

    ``covered_s`` is the time with a measurement; ``within_limit_ratio`` the share of it inside
    ``ordered_w`` (and 2 % for the meter); ``curtailed_j`` the energy below ``reference_w``,
    never negative.
    """

    event: DemandResponseEvent
    ordered_w: float
    reference_w: float
    mean_power_w: float | None
    covered_s: float
    within_limit_ratio: float | None
    curtailed_j: float
    points: tuple[DeliveryPoint, ...]


def create_event(context: Context, slug: str, order: EventRequest) -> DemandResponseEvent:
    """Store an event, freeze what a reduction counts from, and plan anew, in one transaction.

    Events may overlap: the lowest limit wins. An order below what the fleet needs at least is
    taken; the plan shows the shortfall.

    Raises:
        NotFound: no such site.
        InvalidValue: when the event is over already.
    """
    with context.database.begin() as connection:
        sites = SiteRepository(connection)
        site = sites.load(slug)
        sites.lock(site.id)
        now = context.clock.now()
        if order.end_at <= now:
            bound = f"must be after now ({now.isoformat()})"
            raise InvalidValue("end_at", order.end_at.isoformat(), bound)
        reference = load_reference(connection, site, order.start_at, now)
        event = EventRepository(connection).insert(site.id, order, reference, now)
        notify(connection, "event", site.id)
        replan_within(context, connection, site.id, f"event {event.id} created")
    return event


def cancel_event(
    context: Context, event_id: int, expected_version: int | None
) -> DemandResponseEvent:
    """Cancel an event that has not ended, and plan anew, in one transaction.

    Raises:
        NotFound: no such event.
        Conflict: when it is cancelled or over, or not at ``expected_version``.
    """
    with context.database.begin() as connection:
        events = EventRepository(connection)
        site_id = events.load(event_id).site_id
        SiteRepository(connection).lock(site_id)
        event = events.cancel(event_id, expected_version, context.clock.now())
        notify(connection, "event", site_id)
        replan_within(context, connection, site_id, f"event {event_id} cancelled")
    return event


def load_event(context: Context, event_id: int) -> DemandResponseEvent:
    """Return an event.

    Raises:
        NotFound: no such event.
    """
    with context.database.read() as connection:
        return EventRepository(connection).load(event_id)


def list_events(context: Context, slug: str, page: Page) -> Paged[DemandResponseEvent]:
    """Events of a site, latest start first.

    Raises:
        NotFound: no such site.
    """
    before = page.after(tuple[datetime, int])
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        found = EventRepository(connection).list_before(site.id, before, page.limit + 1)
    return paged(found, page, lambda event: (event.order.start_at, event.id))


def load_delivery(context: Context, event_id: int) -> Delivery:
    """Compare the site's power with the order and its reference, by rows of five seconds.

    Covers the part of the event that has passed since it was ordered, up to its cancellation;
    an event of more than six hours is measured by the minute.

    Raises:
        NotFound: no such event.
    """
    with context.database.read() as connection:
        event = EventRepository(connection).load(event_id)
        passed = _passed(event, context.clock.now())
        telemetry = TelemetryRepository(connection)
        step_s = 5.0 if passed and passed.duration_s <= FINE_UP_TO_S else 60.0
        found = telemetry.load_power_series(event.site_id, passed, step_s) if passed else []
    measure = measure_delivery(event, [_reading(point) for point in found])
    return Delivery(
        event=event,
        ordered_w=event.ordered_w,
        reference_w=event.reference_w,
        mean_power_w=measure.mean_power_w,
        covered_s=measure.covered_s,
        within_limit_ratio=measure.within_limit_ratio,
        curtailed_j=measure.curtailed_j,
        points=_points(found, passed) if passed else (),
    )


def _passed(event: DemandResponseEvent, now: datetime) -> Interval | None:
    """Return the part that counts: nobody can deliver before the order was given."""
    start_at = max(event.order.start_at, event.created_at)
    end_at = min(event.order.end_at, now, event.cancelled_at or now)
    return Interval(start_at, end_at) if end_at > start_at else None


def _reading(point: PowerPoint) -> SitePowerReading:
    """Take a step for as long as it was measured."""
    end_at = point.start_at + timedelta(seconds=point.covered_s)
    return SitePowerReading(Interval(point.start_at, end_at), point.node_power_w)


def _points(found: Sequence[PowerPoint], passed: Interval) -> tuple[DeliveryPoint, ...]:
    """Means by the minute, for the chart."""
    by_minute: dict[datetime, list[PowerPoint]] = {}
    for point in found:
        by_minute.setdefault(floor_to(point.start_at, MINUTE), []).append(point)
    return tuple(
        DeliveryPoint(
            minute.start_at, _mean_power_w(by_minute.get(floor_to(minute.start_at, MINUTE), []))
        )
        for minute in slots(passed.start_at, passed.end_at, MINUTE)
    )


def _mean_power_w(points: Sequence[PowerPoint]) -> float | None:
    covered_s = sum(point.covered_s for point in points)
    if covered_s <= 0:
        return None
    return sum(point.node_power_w * point.covered_s for point in points) / covered_s


def load_reference(
    connection: Connection, site: Site, start_at: datetime, now: datetime
) -> tuple[float, Origin]:
    """Site power in W that a reduction counts from, and where it comes from.

    The mean of the last hour where at least 300 s of it were metered, else what the plan in
    force expects at the start of the event, else all that the fleet can draw. Another event in
    the last hour lowers the mean: it is the power of that time, not a programme's baseline.
    """
    past = Interval(now - REFERENCE_TIME, now)
    measured = TelemetryRepository(connection).mean_site_power_w(site.id, past)
    if measured is not None and measured[1] >= REFERENCE_COVERED_S:
        return measured[0], _meter_origin(connection, site.id)
    planned_w = _planned_power_w(connection, site.id, start_at)
    if planned_w is not None:
        return planned_w, Origin.MODELLED
    curves = [node.capability.curve for node in NodeRepository(connection).list_all(site.id)]
    fleet_w = PowerCurve.combined(curves).max_power_w
    limit_w = site.policy.grid_connection_w
    return (min(fleet_w, limit_w) if curves else limit_w), Origin.MODELLED


def _planned_power_w(connection: Connection, site_id: int, start_at: datetime) -> float | None:
    try:
        plan = PlanRepository(connection).load(site_id)
    except NotFound:
        return None
    found = (i.expected_power_w for i in plan.budget.intervals if i.interval.contains(start_at))
    return next(found, None)


def _meter_origin(connection: Connection, site_id: int) -> Origin:
    """Return the origin, of all nodes' power, that is farthest from a measurement."""
    lives = NodeRepository(connection).list_live_after(site_id, None, 10_000)
    origins = {status.node_power_origin for _, status, _ in lives if status is not None}
    origins |= {node.origin for node, status, _ in lives if status is None}
    return Origin.weakest(origins)
