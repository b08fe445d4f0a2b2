from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import FeedUnavailable, InvalidValue, NotFound
from pals_grid.core.intervals import Interval
from pals_grid.service.backfill import backfill_feed
from pals_grid.service.feeds import fetch_feed, load_feed, load_series
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan
from tests.unit.service.world import T0, half_hours

if TYPE_CHECKING:
    from tests.unit.service.world import World

WEEK_AGO = T0 - timedelta(days=7)
PART = Interval(WEEK_AGO, WEEK_AGO + timedelta(days=1))


def test_the_past_is_known_from_now_on_unless_the_provider_says_when(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.clock.advance(600)
    world.price.values = [
        *half_hours((10.0,), WEEK_AGO, kind="measured", known_at=world.clock.now()),
        *half_hours((20.0,), WEEK_AGO + timedelta(hours=1), known_at=WEEK_AGO),
    ]
    outcome = backfill_feed(world.context, feed.id, PART)
    assert (outcome.fetched, outcome.stored) == (2, 2)
    assert world.price.windows == [PART]
    known = load_series(world.context, feed.id, PART, None, Page()).items
    assert [item.known_at for item in known] == [world.clock.now(), WEEK_AGO]
    # What was recorded only now was not known to anybody before.
    assert load_series(world.context, feed.id, PART, T0, Page()).items == ()
    assert backfill_feed(world.context, feed.id, PART).stored == 0


def test_health_and_plan_stay_as_they_are(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(50.0)
    fetch_feed(world.context, feed.id)
    health, version = load_feed(world.context, feed.id).health, load_plan(world.context, "oslo")
    world.clock.advance(600)
    world.price.say(10.0, start_at=WEEK_AGO)
    assert backfill_feed(world.context, feed.id, PART).stored == 1
    world.price.error = FeedUnavailable("busy")
    with pytest.raises(FeedUnavailable, match="busy"):
        backfill_feed(world.context, feed.id, PART)
    assert load_feed(world.context, feed.id).health == health
    assert load_plan(world.context, "oslo").version == version.version


def test_what_cannot_be_is_refused_before_the_provider_is_asked(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    with pytest.raises(InvalidValue, match="end_at: must be at most 31 days after"):
        backfill_feed(world.context, feed.id, Interval(T0 - timedelta(days=32), T0))
    with pytest.raises(InvalidValue, match="end_at: must be in the past"):
        backfill_feed(world.context, feed.id, Interval(T0, T0 + timedelta(hours=1)))
    with pytest.raises(NotFound, match="feed"):
        backfill_feed(world.context, feed.id + 1, PART)
    assert world.price.windows == []
    world.price.say(10.0, start_at=WEEK_AGO, unit="GBP/MWh")
    with pytest.raises(InvalidValue, match="must be EUR/MWh"):
        backfill_feed(world.context, feed.id, PART)
    assert load_series(world.context, feed.id, PART, None, Page()).items == ()
