"""Fetch a feed's past, part by part."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.service.fetching import FetchOutcome, fetch_window
from pals_grid.service.values import record_observations
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from pals_grid.core.intervals import Interval
    from pals_grid.service.context import Context

MAX_PART = timedelta(days=31)
"""One call asks for no more: its answer is stored whole or not at all."""


def backfill_feed(context: Context, feed_id: int, interval: Interval) -> FetchOutcome:
    """Fetch and store the values over a part of the past; asking again stores nothing twice.

    A value is known when its provider says so, else now: plans of the past do not see it. The
    feed's health, its next fetch and the plan in force stay as they are.

    Raises:
        NotFound: no such feed.
        InvalidValue: for more than 31 days, time that is yet to come, or another currency.
        FeedError: as the provider answers; nothing is stored then.
    """
    if interval.end_at - interval.start_at > MAX_PART:
        bound = f"must be at most {MAX_PART.days} days after start_at"
        raise InvalidValue("end_at", interval.end_at.isoformat(), bound)
    now = context.clock.now()
    if interval.end_at > now:
        raise InvalidValue("end_at", interval.end_at.isoformat(), f"must be in the past, {now}")
    with context.database.read() as connection:
        feed = FeedRepository(connection).load(feed_id)
        site = SiteRepository(connection).load_by_id(feed.site_id)
        currencies = TariffRepository(connection).load_pricing(site).currencies()
    connector = context.registry.create(feed.connector, feed.options)
    found = fetch_window(context, connector, feed.secret_ref, currencies, interval)
    with context.database.begin() as connection:
        # Under the site's lock, as every fetch stores.
        SiteRepository(connection).lock(feed.site_id)
        FeedRepository(connection).load(feed_id)
        stored = record_observations(connection, feed_id, found, context.clock.now())
        notify(connection, "feed", feed_id)
    return FetchOutcome(feed_id, len(found), stored, None)
