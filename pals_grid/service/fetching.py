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
    FeedHeldBack,
    InvalidValue,
)
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.core.pricing import currency_of
from pals_grid.core.series import Quantity
from pals_grid.feeds.guard import fetch_guarded
from pals_grid.feeds.secrets import read_secret
from pals_grid.service.plans import replan
from pals_grid.service.providers import open_provider
from pals_grid.service.values import record_observations
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed, FeedHealth
    from pals_grid.core.ports import Connector, HttpClient
    from pals_grid.core.series import Observation
    from pals_grid.feeds.provider import ProviderHttp
    from pals_grid.service.context import Context

# Late enough for what providers publish and revise within the day (live carbon: 95 % in 3 h).
BACK = timedelta(hours=6)
BACK_MAX = timedelta(days=7)
AHEAD = timedelta(hours=48)
HELD_BACK_SPREAD_S = 15.0

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
        site = SiteRepository(connection).load_by_id(feed.site_id)
        currencies = TariffRepository(connection).load_pricing(site).currencies()
    provider: ProviderHttp | None = None
    try:
        connector = context.registry.create(feed.connector, feed.options)
        http, provider = open_provider(context, connector)
        wanted = _Wanted(connector, feed.secret_ref, currencies)
        found = _fetch(context, http, wanted, _recent(context, health.last_success_at))
        stored = _store(context, feed, found, provider)
    except _FAILURES as error:
        _record_failure(context, feed, error, provider)
        return FetchOutcome(feed_id, 0, 0, str(error))
    if stored:
        trigger = f"feed {feed.name}: {stored} new values"
        replan(context, feed.site_id, trigger, only_if_changed=True)
    return FetchOutcome(feed_id, len(found), stored, None)


def fetch_values(
    context: Context,
    connector: Connector,
    secret_ref: str | None,
    currencies: Collection[str],
    since_at: datetime | None = None,
) -> list[Observation]:
    """Fetch and check the values of a site that can price ``currencies``; store nothing.

    ``since_at`` is the last success, from 6 h before which on they are wanted. The provider is
    asked in its pace, and not at all while it is held back.

    Raises:
        FeedError: see ``core.errors``.
        InvalidValue: when prices are in a currency that nothing converts.
    """
    return fetch_window(context, connector, secret_ref, currencies, _recent(context, since_at))


def fetch_window(
    context: Context,
    connector: Connector,
    secret_ref: str | None,
    currencies: Collection[str],
    window: Interval,
) -> list[Observation]:
    """Fetch and check the values over ``window``, in the provider's pace; store nothing.

    Raises:
        FeedError, InvalidValue: as ``fetch_values``.
    """
    http, _ = open_provider(context, connector)
    return _fetch(context, http, _Wanted(connector, secret_ref, currencies), window)


def _recent(context: Context, since_at: datetime | None) -> Interval:
    """Return what is wanted of a provider that last answered at ``since_at``."""
    now = context.clock.now()
    return Interval(max(min(since_at or now, now) - BACK, now - BACK_MAX), now + AHEAD)


@dataclass(frozen=True, slots=True)
class _Wanted:
    connector: Connector
    secret_ref: str | None
    currencies: Collection[str]


def _fetch(
    context: Context, http: HttpClient, wanted: _Wanted, window: Interval
) -> list[Observation]:
    now = context.clock.now()
    secret = None if wanted.secret_ref is None else read_secret(wanted.secret_ref)
    asked = FetchContext(http, now, secret, context.tokens, context.feed_folders)
    found = fetch_guarded(wanted.connector, window, asked)
    if wanted.connector.quantity is Quantity.PRICE:
        for item in found:
            if currency_of(item.unit) not in wanted.currencies:
                known = " or ".join(f"{one}/MWh" for one in sorted(wanted.currencies))
                bound = f"must be {known}, as its site's or as a tariff converts it"
                raise InvalidValue("unit", item.unit, bound)
    return found


def _store(
    context: Context, feed: Feed, found: Sequence[Observation], provider: ProviderHttp
) -> int:
    with context.database.begin() as connection:
        # Under the site's lock, so that no plan in the making misses a value recorded before it.
        health = _lock_health(connection, feed)
        now = context.clock.now()
        stored = record_observations(connection, feed.id, found, now)
        good = replace(
            _with_told(health, provider),
            last_attempt_at=now,
            last_success_at=now,
            next_attempt_at=_after(now, feed.poll_s),
            last_error=None,
            last_error_kind=None,
            consecutive_failures=0,
            last_new_at=now if stored else health.last_new_at,
        )
        FeedRepository(connection).record_health(feed.id, good)
        notify(connection, "feed", feed.id)
    return stored


def _record_failure(
    context: Context, feed: Feed, error: Exception, provider: ProviderHttp | None
) -> None:
    # As text: a log record that is kept somewhere would keep the error's frames, and the body.
    _log.warning("feed %s (%d): %s", feed.name, feed.id, str(error))
    with context.database.begin() as connection:
        health = _with_told(_lock_health(connection, feed), provider)
        now = context.clock.now()
        if isinstance(error, FeedHeldBack):
            bad = _held_back(health, error, now)
        else:
            bad = _failed(context, feed, health, error, now)
        FeedRepository(connection).record_health(feed.id, bad)
        notify(connection, "feed", feed.id)


def _held_back(health: FeedHealth, error: FeedHeldBack, now: datetime) -> FeedHealth:
    """Nobody was asked, so nothing failed: only the next attempt is put off."""
    wait_s = (error.retry_after_s or 0.0) + SystemRandom().uniform(0.0, HELD_BACK_SPREAD_S)
    return replace(
        health,
        next_attempt_at=_after(now, wait_s),
        last_error=health.last_error or str(error),
        last_error_kind=health.last_error_kind or type(error).__name__,
    )


def _failed(
    context: Context, feed: Feed, health: FeedHealth, error: Exception, now: datetime
) -> FeedHealth:
    failures = health.consecutive_failures + 1
    wait_s = context.back_off.feed_wait_s(error, failures, feed.poll_s, SystemRandom().uniform)
    return replace(
        health,
        last_attempt_at=now,
        next_attempt_at=_after(now, wait_s),
        # A provider's page may hold a NUL, which no text column takes.
        last_error=str(error).replace("\0", "\ufffd"),
        last_error_kind=type(error).__name__,
        consecutive_failures=failures,
        invalid_total=health.invalid_total + isinstance(error, FeedDataInvalid | InvalidValue),
    )


def _with_told(health: FeedHealth, provider: ProviderHttp | None) -> FeedHealth:
    """What the provider told this time, else what it told before."""
    if provider is None or provider.key is None:
        return health
    credit_left, skew_s = provider.credit_left, provider.clock_skew_s
    return replace(
        health,
        provider_key=provider.key,
        credit_left=health.credit_left if credit_left is None else credit_left,
        clock_skew_s=health.clock_skew_s if skew_s is None else skew_s,
    )


def _lock_health(connection: Connection, feed: Feed) -> FeedHealth:
    """Return the feed's health as it is now; no other fetch changes it until the end.

    Raises:
        NotFound: when the feed was removed meanwhile.
    """
    SiteRepository(connection).lock(feed.site_id)
    return FeedRepository(connection).load_with_health(feed.id)[1]


def _after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)
