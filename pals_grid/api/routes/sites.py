"""/sites: the grid connection, its limits and its policy."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import AliasPath, Field

from pals_grid.api.base import Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, IfMatchDep, PageDep
from pals_grid.api.etag import version_tag
from pals_grid.api.preconditions import precondition
from pals_grid.core.site import (
    DEFAULT_RESERVE_RATIO,
    LiveGrants,
    ServiceTier,
    Site,
    SitePolicy,
    Slo,
)
from pals_grid.service import nodes, sites
from pals_grid.service.paging import Paged

router = APIRouter(prefix="/sites", tags=["sites"])
_UNSET: Any = None


class SloBody(Model):
    """Latency objectives."""

    ttft_s: float = 2.0
    itl_s: float = 0.1


class TierBody(Model):
    """A class of demand; the first of a site's tiers is the most important."""

    name: str
    demand_ratio: float
    loss_ratio: float = 0.0
    value_per_mtoken: float = 0.0
    deferral_s: float = 0.0


class SiteIn(Model):
    """A site as it is created. Bounds are those of the domain and named when they are broken."""

    slug: str
    name: Annotated[str, Field(min_length=1, max_length=200)]
    grid_connection_w: float
    minimum_w: float
    safe_limit_w: float
    timezone: str = "UTC"
    currency: str = "EUR"
    carbon_price_per_tonne: float = 0.0
    deferrable_ratio: float = 0.0
    deferral_s: float = 6 * 3600.0
    reserve_ratio: float = DEFAULT_RESERVE_RATIO
    demand_tokens_per_s: float = 0.0
    slot_s: float = 1800.0
    horizon_s: float = 36 * 3600.0
    slo: SloBody = SloBody()
    tiers: tuple[TierBody, ...] = ()
    maximum_w: float | None = None
    ramp_w_per_min: float | None = None
    marginal_carbon_ratio: float = 0.0
    carbon_cap_kg_per_day: float | None = None
    live_grants: LiveGrants = LiveGrants.OFF
    other_load_w: float = 0.0


class SitePatch(Model):
    """What changes; a field that is left out stays, of ``slo`` too. The slug never changes.

    ``tiers`` are replaced as a whole; null takes an optional bound away.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)] = _UNSET
    grid_connection_w: float = _UNSET
    minimum_w: float = _UNSET
    safe_limit_w: float = _UNSET
    timezone: str = _UNSET
    currency: str = _UNSET
    carbon_price_per_tonne: float = _UNSET
    deferrable_ratio: float = _UNSET
    deferral_s: float = _UNSET
    reserve_ratio: float = _UNSET
    demand_tokens_per_s: float = _UNSET
    slot_s: float = _UNSET
    horizon_s: float = _UNSET
    slo: SloBody = _UNSET
    tiers: tuple[TierBody, ...] = _UNSET
    maximum_w: float | None = _UNSET
    ramp_w_per_min: float | None = _UNSET
    marginal_carbon_ratio: float = _UNSET
    carbon_cap_kg_per_day: float | None = _UNSET
    live_grants: LiveGrants = _UNSET
    other_load_w: float = _UNSET


def _policy(name: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("policy", name))


class SiteOut(Model):
    """A site; power at the site's boundary."""

    id: int
    version: int
    slug: str = _policy("slug")
    name: str = _policy("name")
    grid_connection_w: float = _policy("grid_connection_w")
    minimum_w: float = _policy("minimum_w")
    safe_limit_w: float = _policy("safe_limit_w")
    timezone: str = _policy("timezone")
    currency: str = _policy("currency")
    carbon_price_per_tonne: float = _policy("carbon_price_per_tonne")
    deferrable_ratio: float = _policy("deferrable_ratio")
    deferral_s: float = _policy("deferral_s")
    reserve_ratio: float = _policy("reserve_ratio")
    demand_tokens_per_s: float = _policy("demand_tokens_per_s")
    slot_s: float = _policy("slot_s")
    horizon_s: float = _policy("horizon_s")
    slo: SloBody = _policy("slo")
    tiers: tuple[TierBody, ...] = _policy("tiers")
    maximum_w: float | None = _policy("maximum_w")
    ramp_w_per_min: float | None = _policy("ramp_w_per_min")
    marginal_carbon_ratio: float = _policy("marginal_carbon_ratio")
    carbon_cap_kg_per_day: float | None = _policy("carbon_cap_kg_per_day")
    live_grants: LiveGrants = _policy("live_grants")
    other_load_w: float = _policy("other_load_w")


class EnrolmentToken(Model):
    """A token with which nodes register; shown only here."""

    enrolment_token: str


def _tagged(response: Response, site: Site) -> Site:
    response.headers["etag"] = version_tag(site.version)
    return site


def _tiers(bodies: Iterable[dict[str, Any]]) -> tuple[ServiceTier, ...]:
    return tuple(ServiceTier(**body) for body in bodies)


@router.get("", response_model=PagedOut[SiteOut])
def list_sites(
    context: ContextDep, page: PageDep, request: Request, response: Response
) -> Paged[Site]:
    """All sites."""
    return link_next(request, response, sites.list_sites(context, page))


@router.post("", response_model=SiteOut, status_code=201)
def create_site(context: ContextDep, body: SiteIn, response: Response) -> Site:
    """Create a site."""
    values = body.model_dump()
    values |= {"slo": Slo(**values["slo"]), "tiers": _tiers(values["tiers"])}
    site = sites.create_site(context, SitePolicy(**values))
    response.headers["location"] = f"/api/v1/sites/{site.policy.slug}"
    return _tagged(response, site)


@router.get("/{slug}", response_model=SiteOut)
def load_site(context: ContextDep, slug: str, response: Response) -> Site:
    """One site; its ETag is what If-Match of a change names."""
    return _tagged(response, sites.load_site(context, slug))


@router.patch("/{slug}", response_model=SiteOut)
def update_site(
    context: ContextDep, slug: str, body: SitePatch, expected: IfMatchDep, response: Response
) -> Site:
    """Change a site's policy; its plan follows at once."""
    changes = body.model_dump(exclude_unset=True)
    held = sites.load_site(context, slug)
    if "slo" in changes:
        changes["slo"] = replace(held.policy.slo, **changes["slo"])
    if "tiers" in changes:
        changes["tiers"] = _tiers(changes["tiers"])
    with precondition(expected, lambda: sites.load_site(context, slug).version):
        policy = replace(held.policy, **changes)
        # Without If-Match the version just read still guards what was merged with it.
        version = expected if expected is not None else held.version
        return _tagged(response, sites.update_site(context, slug, policy, version))


@router.post("/{slug}/enrolment-tokens", status_code=201)
def issue_enrolment_token(context: ContextDep, slug: str) -> EnrolmentToken:
    """Make a token with which nodes join this site."""
    return EnrolmentToken(enrolment_token=nodes.issue_enrolment_token(context, slug))
