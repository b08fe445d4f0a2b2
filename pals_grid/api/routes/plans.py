"""/plans and /envelopes: the power budget, why, from what, and each node's share."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AliasPath, Field

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, PageDep, SiteDep
from pals_grid.api.routes.feeds import ObservationOut
from pals_grid.core.budget import Constraint, Plan, PowerEnvelope, Reason
from pals_grid.core.fallback import Absence, SourceKind
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.service import plans
from pals_grid.service.paging import Paged
from pals_grid.service.plans import FeedEvidence, PlanSummary

router = APIRouter(tags=["plans"])

PlanVersion = Annotated[
    Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["latest"],
    Path(description="a version, or latest"),
]


class SummaryOut(Model):
    """One line of the list of plans."""

    version: int
    created_at: Instant
    planner: str
    trigger: str
    intervals: int


class InputOut(Model):
    """One signal as the plan saw it."""

    feed_id: int
    feed: str
    quantity: Quantity
    as_of: Instant
    latest_known_at: Instant | None
    values: int
    coverage_ratio: float
    kinds: list[ValueKind]


def _during(name: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("interval", name))


class TakenFromOut(Model):
    """The time in the past that a value was taken from."""

    start_at: Instant
    end_at: Instant


class SlotSourceOut(Model):
    """Where a value comes from; all kinds but ``primary`` stand in for the ``primary`` feed.

    ``value`` is what was taken, in ``unit``, before any tariff. ``absence`` says why the primary
    is not used. ``tariff_id`` is the tariff that made the price of it, 0 where there is none.
    """

    kind: SourceKind
    feed_id: int
    feed: str
    value: float
    unit: str
    value_kind: ValueKind | None
    taken_from: TakenFromOut | None
    weeks_back: int
    primary: str
    absence: Absence | None
    silent_since_at: Instant | None
    tariff_id: int


class BudgetIntervalOut(Model):
    """The site's allowance over one interval and why; price in the site's currency.

    The price is what the site pays for energy, by its tariff; ``peak_risk_per_mwh`` stands beside
    it: the expected coincident-peak charge of a MWh.
    """

    start_at: Instant = _during("start_at")
    end_at: Instant = _during("end_at")
    limit_w: float
    reason: Reason
    explanation: str
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None
    demand_tokens_per_s: float
    planned_tokens_per_s: float
    expected_power_w: float
    shortfall_tokens_per_s: float
    shadow_price_per_kw_h: float
    event_id: int | None
    peak_risk_per_mwh: float
    price_source: SlotSourceOut | None
    carbon_source: SlotSourceOut | None


class SubstitutionOut(Model):
    """Consecutive intervals whose value of one signal is a substitute, and why."""

    quantity: Quantity
    start_at: Instant = _during("start_at")
    end_at: Instant = _during("end_at")
    source: SlotSourceOut


class FindingOut(Model):
    """What the plan could not keep, by how much, and what it did instead."""

    constraint: Constraint
    name: str
    start_at: Instant = _during("start_at")
    end_at: Instant = _during("end_at")
    amount: float
    unit: str
    explanation: str


class PlanOut(Model):
    """A plan with what it saw, and where something stood in for a feed."""

    site_id: int
    version: int
    created_at: Instant
    trigger: str
    planner: str = Field(validation_alias=AliasPath("budget", "planner"))
    inputs: list[InputOut]
    intervals: list[BudgetIntervalOut] = Field(validation_alias=AliasPath("budget", "intervals"))
    substitutions: list[SubstitutionOut]
    findings: list[FindingOut] = Field(validation_alias=AliasPath("budget", "findings"))


class EvidenceOut(Model):
    """A feed's values over the plan's horizon, as recorded when the plan was made."""

    feed_id: int = Field(validation_alias=AliasPath("feed", "id"))
    feed: str = Field(validation_alias=AliasPath("feed", "name"))
    quantity: Quantity = Field(validation_alias=AliasPath("feed", "quantity"))
    observations: list[ObservationOut]


class EnvelopeOut(Model):
    """What one node may draw over one interval, at the node's boundary."""

    node_id: int
    start_at: Instant = _during("start_at")
    end_at: Instant = _during("end_at")
    power_min_w: float
    power_max_w: float
    target_tokens_per_s: float
    reason: Reason
    event_id: int | None


def _number(version: int | str) -> int | None:
    return version if isinstance(version, int) else None


@router.get("/plans", response_model=PagedOut[SummaryOut])
def list_plans(
    context: ContextDep, site: SiteDep, page: PageDep, request: Request, response: Response
) -> Paged[PlanSummary]:
    """A site's plans, the newest first."""
    return link_next(request, response, plans.list_plans(context, site, page))


@router.get("/plans/{version}", response_model=PlanOut)
def load_plan(context: ContextDep, site: SiteDep, version: PlanVersion) -> Plan:
    """One plan: its intervals, their reasons, its inputs."""
    return plans.load_plan(context, site, _number(version))


@router.get("/plans/{version}/evidence", response_model=list[EvidenceOut])
def load_plan_evidence(
    context: ContextDep, site: SiteDep, version: PlanVersion
) -> list[FeedEvidence]:
    """What was known when the plan was made."""
    number = _number(version) or plans.load_plan(context, site).version
    return list(plans.load_plan_evidence(context, site, number))


@router.get("/envelopes", response_model=list[EnvelopeOut])
def load_envelopes(
    context: ContextDep,
    site: SiteDep,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> list[PowerEnvelope]:
    """Every node's envelopes of the latest plan, or of one version."""
    return list(plans.load_envelopes(context, site, version))
