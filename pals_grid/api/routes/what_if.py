"""/sites/{slug}/what-if: tomorrow as the site stands, with changes, and by the plan's rivals."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Field

from pals_grid.api.base import Instant, Model
from pals_grid.api.deps import ContextDep
from pals_grid.api.routes.plans import FindingOut
from pals_grid.api.routes.sites import TierBody
from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import EventRequest
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.site import ServiceTier
from pals_grid.core.tariff_document import read_tariff
from pals_grid.counterfactual.course import Course
from pals_grid.service import what_if
from pals_grid.service.what_if import Alternative, WhatIf
from pals_grid.service.what_if_changes import Changes

router = APIRouter(prefix="/sites/{slug}/what-if", tags=["what-if"])
_UNSET: Any = None
EXAMPLE: dict[str, Any] = {
    "policy": {"carbon_price_per_tonne": 120, "maximum_w": 90000},
    "event": {
        "start_at": "2026-03-03T17:00:00Z",
        "end_at": "2026-03-03T19:00:00Z",
        "limit_w": 60000,
    },
    "demand_ratio": 1.2,
}


class PolicyChanges(Model):
    """Fields of the site's policy that differ; ``tiers`` as a whole, null takes a bound away."""

    carbon_price_per_tonne: float = _UNSET
    marginal_carbon_ratio: float = _UNSET
    carbon_cap_kg_per_day: float | None = _UNSET
    grid_connection_w: float = _UNSET
    maximum_w: float | None = _UNSET
    minimum_w: float = _UNSET
    ramp_w_per_min: float | None = _UNSET
    reserve_ratio: float = _UNSET
    deferrable_ratio: float = _UNSET
    deferral_s: float = _UNSET
    tiers: tuple[TierBody, ...] = _UNSET


class WhatIfEvent(Model):
    """An event that nobody ordered: ``limit_w``, or ``reduction_ratio`` of the reference power."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "what if"
    start_at: Instant
    end_at: Instant
    limit_w: float | None = None
    reduction_ratio: float | None = None
    ramp_s: float = 0.0


class WhatIfIn(Model):
    """What differs, and the stretch to count; the site's next local day where none is named."""

    start_at: Instant | None = None
    end_at: Instant | None = None
    policy: PolicyChanges = PolicyChanges()
    event: WhatIfEvent | None = None
    demand_ratio: float = 1.0
    tariff: dict[str, Any] | None = None


class OutcomeOut(Model):
    """Sums over a stretch; null where no slot of it knows the signal. Power at node boundary.

    ``cost`` is energy alone, for ``cost_covered_ratio`` of it; ``worth`` adds priced carbon and
    the risk of the grid's peak. ``demand_charge`` is what the stretch's peaks add to the bill.
    """

    energy_kwh: float
    cost: float | None
    cost_covered_ratio: float
    cost_per_mtoken: float | None
    worth: float | None
    carbon_kg: float | None
    carbon_covered_ratio: float
    marginal_carbon_kg: float | None
    demand_charge: float
    peak_w: float
    tokens_arrived: float
    tokens_served: float
    tokens_late: float
    tokens_lost: float
    tokens_carried: float
    floor_misses_tokens: float | None


class WhatIfIntervalOut(Model):
    """One slot of an alternative; ``limit_w`` is null where nothing limits the site."""

    start_at: Instant
    end_at: Instant
    limit_w: float | None
    power_w: float
    tokens_per_s: float
    demand_tokens_per_s: float
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None
    reason: str


class AlternativeOut(Model):
    """One alternative. ``outcome`` counts the interval, ``whole`` the plan's whole horizon.

    ``low`` and ``high`` are the interval's at P10 and P90 of what our models forecast.
    """

    name: str
    changed: bool
    settings: str
    outcome: OutcomeOut
    whole: OutcomeOut
    low: OutcomeOut | None
    high: OutcomeOut | None
    findings: list[FindingOut]
    intervals: list[WhatIfIntervalOut]


class MissingOut(Model):
    """An alternative that is not there, and why."""

    name: str
    reason: str


class SourceShareOut(Model):
    """Hours in which a quantity comes from one source."""

    quantity: str
    kind: str
    words: str
    hours: float


class WhatIfOut(Model):
    """Alternatives for a stretch of the plan's horizon; all of it is modelled."""

    site: str
    currency: str
    timezone: str
    made_at: Instant
    start_at: Instant
    end_at: Instant
    horizon_start_at: Instant
    horizon_end_at: Instant
    origin: Origin
    boundary: str
    alternatives: list[AlternativeOut]
    absent: list[MissingOut]
    sources: list[SourceShareOut]
    notes: list[str]


WhatIfBody = Annotated[WhatIfIn, Body(examples=[EXAMPLE])]


@router.post("", response_model=WhatIfOut)
def ask_what_if(context: ContextDep, slug: str, body: WhatIfBody) -> dict[str, Any]:
    """Work out what the plan and its rivals come to; nothing is stored, no node hears of it.

    503 with Retry-After while another one is being worked out.
    """
    found = what_if.what_if(context, slug, _changes(body), body.start_at, body.end_at)
    return _write(found)


def _changes(body: WhatIfIn) -> Changes:
    policy = body.policy.model_dump(exclude_unset=True)
    if policy.get("tiers") is not None:
        policy["tiers"] = tuple(ServiceTier(**tier) for tier in policy["tiers"])
    return Changes(
        policy=policy,
        event=None if body.event is None else _event(body.event),
        demand_ratio=body.demand_ratio,
        tariff=None if body.tariff is None else read_tariff(body.tariff),
    )


def _event(body: WhatIfEvent) -> EventRequest:
    try:
        return EventRequest(**body.model_dump())
    except InvalidValue as error:
        raise InvalidValue(f"event.{error.field}", error.value, error.bound) from error


def _write(found: WhatIf) -> dict[str, Any]:
    """Return the answer's fields."""
    return {
        "site": found.site,
        "currency": found.currency,
        "timezone": found.timezone,
        "made_at": found.made_at,
        "start_at": found.interval.start_at,
        "end_at": found.interval.end_at,
        "horizon_start_at": found.horizon.start_at,
        "horizon_end_at": found.horizon.end_at,
        "origin": Origin.MODELLED,
        "boundary": "node",
        "alternatives": [_alternative(item, found.interval) for item in found.alternatives],
        "absent": found.absent,
        "sources": found.sources,
        "notes": found.notes,
    }


def _alternative(item: Alternative, during: Interval) -> dict[str, Any]:
    return {
        "name": item.name,
        "changed": item.changed,
        "settings": item.course.settings,
        "outcome": item.outcome,
        "whole": item.whole,
        "low": item.low,
        "high": item.high,
        "findings": item.course.findings,
        "intervals": _intervals(item.course, during),
    }


def _intervals(course: Course, during: Interval) -> list[dict[str, Any]]:
    return [
        {
            "start_at": slot.interval.start_at,
            "end_at": slot.interval.end_at,
            "limit_w": None if course.limit_w is None else course.limit_w[i],
            "power_w": float(course.power_w[i]),
            "tokens_per_s": float(course.served[i]) / slot.interval.duration_s,
            "demand_tokens_per_s": slot.demand_tokens_per_s,
            "price_per_mwh": slot.price_per_mwh,
            "carbon_g_per_kwh": slot.carbon_g_per_kwh,
            "reason": course.reasons[i],
        }
        for i, slot in enumerate(course.slots)
        if slot.interval.overlap_s(during) > 0
    ]
