"""What a plan of a site is made from at a moment: read once, for the plan and for what-ifs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pals_grid.core.budget import PlanRequest, PlanSlot
from pals_grid.core.fleet import Fleet, PowerCurve
from pals_grid.core.intervals import Interval
from pals_grid.planner.grid import plan_intervals
from pals_grid.service.expected_demand import load_expected_demand
from pals_grid.service.plan_inputs import (
    load_carbon_spent_kg,
    load_peak_charges,
    load_power_before_w,
    load_thermal_limits,
)
from pals_grid.service.reservations import ONLINE_FOR_PLANNING, load_reservations
from pals_grid.service.signals import load_signals
from pals_grid.store.events import EventRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.budget import PlanInput
    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.pricing import Pricing
    from pals_grid.core.site import Site
    from pals_grid.service.expected_demand import ExpectedDemand
    from pals_grid.service.plan_inputs import ThermalLimits
    from pals_grid.service.reservations import Reservation


@dataclass(frozen=True, slots=True)
class Planning:
    """A request to the planner, the signals that were read for it, and the fleet behind it.

    ``fleet`` are all nodes of the site; those in ``reservations`` are offline, those in ``hot``
    held by heat.
    """

    request: PlanRequest
    inputs: tuple[PlanInput, ...]
    fleet: tuple[NodeCapability, ...]
    reservations: dict[int, Reservation]
    hot: ThermalLimits
    demand: ExpectedDemand


def load_planning(
    connection: Connection, site: Site, now: datetime, pricing: Pricing | None = None
) -> Planning:
    """Read what is known at ``now``; ``pricing`` None: by the tariffs stored."""
    nodes = NodeRepository(connection).list_all(site.id)
    reservations = load_reservations(connection, site, nodes, now)
    fleet = tuple(replace(node.capability, online=node.id not in reservations) for node in nodes)
    policy = site.policy
    intervals = plan_intervals(policy, now, ())
    horizon = Interval(intervals[0].start_at, intervals[-1].end_at)
    hot = load_thermal_limits(connection, site, fleet, horizon.start_at, now)
    pricing = pricing or TariffRepository(connection).load_pricing(site)
    signals = load_signals(connection, site, pricing, intervals, now)
    curve = PowerCurve.combined([node.curve for node in fleet if node.online])
    # Unknown demand is not zero demand: nothing is throttled before there is a record.
    stated = policy.demand_tokens_per_s or curve.max_tokens_per_s
    demand = load_expected_demand(connection, site, intervals, now, stated)
    reserved = [
        sum(one.power_w_in(interval) for one in reservations.values()) for interval in intervals
    ]
    columns = (
        intervals,
        signals.price_per_mwh,
        signals.carbon_g_per_kwh,
        demand.tokens_per_s,
        reserved,
        signals.peak_risk_per_mwh,
        signals.price_sources,
        signals.carbon_sources,
        signals.marginal_carbon_g_per_kwh,
        demand.high_tokens_per_s,
    )
    request = PlanRequest(
        policy=policy,
        fleets=tuple(
            Fleet(
                node.name,
                node.curve,
                node.power_min_w,
                max(node.power_max_w, node.power_min_w),
                (hot[node.node_id],) if node.node_id in hot else (),
            )
            for node in fleet
            if node.online
        ),
        slots=tuple(PlanSlot(*values) for values in zip(*columns, strict=True)),
        events=tuple(EventRepository(connection).list_touching(site.id, horizon)),
        planned_at=now,
        backlog_tokens=NodeRepository(connection).load_backlog_tokens(
            site.id, now - ONLINE_FOR_PLANNING
        ),
        peak_charges=load_peak_charges(connection, site, pricing, horizon, now),
        carbon_spent_kg=load_carbon_spent_kg(connection, site, pricing, horizon.start_at, now),
        power_before_w=load_power_before_w(connection, site, horizon.start_at, now, reserved[0]),
    )
    return Planning(request, signals.inputs, fleet, reservations, hot, demand)
