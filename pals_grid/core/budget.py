"""The site's power budget over intervals, what it was made from, and each node's share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, require_utc
from pals_grid.core.substitution import find_substitutions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.fallback import SlotSource
    from pals_grid.core.fleet import Fleet
    from pals_grid.core.series import Quantity, ValueKind
    from pals_grid.core.site import SitePolicy
    from pals_grid.core.substitution import Substitution


class Reason(StrEnum):
    """What set an interval's limit; the first that applies, from the top."""

    EVENT = "event"
    GRID_CONNECTION = "grid_connection"
    MAXIMUM = "maximum"
    RAMP = "ramp"
    NO_SIGNAL = "no_signal"
    FALLBACK = "fallback"
    PEAK = "peak"
    CARBON_CAP = "carbon_cap"
    SHED = "shed"
    SHIFTED_OUT = "shifted_out"
    SHIFTED_IN = "shifted_in"
    MINIMUM = "minimum"
    DEMAND = "demand"


class Constraint(StrEnum):
    """What a plan may be unable to keep."""

    EVENT = "event"
    GRID_CONNECTION = "grid_connection"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"
    FLEET = "fleet"
    THERMAL = "thermal"
    RAMP = "ramp"
    TIER_FLOOR = "tier_floor"
    DEADLINE = "deadline"
    CARBON_CAP = "carbon_cap"
    RESERVE = "reserve"
    SOLVER = "solver"


@dataclass(frozen=True, slots=True)
class PlanSlot:
    """What is expected of one interval. ``price_per_mwh`` is in the site's currency, all included.

    It is what the site pays, by its tariff. None means that nothing is known, never zero.
    ``reserved_w`` is what nodes may draw that cannot be reached; it is not the planner's to spend.
    ``peak_risk_per_mwh`` is the expected coincident-peak charge of a MWh, beside its price. The
    sources say which feed, or which fallback, the signals come from.
    ``carbon_g_per_kwh`` is the average intensity. Demand is expected (P50);
    ``demand_high_tokens_per_s`` is its upper quantile.
    """

    interval: Interval
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None
    demand_tokens_per_s: float
    reserved_w: float = 0.0
    peak_risk_per_mwh: float = 0.0
    price_source: SlotSource | None = None
    carbon_source: SlotSource | None = None
    marginal_carbon_g_per_kwh: float | None = None
    demand_high_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeakCharge:
    """An amount per kW of the highest mean power over windows of ``window_s`` in ``intervals``.

    ``reached_w`` is the billed peak so far (ratchets included): power up to it costs no more.
    A charge of the next billing period is another one.
    """

    name: str
    price_per_kw: float
    intervals: tuple[Interval, ...]
    reached_w: float = 0.0
    window_s: float = 900.0

    def __post_init__(self) -> None:
        if not 0 <= self.price_per_kw < math.inf:
            raise InvalidValue("price_per_kw", self.price_per_kw, "must be finite, not negative")
        if not 0 <= self.reached_w < math.inf:
            raise InvalidValue("reached_w", self.reached_w, "must be finite and not negative")
        if not 60 <= self.window_s <= 86_400:
            raise InvalidValue("window_s", self.window_s, "must be from 60 to 86400")


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Tokens to be served at any time from ``release_at`` (None: now) to ``deadline_at``.

    ``value_per_mtoken`` is what a million of them are worth, in the site's currency: they are
    left undone where they cost more. None: they must be done.
    """

    name: str
    tokens: float
    deadline_at: datetime
    release_at: datetime | None = None
    value_per_mtoken: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tokens < math.inf:
            raise InvalidValue("tokens", self.tokens, "must be finite and not negative")
        require_utc("deadline_at", self.deadline_at)
        if self.release_at is not None:
            Interval(self.release_at, self.deadline_at)
        value = self.value_per_mtoken
        if value is not None and not 0 <= value < math.inf:
            raise InvalidValue("value_per_mtoken", value, "must be finite and not negative")


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
    """Everything a planner may look at. ``fleets`` are the nodes that can be reached.

    Any fleet can serve any token. ``backlog_tokens`` are output tokens of the first deferrable
    tier's work that waits already. ``carbon_spent_kg`` is what the site's local day had when the
    first slot began; ``power_before_w`` what the site drew then, where ramps are to count it.
    """

    policy: SitePolicy
    fleets: tuple[Fleet, ...]
    slots: tuple[PlanSlot, ...]
    events: tuple[DemandResponseEvent, ...]
    planned_at: datetime
    backlog_tokens: float = 0.0
    batch_work: tuple[BatchWork, ...] = ()
    peak_charges: tuple[PeakCharge, ...] = ()
    carbon_spent_kg: float = 0.0
    power_before_w: float | None = None


NO_WAITING_RATIO = 1e-3
"""Shares of the planned throughput up to this are rounding."""


@dataclass(frozen=True, slots=True)
class BudgetInterval:
    """The site's allowance over one interval, and why.

    ``waiting_tokens_per_s`` is what of the planned throughput may wait: the allocator needs it, and
    it is not stored. None where nothing may wait, or nobody says.

    ``limit_w`` must not be exceeded; ``expected_power_w`` is what the planned tokens need.
    ``shadow_price_per_kw_h`` is what one more kW over the interval would be worth beyond its
    energy's price, in the site's currency per kWh; 0 where nothing withholds power.
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
    peak_risk_per_mwh: float = 0.0
    price_source: SlotSource | None = None
    carbon_source: SlotSource | None = None
    shadow_price_per_kw_h: float = 0.0
    waiting_tokens_per_s: float | None = field(default=None, compare=False)

    @property
    def granted_tokens_per_s(self) -> float:
        """Throughput that nodes fill up with work that may wait: the planned one, or none of it.

        Where the plan serves nothing that may wait, a lull of what cannot is no reason to.
        """
        waiting = self.waiting_tokens_per_s
        if waiting is not None and waiting <= NO_WAITING_RATIO * self.planned_tokens_per_s:
            return 0.0
        return self.planned_tokens_per_s


@dataclass(frozen=True, slots=True)
class Finding:
    """What a plan could not keep: which constraint, whose, when, by how much, and what instead."""

    constraint: Constraint
    name: str
    interval: Interval
    amount: float
    unit: str
    explanation: str


@dataclass(frozen=True, slots=True)
class PowerBudget:
    """A plan: intervals in order, without gaps or overlaps; and what could not be kept."""

    planner: str
    intervals: tuple[BudgetInterval, ...]
    findings: tuple[Finding, ...] = ()


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
class NodeShare:
    """What each of some nodes that are alike may draw: one value an interval of their plan."""

    node_ids: tuple[int, ...]
    power_min_w: Sequence[float]
    power_max_w: Sequence[float]
    target_tokens_per_s: Sequence[float]


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

    @property
    def substitutions(self) -> tuple[Substitution, ...]:
        """Where the plan rests on something that stands in for a feed."""
        return find_substitutions(self.budget.intervals)
