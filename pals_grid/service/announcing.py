"""Which of a site's feeds of price tells a forecast of the days ahead, and what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity
from pals_grid.forecast.announced import announce
from pals_grid.forecast.issued import History
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observations import ObservationRepository

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed
    from pals_grid.core.site import Site
    from pals_grid.forecast.issued import Announced

LEAST_HISTORY = timedelta(days=56)
FAR_AHEAD = timedelta(days=4)


def find_announced(
    connection: Connection, site: Site, feed: Feed, past: timedelta, now: datetime
) -> dict[str, Announced]:
    """Prices, by the name of their feed, that are known before their time for long enough.

    Of the site's other feeds; at least 56 days of them. None for a ``feed`` that is itself known
    before its time: what it lacks begins beyond what the others announce as well.
    """
    found: dict[str, Announced] = {}
    if load_announced(connection, site, feed, past, now) is not None:
        return found
    for other in FeedRepository(connection).list_all(site.id):
        if other.id == feed.id or other.quantity is not Quantity.PRICE:
            continue
        announced = load_announced(connection, site, other, past, now)
        if announced is not None:
            found[other.name] = announced
    return found


def load_announced(
    connection: Connection, site: Site, feed: Feed, past: timedelta, now: datetime
) -> Announced | None:
    """What a feed announces, of the time ``past`` and of what lies ahead.

    None where it announces nothing, or has under 56 days of them.
    """
    span = Interval(now - past, now + FAR_AHEAD)
    held = ObservationRepository(connection).load_measured(feed.id, span, now)
    if not held.values or now.timestamp() - held.starts_s[0] < LEAST_HISTORY.total_seconds():
        return None
    history = History(held.starts_s, held.ends_s, held.values)
    return announce(history, held.known_s, site.policy.timezone)
