"""/feeds: signals, how they do, what they said and when it was known."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import AliasPath, BeforeValidator, Field

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, PageDep, SiteDep, bounded, read_site
from pals_grid.core.fallback import Fallback, read_fallback, write_fallback
from pals_grid.core.feed import BreakerState
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.service import backfill, feeds, values
from pals_grid.service.feeds import FeedRequest, FeedView, FetchOutcome
from pals_grid.service.paging import Paged

router = APIRouter(prefix="/feeds", tags=["feeds"])

_CHAIN = (
    "what stands in where the feed has no value, in order: "
    '{"feed": NAME}, {"last_week": true, "weeks": 1 to 8} or {"constant": VALUE}'
)


def _read_chain(documents: list[dict[str, Any]]) -> tuple[Fallback, ...]:
    return tuple(read_fallback(item) for item in documents)


def _write_chain(chain: object) -> object:
    return [write_fallback(item) for item in chain] if isinstance(chain, tuple) else chain


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
    fallbacks: list[dict[str, Any]] = Field(default_factory=list, description=_CHAIN)


class FeedPatch(Model):
    """What changes of a feed."""

    fallbacks: list[dict[str, Any]] = Field(description=_CHAIN)


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
    last_new_at: Instant | None
    credit_left: float | None
    clock_skew_s: float | None


class RhythmOut(Model):
    """New values about every ``every_s``, at most ``late_s`` late."""

    every_s: float
    late_s: float


class ProviderOut(Model):
    """A provider as all its feeds meet it; while its breaker is open it is not asked."""

    key: str
    breaker: BreakerState
    failures: int
    probe_at: Instant | None


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
    fallbacks: Annotated[list[dict[str, Any]], BeforeValidator(_write_chain)] = _feed("fallbacks")
    health: HealthOut
    latest: ObservationOut | None
    current: ObservationOut | None
    age_s: float | None
    coverage_24h_ratio: float
    coverage_48h_ratio: float
    stale: bool
    rhythm: RhythmOut | None
    new_due_at: Instant | None
    late: bool
    provider: ProviderOut | None


class FetchOut(Model):
    """What one fetch gave."""

    feed_id: int
    fetched: int
    stored: int
    error: str | None


class BackfillIn(Model):
    """A part of the past to fetch, of at most 31 days."""

    start_at: Instant
    end_at: Instant


class ValuesOut(Model):
    """Values on an even grid: ``values[i]`` begins at ``start_at`` + i x ``step_s``; null: none."""

    feed_id: int
    quantity: Quantity
    unit: str | None
    start_at: Instant
    end_at: Instant
    step_s: int
    values: list[float | None]


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
    site, fallbacks = body.site or read_site(context), _read_chain(body.fallbacks)
    return FeedRequest(**{**values, "site": site, "fallbacks": fallbacks})


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


@router.patch("/{feed_id}", response_model=FeedOut)
def change_feed(context: ContextDep, feed_id: int, body: FeedPatch) -> FeedView:
    """Change what stands in for a feed; the plan follows at once."""
    feeds.set_fallbacks(context, feed_id, _read_chain(body.fallbacks))
    return feeds.load_feed(context, feed_id)


@router.delete("/{feed_id}", status_code=204)
def remove_feed(context: ContextDep, feed_id: int) -> None:
    """Stop a feed; what it said stays, because plans were made from it."""
    feeds.remove_feed(context, feed_id)


@router.post("/{feed_id}/fetch", response_model=FetchOut)
def fetch_feed(context: ContextDep, feed_id: int) -> FetchOutcome:
    """Fetch now; a provider's failure is told in ``error``."""
    return feeds.fetch_feed(context, feed_id)


@router.post("/{feed_id}/backfill", response_model=FetchOut)
def backfill_feed(context: ContextDep, feed_id: int, body: BackfillIn) -> FetchOutcome:
    """Fetch a part of the past and store what is new; asking again stores nothing twice."""
    return backfill.backfill_feed(context, feed_id, Interval(body.start_at, body.end_at))


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
    interval = _interval(context, start_at, end_at)
    found = feeds.load_series(context, feed_id, interval, as_of, page)
    return link_next(request, response, found)


@router.get("/{feed_id}/values", response_model=ValuesOut)
def load_values(
    context: ContextDep,
    feed_id: int,
    start_at: Annotated[Instant | None, Query(description="default: 24 h ago")] = None,
    end_at: Annotated[Instant | None, Query(description="default: in 48 h")] = None,
    step_s: Annotated[int, Query(ge=values.MIN_STEP_S, le=values.MAX_STEP_S)] = 900,
    as_of: Annotated[Instant | None, Query(description="only what we knew then")] = None,
) -> Response:
    """One mean a slot of ``step_s``: a year of quarter-hours in one answer."""
    interval = _interval(context, start_at, end_at)
    found = values.load_values(context, feed_id, interval, step_s, as_of)
    body = {
        "feed_id": feed_id,
        "quantity": found.feed.quantity,
        "unit": found.unit,
        "start_at": found.interval.start_at,
        "end_at": found.interval.end_at,
        "step_s": found.step_s,
        "values": found.values,
    }
    # Past the model: checking each of 35,000 numbers takes longer than finding them.
    return Response(msgspec.json.encode(body), media_type="application/json")


def _interval(context: ContextDep, start_at: datetime | None, end_at: datetime | None) -> Interval:
    now = context.clock.now()
    start = start_at or (end_at or now) - timedelta(days=1)
    return bounded(Interval(start, end_at or max(now, start) + timedelta(days=2)))
