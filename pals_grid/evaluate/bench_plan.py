"""The plans that ``make bench`` times."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.budget import BatchWork, PeakCharge, PlanRequest, PlanSlot
from pals_grid.core.fleet import Fleet, PowerCurve
from pals_grid.core.intervals import Interval, slots
from pals_grid.core.site import ServiceTier, SitePolicy
from pals_grid.planner.linear import plan_power_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.budget import PowerBudget

_NOW = datetime(2026, 1, 1, 9, tzinfo=UTC)

TIERS = (
    ServiceTier("gold", 0.3, value_per_mtoken=10.0),
    ServiceTier("silver", 0.2, 0.1, 8.0),
    ServiceTier("bronze", 0.2, 0.25, 4.0),
    ServiceTier("free", 0.1, 0.5, 1.5),
    ServiceTier("batch", 0.1, deferral_s=6 * 3600.0),
    ServiceTier("index", 0.1, 0.5, 1.0, deferral_s=24 * 3600.0),
)


def planning(
    curve: PowerCurve, *, fleets: int, hours: int, minutes: int
) -> Callable[[], PowerBudget]:
    """Plan a horizon with six tiers, batch work, a peak charge, a ramp and a carbon cap.

    Every fleet's curve is ``curve`` with its power and its throughput scaled a little differently.
    """
    mixed = tuple(
        Fleet(f"f{i}", _scaled(curve, 1 + i / fleets, 1 + i % 7 / 10)) for i in range(fleets)
    )
    joint = PowerCurve.combined([fleet.curve for fleet in mixed])
    policy = SitePolicy(
        slug="bench",
        name="Bench",
        grid_connection_w=0.9 * joint.max_power_w,
        minimum_w=0.0,
        safe_limit_w=0.0,
        carbon_price_per_tonne=60.0,
        tiers=TIERS,
        ramp_w_per_min=joint.max_power_w / 100,
        carbon_cap_kg_per_day=0.6 * joint.max_power_w / 1000 * 24 * 0.2,
    )
    horizon = Interval(_NOW, _NOW + timedelta(hours=hours))
    grid = slots(horizon.start_at, horizon.end_at, timedelta(minutes=minutes))
    request = PlanRequest(
        policy=policy,
        fleets=mixed,
        slots=tuple(_slot(interval, i, joint.max_tokens_per_s) for i, interval in enumerate(grid)),
        events=(),
        planned_at=_NOW,
        batch_work=(
            BatchWork("job", joint.max_tokens_per_s * 3600, _NOW + timedelta(hours=hours / 2)),
        ),
        peak_charges=(PeakCharge("month", 12.0, (horizon,), 0.6 * joint.max_power_w),),
    )
    return lambda: plan_power_budget(request)


def _scaled(curve: PowerCurve, of_tokens: float, of_power: float) -> PowerCurve:
    return PowerCurve(
        tuple(rate * of_tokens for rate in curve.tokens_per_s),
        tuple(power_w * of_power for power_w in curve.power_w),
    )


def _slot(interval: Interval, i: int, most_tokens_per_s: float) -> PlanSlot:
    day = 2 * math.pi * interval.start_at.timestamp() / 86_400
    demand = most_tokens_per_s * (0.5 + 0.25 * math.sin(day) + 0.002 * (i * 37 % 11))
    return PlanSlot(
        interval=interval,
        price_per_mwh=60 + 50 * math.sin(2 * day) + i * 37 % 11,
        carbon_g_per_kwh=200 + 100 * math.sin(3 * day),
        demand_tokens_per_s=demand,
        demand_high_tokens_per_s=1.1 * demand,
    )
