"""Ask a provider, store what is new, keep its health."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from random import SystemRandom
from typing import TYPE_CHECKING

from pals_grid.core.errors import (
    ConfigurationError,
    FeedDataInvalid,
    FeedError,
    FeedUnavailable,
    InvalidValue,
)
from pals_grid.core.feed import FeedHealth
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.core.series import Quantity
from pals_grid.feeds.guard import fetch_guarded
from pals_grid.feeds.secrets import read_secret
from pals_grid.service.plans import replan
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed
    from pals_grid.core.ports import Connector
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context

# Late enough for what providers publish and revise within the day (live carbon: 95 % in 3 h).
BACK = timedelta(hours=6)
BACK_MAX = timedelta(days=7)
AHEAD = timedelta(hours=48)
RETRY_MIN_S = 30.0
RETRY_MAX_S = 3600.0
RETRY_WISH_MAX_S = 86_400.0

_FAILURES = (FeedError, InvalidValue, ConfigurationError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """What one fetch gave: values fetched, values new to the store, the error if it failed."""

    feed_id: int
    fetched: int
    stored: int
    error: str | None


def fetch_feed(context: Context, feed_id: int) -> FetchOutcome:
    """Fetch up to 48 h ahead, store what is new, plan anew if anything is.

    From 6 h before the last success on, at most 7 days back, so that a pause leaves no gap. A
    failure raises nothing: it is kept in the feed's health in the provider's own words, the
    values held stay as they are, and nothing of a bad answer is stored.

    Raises:
        NotFound: no such feed.
    """
    with context.database.read() as connection:
        feed, health = FeedRepository(connection).load_with_health(feed_id)
        currency = SiteRepository(connection).load_by_id(feed.site_id).policy.currency
    try:
        connector = context.registry.create(feed.connector, feed.options)
        found = fetch_values(context, connector, feed.secret_ref, currency, health.last_success_at)
        stored = _store(context, feed, found)
    except _FAILURES as error:
        _record_failure(context, feed, error)
        return FetchOutcome(feed_id, 0, 0, str(error))
    if stored:
        trigger = f"feed {feed.name}: {stored} new values"
        replan(context, feed.site_id, trigger, only_if_changed=True)
    return FetchOutcome(feed_id, len(found), stored, None)


def fetch_values(
    context: Context,
    connector: Connector,
    secret_ref: str | None,
    currency: str,
    since_at: datetime | None = None,
) -> list[Observation]:
    """Fetch and check the values of a site whose currency is ``currency``; store nothing.

    ``since_at`` is the last success, from 6 h before which on they are wanted.

    Raises:
        FeedError: see ``core.errors``.
        InvalidValue: when prices are in another currency.
    """
    now = context.clock.now()
    secret = None if secret_ref is None else read_secret(secret_ref)
    window = Interval(max(min(since_at or now, now) - BACK, now - BACK_MAX), now + AHEAD)
    found = fetch_guarded(connector, window, FetchContext(context.http, now, secret))
    if connector.quantity is Quantity.PRICE:
        for item in found:
            if item.unit != f"{currency}/MWh":
                raise InvalidValue("unit", item.unit, f"must be {currency}/MWh as its site's")
    return found


def retry_after_s(error: Exception, failures: int, poll_s: float) -> float:
    """Seconds to wait after the ``failures``-th failure in a row.

    Unavailable: 30 s, doubled each time, up to ``poll_s`` or an hour, times 0.8 to 1.2 so that
    many sites do not come back at once, and never sooner than the provider wishes. Anything
    else only changes with the configuration or the provider: ``poll_s``.
    """
    if not isinstance(error, FeedUnavailable):
        return poll_s
    longest_s = max(RETRY_MIN_S, min(poll_s, RETRY_MAX_S))
    backoff_s = min(longest_s, RETRY_MIN_S * 2.0 ** min(failures - 1, 20))
    wish_s = min(error.retry_after_s or 0.0, RETRY_WISH_MAX_S)
    return max(RETRY_MIN_S, wish_s, backoff_s * SystemRandom().uniform(0.8, 1.2))


def _store(context: Context, feed: Feed, found: Sequence[Observation]) -> int:
    with context.database.begin() as connection:
        # Under the site's lock, so that no plan in the making misses a value recorded before it.
        health = _lock_health(connection, feed)
        now = context.clock.now()
        stored = ObservationRepository(connection).add(feed.id, found, now)
        good = FeedHealth(
            last_attempt_at=now,
            last_success_at=now,
            next_attempt_at=_after(now, feed.poll_s),
            invalid_total=health.invalid_total,
        )
        FeedRepository(connection).record_health(feed.id, good)
        notify(connection, "feed", feed.id)
    return stored


def _record_failure(context: Context, feed: Feed, error: Exception) -> None:
    _log.warning("feed %s (%d): %s", feed.name, feed.id, error)
    with context.database.begin() as connection:
        health = _lock_health(connection, feed)
        now = context.clock.now()
        failures = health.consecutive_failures + 1
        bad = replace(
            health,
            last_attempt_at=now,
            next_attempt_at=_after(now, retry_after_s(error, failures, feed.poll_s)),
            # A provider's page may hold a NUL, which no text column takes.
            last_error=str(error).replace("\0", "\ufffd"),
            last_error_kind=type(error).__name__,
            consecutive_failures=failures,
            invalid_total=health.invalid_total + isinstance(error, FeedDataInvalid | InvalidValue),
        )
        FeedRepository(connection).record_health(feed.id, bad)
        notify(connection, "feed", feed.id)


def _lock_health(connection: Connection, feed: Feed) -> FeedHealth:
    """Return the feed's health as it is now; no other fetch changes it until the end.

    Raises:
        NotFound: when the feed was removed meanwhile.
    """
    SiteRepository(connection).lock(feed.site_id)
    return FeedRepository(connection).load_with_health(feed.id)[1]


def _after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)
