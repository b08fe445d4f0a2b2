"""What a what-if changes: the site's policy, an event more, the demand, the tariff."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import DemandResponseEvent, EventStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.budget import PlanRequest
    from pals_grid.core.events import EventRequest
    from pals_grid.core.fleet import Origin
    from pals_grid.core.intervals import Interval
    from pals_grid.core.site import Site, SitePolicy
    from pals_grid.core.tariff import Tariff

POLICY_FIELDS = (
    "carbon_price_per_tonne",
    "marginal_carbon_ratio",
    "carbon_cap_kg_per_day",
    "grid_connection_w",
    "maximum_w",
    "minimum_w",
    "ramp_w_per_min",
    "reserve_ratio",
    "deferrable_ratio",
    "deferral_s",
    "tiers",
)
"""Fields of a policy that may differ; those of the horizon and of the clock stay."""

MOST_DEMAND_RATIO = 100.0


@dataclass(frozen=True, slots=True)
class Changes:
    """``policy`` maps names of ``POLICY_FIELDS`` to values; ``tariff`` holds as if set already."""

    policy: Mapping[str, Any] = field(default_factory=dict)
    event: EventRequest | None = None
    demand_ratio: float = 1.0
    tariff: Tariff | None = None

    def __post_init__(self) -> None:
        for name in self.policy:
            if name not in POLICY_FIELDS:
                raise InvalidValue(
                    name, self.policy[name], f"must be of {', '.join(POLICY_FIELDS)}"
                )
        if not (math.isfinite(self.demand_ratio) and 0 <= self.demand_ratio <= MOST_DEMAND_RATIO):
            bound = f"must be from 0 to {MOST_DEMAND_RATIO:g}"
            raise InvalidValue("demand_ratio", self.demand_ratio, bound)

    @property
    def is_none(self) -> bool:
        """Whether nothing is asked to differ."""
        return all(getattr(self, item.name) == getattr(_NONE, item.name) for item in fields(self))

    def site(self, site: Site) -> Site:
        """Return the site with the changed policy.

        Raises:
            InvalidValue: for a value outside its bounds.
        """
        return replace(site, policy=self._policy(site.policy))

    def _policy(self, held: SitePolicy) -> SitePolicy:
        changes = dict(self.policy)
        if changes.get("tiers") and not held.tiers:
            changes.setdefault("deferrable_ratio", 0.0)
        return replace(held, **changes)


_NONE = Changes()


def changed_request(
    request: PlanRequest, changes: Changes, site: Site, reference: tuple[float, Origin] | None
) -> PlanRequest:
    """Return a request, read for the changed policy and tariff, with the event and the demand.

    ``reference`` is the power that the event's reduction counts from, and its origin.

    Raises:
        InvalidValue: for an event that does not touch the plan's horizon.
    """
    slots = request.slots
    if changes.demand_ratio != 1:
        slots = tuple(
            replace(
                slot,
                demand_tokens_per_s=slot.demand_tokens_per_s * changes.demand_ratio,
                demand_high_tokens_per_s=None
                if slot.demand_high_tokens_per_s is None
                else slot.demand_high_tokens_per_s * changes.demand_ratio,
            )
            for slot in slots
        )
    events = request.events
    if changes.event is not None:
        assert reference is not None
        event = _event(changes.event, site, reference, request.planned_at)
        events = (*events, event)
    return replace(request, slots=slots, events=events)


def check_event(order: EventRequest, horizon: Interval, now: datetime) -> None:
    """Refuse an event that a plan made now would not see.

    Raises:
        InvalidValue: naming the bound.
    """
    if order.end_at <= now:
        bound = f"must be after now ({now.isoformat()})"
        raise InvalidValue("event.end_at", order.end_at.isoformat(), bound)
    if order.start_at >= horizon.end_at:
        bound = f"must be before the plan's horizon ends ({horizon.end_at.isoformat()})"
        raise InvalidValue("event.start_at", order.start_at.isoformat(), bound)


def _event(
    order: EventRequest, site: Site, reference: tuple[float, Origin], now: datetime
) -> DemandResponseEvent:
    return DemandResponseEvent(
        id=0,
        site_id=site.id,
        version=0,
        status=EventStatus.SCHEDULED,
        order=order,
        reference_w=reference[0],
        reference_origin=reference[1],
        created_at=now,
    )
