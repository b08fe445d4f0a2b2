"""What a plan looks at besides the signals: peaks, the past's power and carbon, heat."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, TypeAlias
from zoneinfo import ZoneInfo

from pals_grid.core.budget import Constraint, PeakCharge
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.time_of_use import months_touching
from pals_grid.core.units import emissions_g
from pals_grid.service.demand import PeakReader
from pals_grid.service.reservations import ONLINE_FOR_PLANNING
from pals_grid.service.signals import load_average_carbon
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.plans import PlanRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.pricing import Pricing
    from pals_grid.core.site import Site

ThermalLimits: TypeAlias = "Mapping[int, tuple[Interval, float]]"
"""By node, when heat holds it and what it can draw meanwhile in W."""
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DRAW_BEFORE = timedelta(minutes=5)
"""What a site drew before a slot is the mean of the minutes before it."""
LEAST_HEARD_RATIO = 0.5
"""Nodes with less of the site's most power than this do not tell what the site draws."""
THERMAL_HOLD = timedelta(hours=1)
"""A node that heat throttled is not asked for more before this is over."""


def load_peak_charges(
    connection: Connection, site: Site, pricing: Pricing, horizon: Interval, now: datetime
) -> tuple[PeakCharge, ...]:
    """Return the tariff's charges per kW over ``horizon``, one for each calendar month in it.

    By the tariff in force when the month, or the horizon in it, begins. ``reached_w`` is the peak
    of the nodes' power that the month's bill rests on already, a ratchet included; 0 where nothing
    was measured.
    """
    zone = ZoneInfo(site.policy.timezone)
    reader: PeakReader | None = None
    found = []
    for month in months_touching(horizon, zone):
        part = Interval(max(month.start_at, horizon.start_at), min(month.end_at, horizon.end_at))
        tariff = pricing.at(part.start_at).tariff
        for charge in tariff.demand_charges:
            name = charge.in_period
            spans = [part] if name is None else tariff.spans(name, part, zone)
            if spans:
                reader = reader or PeakReader(connection, site, now)
                reached_w = reader.reached_w(tariff, charge, month)
                found.append(
                    PeakCharge(
                        f"{charge.name} {month.start_at.astimezone(zone):%Y-%m}",
                        charge.price_per_kw,
                        tuple(spans),
                        reached_w,
                        charge.window_s,
                    )
                )
    return tuple(found)


def load_carbon_spent_kg(
    connection: Connection, site: Site, pricing: Pricing, start_at: datetime, now: datetime
) -> float:
    """Return what the nodes emitted on the local day of ``start_at`` before it, in kg.

    Their energy at node boundary times average intensity, as the day's cap counts it: whole hours
    by their means, minutes where the day or ``start_at`` cuts an hour. Each value is the one that
    planning would take. What nobody knows counts nothing; without a cap nothing is read.
    """
    if site.policy.carbon_cap_kg_per_day is None:
        return 0.0
    zone = ZoneInfo(site.policy.timezone)
    midnight = datetime.combine(start_at.astimezone(zone).date(), time(), zone).astimezone(UTC)
    telemetry = TelemetryRepository(connection)
    points = [
        (Interval(point.start_at, point.start_at + step), point.node_power_w * point.covered_s)
        for part, step in _hours_and_minutes(midnight, start_at)
        for point in telemetry.load_power_series(site.id, part, step.total_seconds())
    ]
    carbon = load_average_carbon(connection, site, pricing, [during for during, _ in points], now)
    return sum(
        emissions_g(energy_j, carbon_g_per_kwh) / 1000
        for (_, energy_j), carbon_g_per_kwh in zip(points, carbon, strict=True)
        if carbon_g_per_kwh is not None
    )


def _hours_and_minutes(
    start_at: datetime, end_at: datetime
) -> Iterator[tuple[Interval, timedelta]]:
    """Parts of a stretch of time, with the steps to read them in."""
    first = min(floor_to(start_at + HOUR - timedelta.resolution, HOUR), end_at)
    last = max(first, floor_to(end_at, HOUR))
    for begin, end, step in (
        (start_at, first, MINUTE),
        (first, last, HOUR),
        (last, end_at, MINUTE),
    ):
        if begin < end:
            yield Interval(begin, end), step


def load_power_before_w(
    connection: Connection, site: Site, start_at: datetime, now: datetime, silent_w: float
) -> float | None:
    """Return what the site drew just before ``start_at`` in W, where ramps are to count it.

    The mean of its nodes over five minutes, those that did not report like the others;
    ``silent_w`` is what nodes that cannot be reached may draw. Where less than half of the nodes
    reported, what the plan in force then expected; None where there was none.
    """
    if site.policy.ramp_w_per_min is None:
        return None
    before = Interval(start_at - DRAW_BEFORE, start_at)
    power_w, heard_ratio = TelemetryRepository(connection).load_draw(
        site.id, before, now - ONLINE_FOR_PLANNING
    )
    if heard_ratio >= LEAST_HEARD_RATIO:
        return power_w / heard_ratio + silent_w
    lately = Interval(start_at - timedelta(seconds=site.policy.horizon_s), start_at)
    return PlanRepository(connection).load_expected_power_w(site.id, lately)


def load_thermal_limits(
    connection: Connection,
    site: Site,
    fleet: Sequence[NodeCapability],
    start_at: datetime,
    now: datetime,
) -> ThermalLimits:
    """Return which nodes heat holds, until when, and what they can draw meanwhile in W, by node.

    A GPU that its heat throttles draws no more than it does now: what it could draw beyond that is
    taken off the node's most power. That holds for an hour, and for another one whenever a plan
    finds the node throttled again; what the plan in force says of it stands until then.
    """
    held = {
        item.name: (item.interval.end_at, item.amount)
        for item in PlanRepository(connection).load_findings(site.id)
        if item.constraint is Constraint.THERMAL and item.interval.end_at > now
    }
    throttled_w = NodeRepository(connection).load_throttled_w(site.id, now - ONLINE_FOR_PLANNING)
    limits: dict[int, tuple[Interval, float]] = {}
    for node in fleet:
        if node.node_id in throttled_w:
            end_at, limit_w = now + THERMAL_HOLD, throttled_w[node.node_id]
        elif node.name in held:
            end_at, less_w = held[node.name]
            # A plan's finding counts from what the node's curve makes use of.
            used_w = min(node.power_max_w, max(node.curve.max_power_w, node.power_min_w))
            limit_w = max(node.power_min_w, used_w - less_w)
        else:
            continue
        if limit_w < node.power_max_w:
            limits[node.node_id] = (Interval(start_at, end_at), limit_w)
    return limits
