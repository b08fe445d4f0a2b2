"""How feeds do now: last values, coverage, rhythm, and their providers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.feeds.staleness import assess_freshness, new_values_due_at
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.providers import ProviderRepository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import BreakerState, Feed, FeedHealth, ProviderState
    from pals_grid.core.ports import Rhythm
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context

DAY = timedelta(hours=24)
CLOCK_SKEW_SHOWN_S = 60.0


@dataclass(frozen=True, slots=True)
class ProviderView:
    """A provider as all its feeds meet it; while its ``breaker`` is open it is not asked."""

    key: str
    breaker: BreakerState
    failures: int
    probe_at: datetime | None


@dataclass(frozen=True, slots=True)
class FeedView:
    """A feed and how it does now.

    ``latest`` is the value that holds now or held most lately, ``current`` the one that holds
    now, ``age_s`` the time since the last good answer. The coverages are the shares of the next
    24 and 48 h that have a value of the provider's own. ``new_due_at`` is when new values were
    or are expected at the latest by the provider's ``rhythm``, None where nobody can say;
    ``late`` when that is past. ``provider`` is None until it was asked.
    """

    feed: Feed
    health: FeedHealth
    latest: Observation | None
    current: Observation | None
    age_s: float | None
    coverage_24h_ratio: float
    coverage_48h_ratio: float
    stale: bool
    rhythm: Rhythm | None = None
    new_due_at: datetime | None = None
    late: bool = False
    provider: ProviderView | None = None

    @property
    def clock_is_wrong(self) -> bool:
        """Whether the provider's clock and ours differ by more than a minute."""
        return abs(self.health.clock_skew_s or 0.0) > CLOCK_SKEW_SHOWN_S


def load_views(
    context: Context, connection: Connection, found: Sequence[tuple[Feed, FeedHealth]]
) -> list[FeedView]:
    """How these feeds do now, in the order given."""
    now = context.clock.now()
    values = ObservationRepository(connection)
    known = values.load_known(
        [feed.id for feed, _ in found], Interval(now - DAY, now + 2 * DAY), now
    )
    keys = {health.provider_key for _, health in found if health.provider_key is not None}
    states = ProviderRepository(connection).load_all(keys)
    views = []
    for feed, health in found:
        view = _view(context, feed, health, known[feed.id])
        latest = view.latest or values.load_last_begun(feed.id, now)
        provider = _provider(states.get(health.provider_key or ""), now)
        views.append(replace(view, latest=latest, provider=provider))
    return views


def _view(
    context: Context, feed: Feed, health: FeedHealth, known: Sequence[Observation]
) -> FeedView:
    now = context.clock.now()
    fresh = assess_freshness(
        known, now, last_success_at=health.last_success_at, stale_after_s=feed.stale_after_s
    )
    rhythm = _rhythm(context, feed)
    new_since_at = health.last_new_at or feed.created_at
    due_at = new_values_due_at(rhythm, new_since_at, feed.poll_s) if rhythm else None
    return FeedView(
        feed=feed,
        health=health,
        latest=fresh.last_good,
        current=fresh.current,
        age_s=fresh.age_s,
        coverage_24h_ratio=fresh.coverage_24h_ratio,
        coverage_48h_ratio=fresh.coverage_48h_ratio,
        stale=fresh.stale,
        rhythm=rhythm,
        new_due_at=due_at,
        late=due_at is not None and now > due_at,
    )


def _rhythm(context: Context, feed: Feed) -> Rhythm | None:
    try:
        return context.registry.create(feed.connector, feed.options).rhythm
    except (InvalidValue, ConfigurationError):
        # Its connector is no longer installed, or takes other options now: fetches tell.
        return None


def _provider(state: ProviderState | None, now: datetime) -> ProviderView | None:
    if state is None:
        return None
    return ProviderView(state.key, state.breaker(now), state.failures, state.probe_at)
