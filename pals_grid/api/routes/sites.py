"""/sites: the grid connection, its limits and its policy."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import AliasPath, Field

from pals_grid.api.base import Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, IfMatchDep, PageDep
from pals_grid.api.etag import version_tag
from pals_grid.api.preconditions import precondition
from pals_grid.core.site import DEFAULT_RESERVE_RATIO, Site, SitePolicy, Slo
from pals_grid.service import nodes, sites
from pals_grid.service.paging import Paged

router = APIRouter(prefix="/sites", tags=["sites"])
_UNSET: Any = None


class SloBody(Model):
    """Latency objectives."""

    ttft_s: float = 2.0
    itl_s: float = 0.1


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


class SitePatch(Model):
    """What changes; a field that is left out stays. The slug never changes."""

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


class EnrolmentToken(Model):
    """A token with which nodes register; shown only here."""

    enrolment_token: str


def _tagged(response: Response, site: Site) -> Site:
    response.headers["etag"] = version_tag(site.version)
    return site


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
    site = sites.create_site(context, SitePolicy(**{**values, "slo": Slo(**values["slo"])}))
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
    if "slo" in changes:
        changes["slo"] = Slo(**changes["slo"])
    held = sites.load_site(context, slug)
    with precondition(expected, lambda: sites.load_site(context, slug).version):
        policy = replace(held.policy, **changes)
        # Without If-Match the version just read still guards what was merged with it.
        version = expected if expected is not None else held.version
        return _tagged(response, sites.update_site(context, slug, policy, version))


@router.post("/{slug}/enrolment-tokens", status_code=201)
def issue_enrolment_token(context: ContextDep, slug: str) -> EnrolmentToken:
    """Make a token with which nodes join this site."""
    return EnrolmentToken(enrolment_token=nodes.issue_enrolment_token(context, slug))
