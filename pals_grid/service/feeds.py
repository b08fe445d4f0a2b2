"""Feeds: configuration, health, series."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import Conflict, InvalidValue
from pals_grid.core.fallback import FromFeed, check_chain
from pals_grid.core.feed import Feed
from pals_grid.core.series import ValueKind, merge_kinds
from pals_grid.feeds.http import redact
from pals_grid.feeds.secrets import check_secret_ref
from pals_grid.service.feed_views import FeedView, load_views
from pals_grid.service.fetching import FetchOutcome, fetch_feed, fetch_values
from pals_grid.service.paging import paged
from pals_grid.service.plans import replan_within
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.core.fallback import Fallback
    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import Connector
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged

__all__ = [
    "FeedRequest",
    "FeedView",
    "FetchOutcome",
    "add_feed",
    "claim_due_feed",
    "fetch_feed",
    "list_due_feeds",
    "list_feeds",
    "load_feed",
    "load_series",
    "preview_feed",
    "remove_feed",
    "set_fallbacks",
]


FETCH_LEASE = timedelta(minutes=5)


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
    fallbacks: tuple[Fallback, ...] = ()

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


def add_feed(context: Context, request: FeedRequest) -> Feed:
    """Store a feed whose connector accepts its options; it is fetched when next looked for.

    Raises:
        NotFound: no such site.
        InvalidValue: for an unknown connector, an option, a secret or a fallback that cannot be.
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
                fallbacks=request.fallbacks,
            )
        )
        _check_chains(connection, feed)
        notify(connection, "feed", feed.id)
    return feed


def set_fallbacks(context: Context, feed_id: int, fallbacks: Sequence[Fallback]) -> Feed:
    """Replace what stands in for a feed, and plan anew.

    Raises:
        NotFound: no such feed.
        InvalidValue: for a chain that cannot be.
    """
    with context.database.begin() as connection:
        feeds = FeedRepository(connection)
        site_id = feeds.load(feed_id).site_id
        SiteRepository(connection).lock(site_id)
        feeds.set_fallbacks(feed_id, fallbacks)
        feed = feeds.load(feed_id)
        _check_chains(connection, feed)
        notify(connection, "feed", feed_id)
        trigger = f"fallbacks of feed {feed.name} changed"
        replan_within(context, connection, site_id, trigger, only_if_changed=True)
    return feed


def _check_chains(connection: Connection, feed: Feed) -> None:
    """Check a feed's chain against the site's other feeds; what is refused is rolled back."""
    others = {
        item.name: [entry.feed for entry in item.fallbacks if isinstance(entry, FromFeed)]
        for item in FeedRepository(connection).list_all(feed.site_id)
        if item.id != feed.id and item.quantity is feed.quantity
    }
    check_chain(feed.name, feed.fallbacks, others)


def _require_unnamed(connection: Connection, feed: Feed) -> None:
    """Refuse to remove a feed that another's chain counts on."""
    for item in FeedRepository(connection).list_all(feed.site_id):
        if FromFeed(feed.name) in item.fallbacks and item.quantity is feed.quantity:
            what = f"feed {feed.name!r} stands in for {item.name!r}"
            raise Conflict(f"{what}: change that feed's fallbacks first")


def preview_feed(context: Context, request: FeedRequest) -> list[Observation]:
    """Fetch what a feed would give and store nothing.

    Raises:
        NotFound: no such site.
        InvalidValue: as for ``add_feed``, or for prices that the site cannot convert.
        FeedError: as the provider answers.
    """
    connector = _connector(context, request)
    with context.database.read() as connection:
        site = SiteRepository(connection).load(request.site)
        currencies = TariffRepository(connection).load_pricing(site).currencies()
    return fetch_values(context, connector, request.secret_ref, currencies)


def remove_feed(context: Context, feed_id: int) -> None:
    """Take a feed out of use and plan without it; its values stay for the plans that saw them.

    Raises:
        NotFound: no such feed.
        Conflict: when it stands in another feed's chain.
    """
    with context.database.begin() as connection:
        feeds = FeedRepository(connection)
        feed = feeds.load(feed_id)
        SiteRepository(connection).lock(feed.site_id)
        _require_unnamed(connection, feed)
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
        return load_views(context, connection, [found])[0]


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
        views = load_views(context, connection, found)
    return paged(views, page, lambda view: (view.feed.id,))


def list_due_feeds(context: Context) -> list[int]:
    """Ids of the feeds that are due to be fetched, of all sites."""
    with context.database.read() as connection:
        return FeedRepository(connection).list_due(context.clock.now())


def claim_due_feed(context: Context) -> int | None:
    """Take the feed that is due for longest from the other processes; None when none is due.

    Whoever dies with it leaves it to the others after five minutes.
    """
    now = context.clock.now()
    with context.database.begin() as connection:
        return FeedRepository(connection).claim_due(now, now + FETCH_LEASE)


def load_series(
    context: Context, feed_id: int, interval: Interval, as_of: datetime | None, page: Page
) -> Paged[Observation]:
    """Values of a feed over ``interval`` by start, as recorded up to ``as_of`` (now by default).

    One value per start: measured, forecast, modelled, synthetic in this order, then the latest
    known.

    Raises:
        NotFound: no such feed.
    """
    after = page.after(tuple[datetime])
    with context.database.read() as connection:
        FeedRepository(connection).load(feed_id)
        # Each start has at most one row of each kind, and the last may be cut short.
        known = ObservationRepository(connection).load_known(
            [feed_id],
            interval,
            as_of or context.clock.now(),
            limit=len(ValueKind) * (page.limit + 1),
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
