from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import Conflict, FeedUnavailable, InvalidValue
from pals_grid.core.fallback import Absence, FromConstant, FromFeed, FromLastWeek, SourceKind
from pals_grid.core.series import Quantity
from pals_grid.core.substitution import absence_words, source_words, substitute_ratio
from pals_grid.service.feeds import (
    FeedRequest,
    add_feed,
    fetch_feed,
    load_feed,
    remove_feed,
    set_fallbacks,
)
from pals_grid.service.plans import load_plan, load_plan_evidence, replan
from tests.unit.service.world import HALF_HOUR, T0

if TYPE_CHECKING:
    from tests.unit.service.world import World

WEEK = timedelta(days=7)


def _last_week(world: World, feed_id: int, *numbers: float) -> None:
    """Measured values of a week ago, fetched then."""
    world.clock.at = T0 - WEEK
    world.price.say(*numbers, start_at=T0 - WEEK, kind="measured")
    assert fetch_feed(world.context, feed_id).error is None
    world.clock.at = T0


def test_plan_names_every_slot_that_rests_on_a_substitute(world: World) -> None:
    site = world.make_site(minimum_w=0.0)
    world.register()
    feed = world.make_feed()
    _last_week(world, feed.id, *[70.0] * 4)
    world.price.say(50, 55)
    fetch_feed(world.context, feed.id)
    set_fallbacks(world.context, feed.id, (FromLastWeek(1), FromConstant(80)))
    plan = load_plan(world.context, "oslo")
    assert plan.trigger == "fallbacks of feed p changed"
    assert [i.price_per_mwh for i in plan.budget.intervals] == [50, 55, 70, 70, *[80.0] * 68]
    week, constant = plan.substitutions
    assert (week.quantity, week.source.kind) == (Quantity.PRICE, SourceKind.LAST_WEEK)
    assert week.interval.start_at == T0 + 2 * HALF_HOUR
    assert week.interval.end_at == T0 + 4 * HALF_HOUR
    assert source_words(week.source) == "from last week"
    assert absence_words(week.source, str) == "p has no value yet"
    assert source_words(constant.source) == "a constant 80 EUR/MWh"
    assert "(from last week)" in plan.budget.intervals[2].explanation
    ratio = substitute_ratio(plan.budget.intervals, Quantity.PRICE, T0)
    assert ratio == pytest.approx(70 / 72)
    assert substitute_ratio(plan.budget.intervals, Quantity.AVERAGE_INTENSITY, T0) is None
    assert load_plan(world.context, "oslo", plan.version) == plan
    assert plan.site_id == site.id


def test_evidence_holds_the_week_that_was_taken(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    _last_week(world, feed.id, 70, 71, 72)
    world.price.say(50)
    fetch_feed(world.context, feed.id)
    set_fallbacks(world.context, feed.id, (FromLastWeek(1),))
    version = load_plan(world.context, "oslo").version
    # What is revised later does not change what the plan was made from.
    world.clock.advance(60)
    world.price.say(170, 171, 172, start_at=T0 - WEEK, kind="measured")
    fetch_feed(world.context, feed.id)
    plan = load_plan(world.context, "oslo", version)
    (evidence,) = load_plan_evidence(world.context, "oslo", version)
    held = {item.start_at: item.value for item in evidence.observations}
    for item in plan.budget.intervals[:3]:
        assert item.price_source is not None
        taken = item.price_source.taken_from or item.interval
        assert held[taken.start_at] == item.price_per_mwh
    assert sorted(held.values()) == [50, 71, 72]


def test_chain_changed_later_does_not_change_what_a_plan_says(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    set_fallbacks(world.context, feed.id, (FromConstant(80),))
    version = load_plan(world.context, "oslo").version
    set_fallbacks(world.context, feed.id, ())
    assert load_plan(world.context, "oslo").substitutions == ()
    (told,) = load_plan(world.context, "oslo", version).substitutions
    assert told.source.value == 80
    assert told.source.absence is Absence.NEVER_ANSWERED


def test_silence_is_said_with_its_beginning(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(50)
    fetch_feed(world.context, feed.id)
    set_fallbacks(world.context, feed.id, (FromConstant(80),))
    world.clock.advance(900)
    world.price.error = FeedUnavailable("HTTP 503")
    fetch_feed(world.context, feed.id)
    plan = replan(world.context, feed.site_id, "schedule")
    (told,) = plan.substitutions
    assert (told.source.absence, told.source.silent_since_at) == (Absence.SILENT, T0)
    assert absence_words(told.source, lambda at: f"{at:%H:%M}") == "p has been silent since 12:00"


def test_plan_is_made_anew_when_only_the_source_changes(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    set_fallbacks(world.context, feed.id, (FromConstant(80),))
    held = load_plan(world.context, "oslo")
    world.price.say(*[80.0] * 72)
    fetch_feed(world.context, feed.id)
    plan = load_plan(world.context, "oslo")
    assert plan.version == held.version + 1
    assert plan.substitutions == ()


def test_second_feed_stands_in_for_carbon_too(world: World) -> None:
    world.make_site(carbon_price_per_tonne=50.0)
    backup = world.make_feed("carbon", "backup")
    world.carbon.say(200, 210, unit="gCO2eq/kWh")
    fetch_feed(world.context, backup.id)
    chain = (FromFeed("backup"), FromConstant(300))
    main = add_feed(world.context, FeedRequest("oslo", "main", "carbon", fallbacks=chain))
    plan = replan(world.context, main.site_id, "schedule")
    assert [i.carbon_g_per_kwh for i in plan.budget.intervals[:3]] == [200, 210, 300]
    assert [item.feed for item in plan.inputs] == ["main", "backup"]
    assert [item.quantity for item in plan.substitutions] == [Quantity.AVERAGE_INTENSITY] * 2


def test_bad_chains_change_nothing(world: World) -> None:
    world.make_site()
    a, b = world.make_feed(name="a"), world.make_feed(name="b")
    world.make_feed("carbon", "c")
    set_fallbacks(world.context, a.id, (FromFeed("b"),))
    with pytest.raises(InvalidValue, match="must not lead back to 'b': that is a circle"):
        set_fallbacks(world.context, b.id, (FromFeed("a"),))
    with pytest.raises(InvalidValue, match=r"another feed of the same quantity \(a\), got 'c'"):
        set_fallbacks(world.context, b.id, (FromFeed("c"),))
    assert load_feed(world.context, b.id).feed.fallbacks == ()
    request = FeedRequest("oslo", "new", "price", fallbacks=(FromFeed("new"),))
    with pytest.raises(InvalidValue, match="must be another feed, got 'new'"):
        add_feed(world.context, request)


def test_feed_that_another_counts_on_is_not_removed(world: World) -> None:
    world.make_site()
    a, b = world.make_feed(name="a"), world.make_feed(name="b")
    set_fallbacks(world.context, a.id, (FromFeed("b"),))
    with pytest.raises(Conflict, match="feed 'b' stands in for 'a'"):
        remove_feed(world.context, b.id)
    set_fallbacks(world.context, a.id, ())
    remove_feed(world.context, b.id)
