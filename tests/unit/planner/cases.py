"""Requests of half-hour slots, and what their plans come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.budget import (
    PlanRequest,
    PlanSlot,
)
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Fleet, Origin
from pals_grid.core.intervals import slots
from pals_grid.core.site import ServiceTier, SitePolicy
from tests.unit.planner.enumeration import CURVE

if TYPE_CHECKING:
    from pals_grid.core.budget import BudgetInterval, PowerBudget

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
POLICY = SitePolicy(
    slug="s",
    name="S",
    grid_connection_w=2400.0,
    minimum_w=0.0,
    safe_limit_w=0.0,
    reserve_ratio=0.25,
)
TIERS = (
    ServiceTier("gold", 0.5, value_per_mtoken=9.0),
    ServiceTier("silver", 0.3, 0.1, 5.0),
    ServiceTier("bronze", 0.2, 0.5, 2.0),
)


def request_of(
    prices: list[float | None],
    demand: list[float],
    policy: SitePolicy = POLICY,
    *,
    event_w: float | None = None,
    carbon: list[float | None] | None = None,
) -> PlanRequest:
    """Half-hour slots from ``NOW``; an event over all of them where ``event_w`` is given."""
    end_at = NOW + HALF_HOUR * len(prices)
    columns = (
        slots(NOW, end_at, HALF_HOUR),
        prices,
        carbon or [200.0] * len(prices),
        demand,
    )
    order = EventRequest(name="DFS", start_at=NOW, end_at=end_at, limit_w=event_w or 0.0)
    event = DemandResponseEvent(7, 1, 1, EventStatus.SCHEDULED, order, 2000.0, Origin.MODELLED, NOW)
    return PlanRequest(
        policy=policy,
        fleets=(Fleet("f", CURVE),),
        slots=tuple(PlanSlot(*row) for row in zip(*columns, strict=True)),
        events=() if event_w is None else (event,),
        planned_at=NOW,
    )


def cost_of(budget: PowerBudget) -> float:
    """Cost of the planned energy, in the site's currency; every price is known."""
    return sum(
        (item.price_per_mwh or 0.0) / 3.6e9 * item.expected_power_w * item.interval.duration_s
        for item in budget.intervals
    )


def powers_w(budget: PowerBudget) -> list[float]:
    return [item.expected_power_w for item in budget.intervals]


def only(budget: PowerBudget) -> BudgetInterval:
    (item,) = budget.intervals
    return item
