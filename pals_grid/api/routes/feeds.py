"""/feeds: signals, how they do, what they said and when it was known."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AliasPath, Field

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, PageDep, SiteDep, bounded, read_site
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.service import feeds
from pals_grid.service.feeds import FeedRequest, FeedView, FetchOutcome
from pals_grid.service.paging import Paged

router = APIRouter(prefix="/feeds", tags=["feeds"])

Name = Annotated[str, Field(min_length=1, max_length=200)]


class FeedIn(Model):
    """A feed to add. ``secret_ref`` names a secret (``env:NAME``, ``file:PATH``), never is one."""

    site: str | None = None
    name: Name
    connector: Name
    options: dict[str, str] = Field(default_factory=dict)
    secret_ref: Annotated[str, Field(max_length=1000)] | None = None
    poll_s: float = 900.0
    stale_after_s: float = 7200.0


class ObservationOut(Model):
    """One value over ``[start_at, end_at)``, and when it was known."""

    start_at: Instant
    end_at: Instant
    value: float
    unit: str
    kind: ValueKind
    known_at: Instant


class HealthOut(Model):
    """What became of the fetches; errors in the provider's own words."""

    last_attempt_at: Instant | None
    last_success_at: Instant | None
    next_attempt_at: Instant | None
    last_error: str | None
    last_error_kind: str | None
    consecutive_failures: int
    invalid_total: int


def _feed(name: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("feed", name))


class FeedOut(Model):
    """A feed and how it does now."""

    id: int = _feed("id")
    site_id: int = _feed("site_id")
    name: str = _feed("name")
    connector: str = _feed("connector")
    quantity: Quantity = _feed("quantity")
    options: dict[str, str] = _feed("options")
    secret_ref: str | None = _feed("secret_ref")
    poll_s: float = _feed("poll_s")
    stale_after_s: float = _feed("stale_after_s")
    created_at: Instant = _feed("created_at")
    removed_at: Instant | None = _feed("removed_at")
    health: HealthOut
    latest: ObservationOut | None
    current: ObservationOut | None
    age_s: float | None
    coverage_24h_ratio: float
    stale: bool


class FetchOut(Model):
    """What one fetch gave."""

    feed_id: int
    fetched: int
    stored: int
    error: str | None


class PreviewOut(Model):
    """What a feed would give; nothing was stored."""

    observations: list[ObservationOut]


@router.get("", response_model=PagedOut[FeedOut])
def list_feeds(
    context: ContextDep, site: SiteDep, page: PageDep, request: Request, response: Response
) -> Paged[FeedView]:
    """A site's feeds."""
    return link_next(request, response, feeds.list_feeds(context, site, page))


def _request(context: ContextDep, body: FeedIn) -> FeedRequest:
    values = body.model_dump()
    return FeedRequest(**{**values, "site": body.site or read_site(context)})


@router.post("", response_model=FeedOut, status_code=201)
def add_feed(context: ContextDep, body: FeedIn, response: Response) -> FeedView:
    """Add a feed; it is fetched at the next look of the job."""
    feed = feeds.add_feed(context, _request(context, body))
    response.headers["location"] = f"/api/v1/feeds/{feed.id}"
    return feeds.load_feed(context, feed.id)


@router.post("/preview", response_model=PreviewOut)
def preview_feed(context: ContextDep, body: FeedIn) -> dict[str, list[Observation]]:
    """Fetch once with these settings and store nothing."""
    return {"observations": feeds.preview_feed(context, _request(context, body))}


@router.get("/{feed_id}", response_model=FeedOut)
def load_feed(context: ContextDep, feed_id: int) -> FeedView:
    """One feed."""
    return feeds.load_feed(context, feed_id)


@router.delete("/{feed_id}", status_code=204)
def remove_feed(context: ContextDep, feed_id: int) -> None:
    """Stop a feed; what it said stays, because plans were made from it."""
    feeds.remove_feed(context, feed_id)


@router.post("/{feed_id}/fetch", response_model=FetchOut)
def fetch_feed(context: ContextDep, feed_id: int) -> FetchOutcome:
    """Fetch now; a provider's failure is told in ``error``."""
    return feeds.fetch_feed(context, feed_id)


@router.get("/{feed_id}/series", response_model=PagedOut[ObservationOut])
def load_series(  # noqa: PLR0913, PLR0917 - each is one query parameter
    context: ContextDep,
    feed_id: int,
    page: PageDep,
    request: Request,
    response: Response,
    start_at: Annotated[Instant | None, Query(description="default: 24 h ago")] = None,
    end_at: Annotated[Instant | None, Query(description="default: in 48 h")] = None,
    as_of: Annotated[Instant | None, Query(description="only what we knew then")] = None,
) -> Paged[Observation]:
    """A feed's values over an interval, as known now or as of an instant."""
    now = context.clock.now()
    start = start_at or (end_at or now) - timedelta(days=1)
    interval = bounded(Interval(start, end_at or max(now, start) + timedelta(days=2)))
    found = feeds.load_series(context, feed_id, interval, as_of, page)
    return link_next(request, response, found)
