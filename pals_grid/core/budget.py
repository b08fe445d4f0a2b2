"""The site's power budget over intervals, what it was made from, and each node's share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.fleet import PowerCurve
    from pals_grid.core.intervals import Interval
    from pals_grid.core.series import Quantity, ValueKind
    from pals_grid.core.site import SitePolicy


class Reason(StrEnum):
    """What set an interval's limit; the first that applies, from the top."""

    EVENT = "event"
    GRID_CONNECTION = "grid_connection"
    NO_SIGNAL = "no_signal"
    SHIFTED_OUT = "shifted_out"
    SHIFTED_IN = "shifted_in"
    MINIMUM = "minimum"
    DEMAND = "demand"


@dataclass(frozen=True, slots=True)
class PlanSlot:
    """What is expected of one interval. ``price_per_mwh`` is in the site's currency.

    None means that nothing is known, never zero.
    """

    interval: Interval
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None
    demand_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class PlanInput:
    """One signal as a plan saw it."""

    feed_id: int
    feed: str
    quantity: Quantity
    as_of: datetime
    latest_known_at: datetime | None
    values: int
    coverage_ratio: float
    kinds: tuple[ValueKind, ...]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Everything a planner may look at. ``curve`` is the fleet's, at the site's boundary.

    ``backlog_tokens`` are output tokens of deferrable work that waits already.
    """

    policy: SitePolicy
    curve: PowerCurve
    slots: tuple[PlanSlot, ...]
    events: tuple[DemandResponseEvent, ...]
    planned_at: datetime
    backlog_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class BudgetInterval:
    """The site's allowance over one interval, and why.

    ``limit_w`` must not be exceeded; ``expected_power_w`` is what the planned tokens need.
    """

    interval: Interval
    limit_w: float
    reason: Reason
    explanation: str
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None
    demand_tokens_per_s: float
    planned_tokens_per_s: float
    expected_power_w: float
    shortfall_tokens_per_s: float = 0.0
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class PowerBudget:
    """A plan: intervals in order, without gaps or overlaps."""

    planner: str
    intervals: tuple[BudgetInterval, ...]


@dataclass(frozen=True, slots=True)
class PowerEnvelope:
    """What one node may draw over one interval, at the node's boundary."""

    node_id: int
    interval: Interval
    power_min_w: float
    power_max_w: float
    target_tokens_per_s: float
    reason: Reason
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A stored plan with what it saw; ``version`` rises by one per site."""

    id: int
    site_id: int
    version: int
    created_at: datetime
    trigger: str
    inputs: tuple[PlanInput, ...]
    budget: PowerBudget
