"""Feeds: configuration, health, series."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.feed import Feed
from pals_grid.core.intervals import Interval
from pals_grid.core.series import merge_kinds
from pals_grid.feeds.http import redact
from pals_grid.feeds.secrets import check_secret_ref
from pals_grid.feeds.staleness import assess_freshness
from pals_grid.service.fetching import FetchOutcome, fetch_feed, fetch_values
from pals_grid.service.paging import paged
from pals_grid.service.plans import replan_within
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.core.feed import FeedHealth
    from pals_grid.core.ports import Connector
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged

__all__ = [
    "FeedRequest",
    "FeedView",
    "FetchOutcome",
    "add_feed",
    "fetch_feed",
    "list_due_feeds",
    "list_feeds",
    "load_feed",
    "load_series",
    "preview_feed",
    "remove_feed",
]

DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """A feed as a user asks for it; ``site`` is the site's slug."""

    site: str
    name: str
    connector: str
    options: Mapping[str, str] = field(default_factory=dict)
    secret_ref: str | None = None
    poll_s: float = 900.0
    stale_after_s: float = 7200.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.strip()) <= 100:
            raise InvalidValue("name", self.name[:120], "must have 1 to 100 characters")
        if not 30 <= self.poll_s <= 86_400:
            raise InvalidValue("poll_s", self.poll_s, "must be from 30 to 86400")
        if not self.poll_s <= self.stale_after_s <= 30 * 86_400:
            bound = f"must be from poll_s ({self.poll_s:g}) to 2592000"
            raise InvalidValue("stale_after_s", self.stale_after_s, bound)
        if self.secret_ref is not None:
            check_secret_ref(self.secret_ref)
        for name, value in self.options.items():
            if redact(value) != value:
                bound = "must hold no key or password: options are stored and shown in clear"
                raise InvalidValue(f"options.{name}", redact(value), bound)


@dataclass(frozen=True, slots=True)
class FeedView:
    """A feed and how it does now.

    ``latest`` is the value that holds now or held most lately, ``current`` the one that holds
    now, ``age_s`` the time since the last good answer, ``coverage_24h_ratio`` the share of the
    next 24 h that has a value.
    """

    feed: Feed
    health: FeedHealth
    latest: Observation | None
    current: Observation | None
    age_s: float | None
    coverage_24h_ratio: float
    stale: bool


def add_feed(context: Context, request: FeedRequest) -> Feed:
    """Store a feed whose connector accepts its options; it is fetched when next looked for.

    Raises:
        NotFound: no such site.
        InvalidValue: for an unknown connector, an option or a secret that cannot be.
        Conflict: when the site has a feed of this name.
    """
    connector = _connector(context, request)
    with context.database.begin() as connection:
        site = SiteRepository(connection).load(request.site)
        feed = FeedRepository(connection).insert(
            Feed(
                id=0,
                site_id=site.id,
                name=request.name.strip(),
                connector=request.connector,
                quantity=connector.quantity,
                options=request.options,
                secret_ref=request.secret_ref,
                poll_s=request.poll_s,
                stale_after_s=request.stale_after_s,
                created_at=context.clock.now(),
            )
        )
        notify(connection, "feed", feed.id)
    return feed


def preview_feed(context: Context, request: FeedRequest) -> list[Observation]:
    """Fetch what a feed would give and store nothing.

    Raises:
        NotFound: no such site.
        InvalidValue: as for ``add_feed``, or for prices in another currency than the site's.
        FeedError: as the provider answers.
    """
    connector = _connector(context, request)
    with context.database.read() as connection:
        currency = SiteRepository(connection).load(request.site).policy.currency
    return fetch_values(context, connector, request.secret_ref, currency)


def remove_feed(context: Context, feed_id: int) -> None:
    """Take a feed out of use and plan without it; its values stay for the plans that saw them.

    Raises:
        NotFound: no such feed.
    """
    with context.database.begin() as connection:
        feeds = FeedRepository(connection)
        feed = feeds.load(feed_id)
        SiteRepository(connection).lock(feed.site_id)
        feeds.remove(feed_id, context.clock.now())
        notify(connection, "feed", feed_id)
        trigger = f"feed {feed.name} removed"
        replan_within(context, connection, feed.site_id, trigger, only_if_changed=True)


def load_feed(context: Context, feed_id: int) -> FeedView:
    """Return a feed and how it does.

    Raises:
        NotFound: no such feed.
    """
    with context.database.read() as connection:
        found = FeedRepository(connection).load_with_health(feed_id)
        return _views(connection, [found], context.clock.now())[0]


def list_feeds(context: Context, slug: str, page: Page) -> Paged[FeedView]:
    """Feeds of a site by creation.

    Raises:
        NotFound: no such site.
    """
    after = page.after(tuple[int])
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        found = FeedRepository(connection).list_with_health_after(
            site.id, after[0] if after else None, page.limit + 1
        )
        views = _views(connection, found, context.clock.now())
    return paged(views, page, lambda view: (view.feed.id,))


def list_due_feeds(context: Context) -> list[int]:
    """Ids of the feeds that are due to be fetched, of all sites."""
    with context.database.read() as connection:
        return FeedRepository(connection).list_due(context.clock.now())


def load_series(
    context: Context, feed_id: int, interval: Interval, as_of: datetime | None, page: Page
) -> Paged[Observation]:
    """Values of a feed over ``interval`` by start, as recorded up to ``as_of`` (now by default).

    One value per start: measured before forecast before synthetic, then the latest known.

    Raises:
        NotFound: no such feed.
    """
    after = page.after(tuple[datetime])
    with context.database.read() as connection:
        FeedRepository(connection).load(feed_id)
        # Each start has at most one row of each of three kinds, and the last may be cut short.
        known = ObservationRepository(connection).load_known(
            [feed_id],
            interval,
            as_of or context.clock.now(),
            limit=3 * (page.limit + 1),
            after_at=after[0] if after else None,
        )
    merged = merge_kinds(known[feed_id])[: page.limit + 1]
    return paged(merged, page, lambda item: (item.start_at,))


def _connector(context: Context, request: FeedRequest) -> Connector:
    connector = context.registry.create(request.connector, request.options)
    if connector.needs_secret and request.secret_ref is None:
        bound = f"is required by {request.connector}: env:NAME or file:/absolute/path"
        raise InvalidValue("secret_ref", None, bound)
    return connector


def _views(
    connection: Connection, found: Sequence[tuple[Feed, FeedHealth]], now: datetime
) -> list[FeedView]:
    around = Interval(now - DAY, now + DAY)
    values = ObservationRepository(connection)
    known = values.load_known([feed.id for feed, _ in found], around, now)
    views = [_view(feed, health, known[feed.id], now) for feed, health in found]
    return [
        view
        if view.latest is not None
        else replace(view, latest=values.load_last_begun(view.feed.id, now))
        for view in views
    ]


def _view(feed: Feed, health: FeedHealth, known: Sequence[Observation], now: datetime) -> FeedView:
    fresh = assess_freshness(
        known,
        now,
        last_success_at=health.last_success_at,
        stale_after_s=feed.stale_after_s,
    )
    return FeedView(
        feed=feed,
        health=health,
        latest=fresh.last_good,
        current=fresh.current,
        age_s=fresh.age_s,
        coverage_24h_ratio=fresh.coverage_ratio,
        stale=fresh.stale,
    )
