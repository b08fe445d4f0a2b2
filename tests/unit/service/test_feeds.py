from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import (
    Conflict,
    FeedRejected,
    FeedUnavailable,
    InvalidValue,
    NotFound,
)
from pals_grid.core.intervals import Interval
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.service.feeds import (
    FeedRequest,
    add_feed,
    fetch_feed,
    list_due_feeds,
    list_feeds,
    load_feed,
    load_series,
    preview_feed,
    remove_feed,
)
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan, replan
from tests.unit.service.world import HALF_HOUR, T0, half_hours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pals_grid.core.ports import Connector
    from pals_grid.service.context import Context
    from tests.unit.service.world import World


DAY = Interval(T0 - timedelta(days=1), T0 + timedelta(days=1))


def values(world: World, feed_id: int, as_of: float | None = None) -> list[float]:
    at = None if as_of is None else T0 + timedelta(seconds=as_of)
    found = load_series(world.context, feed_id, DAY, at, Page())
    return [item.value for item in found.items]


def test_feed_is_stored_with_its_connectors_quantity(world: World) -> None:
    world.make_site()
    feed = add_feed(world.context, FeedRequest("oslo", " p ", "price", {"zone": "NO1"}))
    view = load_feed(world.context, feed.id)
    assert view.feed == feed
    assert (feed.name, feed.quantity, feed.options) == ("p", "price", {"zone": "NO1"})
    assert (view.age_s, view.stale, view.coverage_24h_ratio, view.current) == (None, True, 0, None)
    assert list_due_feeds(world.context) == [feed.id]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"connector": "nordpool"}, "connector: must be one of carbon, keyed, marginal, price"),
        ({"options": {"zon": "DE"}}, "options.zon: unknown option"),
        ({"connector": "keyed"}, "secret_ref: is required by keyed"),
        ({"poll_s": 1.0}, "poll_s: must be from 30"),
        ({"poll_s": float("nan")}, "poll_s: must be from 30"),
        ({"stale_after_s": 60.0}, "stale_after_s: must be from poll_s"),
        ({"name": " "}, "name: must have 1 to 100"),
    ],
)
def test_impossible_feed_is_refused(world: World, about: dict[str, object], message: str) -> None:
    world.make_site()
    given: dict[str, object] = {"site": "oslo", "name": "p", "connector": "price", **about}
    with pytest.raises(InvalidValue, match=message):
        add_feed(world.context, FeedRequest(**given))  # type: ignore[arg-type]
    assert list_feeds(world.context, "oslo", Page()).items == ()


def test_literal_secret_is_refused_without_being_repeated() -> None:
    with pytest.raises(InvalidValue, match="secret_ref: must be env:NAME") as caught:
        FeedRequest("oslo", "p", "keyed", secret_ref="hunter2-hunter2")
    assert "hunter2" not in str(caught.value)


def test_secret_reaches_the_connector_and_nothing_else(world: World, tmp_path: Path) -> None:
    world.make_site()
    path = tmp_path / "key"
    path.write_text("hunter2-hunter2\n")
    feed = add_feed(world.context, FeedRequest("oslo", "p", "keyed", secret_ref=f"file:{path}"))
    world.price.error = FeedRejected("HTTP 401: key hunter2-hunter2 is unknown")
    outcome = fetch_feed(world.context, feed.id)
    assert world.price.secrets == ["hunter2-hunter2"]
    assert outcome.error == "HTTP 401: key *** is unknown"
    assert load_feed(world.context, feed.id).health.last_error == outcome.error
    path.unlink()
    assert "cannot be read" in str(fetch_feed(world.context, feed.id).error)


def test_name_is_taken_until_the_feed_is_removed(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    with pytest.raises(Conflict, match="feed 'p' already"):
        world.make_feed()
    remove_feed(world.context, feed.id)
    for gone in (load_feed, remove_feed, fetch_feed):
        with pytest.raises(NotFound, match="feed"):
            gone(world.context, feed.id)
    assert world.make_feed().id != feed.id


def test_fetch_stores_and_tells(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(80, 90, -5)
    world.clock.advance(60)
    outcome = fetch_feed(world.context, feed.id)
    assert (outcome.fetched, outcome.stored, outcome.error) == (3, 3, None)
    now = world.clock.now()
    assert world.price.windows == [Interval(now - timedelta(hours=6), now + timedelta(hours=48))]
    view = load_feed(world.context, feed.id)
    assert view.current == view.latest
    assert view.current is not None
    assert view.current.value == 80
    assert view.health.last_success_at == now
    assert view.health.next_attempt_at == now + timedelta(seconds=feed.poll_s)
    assert view.coverage_24h_ratio == pytest.approx((1.5 - 1 / 60) / 24)
    assert not view.stale
    assert list_due_feeds(world.context) == []


def test_pause_is_made_up_for_as_far_as_a_week(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(80)
    fetch_feed(world.context, feed.id)
    world.clock.advance(86_400)
    world.price.error = FeedUnavailable("HTTP 503")
    fetch_feed(world.context, feed.id)
    world.clock.advance(30 * 86_400)
    fetch_feed(world.context, feed.id)
    backs = [world.price.windows[1].start_at - T0, T0 - world.price.windows[2].start_at]
    assert backs == [timedelta(hours=-6), timedelta(days=-24)]


def test_what_happens_during_a_fetch_is_not_overwritten(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.error = FeedUnavailable("HTTP 503")
    slow = replace(world.context, registry=Meanwhile(world, feed.id))
    fetch_feed(slow, feed.id)
    assert load_feed(world.context, feed.id).health.consecutive_failures == 2
    removing = replace(world.context, registry=Meanwhile(world, feed.id, remove_feed))
    with pytest.raises(NotFound, match="feed"):
        fetch_feed(removing, feed.id)


class Meanwhile(ConnectorRegistry):
    """Does something else to the feed while it is about to be fetched."""

    def __init__(
        self, world: World, feed_id: int, act: Callable[[Context, int], object] = fetch_feed
    ) -> None:
        self._world, self._feed_id, self._act = world, feed_id, act

    def create(self, name: str, options: Mapping[str, str]) -> Connector:
        self._act(self._world.context, self._feed_id)
        return self._world.context.registry.create(name, options)


def test_provider_s_words_with_a_nul_are_kept(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.error = FeedRejected("HTTP 400: \0bad")
    fetch_feed(world.context, feed.id)
    assert load_feed(world.context, feed.id).health.last_error == "HTTP 400: \ufffdbad"


def test_polling_again_stores_nothing(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    for minute in range(3):
        known_at = T0 + timedelta(minutes=minute)
        world.price.values = half_hours((1, 2), known_at=known_at)
        assert fetch_feed(world.context, feed.id).stored == (2 if minute == 0 else 0)


def test_revisions_are_kept_beside_what_was_known_before(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    for number in (100, 120, 100):
        world.price.values = half_hours((number,), known_at=world.clock.now())
        assert fetch_feed(world.context, feed.id).stored == 1
        world.clock.advance(600)
    assert [values(world, feed.id, s) for s in (-1, 0, 599, 600, 1199, 1200)] == [
        [], [100], [100], [120], [120], [100],
    ]  # fmt: skip
    assert values(world, feed.id) == [100]


def test_revision_under_an_unchanged_publication_time_is_kept(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    for number in (100, 120, 130):
        world.price.say(number, kind="measured")
        fetch_feed(world.context, feed.id)
        assert fetch_feed(world.context, feed.id).stored == 0
        world.clock.advance(600)
    assert [values(world, feed.id, s) for s in (0, 600, 1200)] == [[100], [120], [130]]


def test_old_revision_that_comes_late_does_not_win(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.values = half_hours((120,), known_at=T0)
    fetch_feed(world.context, feed.id)
    late = half_hours((100,), known_at=T0 - timedelta(hours=1))
    world.price.values = [*late, *half_hours((120,), known_at=T0)]
    assert fetch_feed(world.context, feed.id).stored == 1
    assert fetch_feed(world.context, feed.id).stored == 0
    assert values(world, feed.id) == [120]


def test_measured_goes_before_forecast(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.values = [
        *half_hours((10,), kind="measured"),
        *half_hours((20, 21), known_at=T0 + timedelta(minutes=1)),
    ]
    fetch_feed(world.context, feed.id)
    assert values(world, feed.id) == [10, 21]


def test_series_comes_in_pages(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    numbers = tuple(float(i) for i in range(7))
    world.price.values = [*half_hours(numbers, kind="measured"), *half_hours(numbers)]
    fetch_feed(world.context, feed.id)
    got: list[float] = []
    page = Page(limit=3)
    for _ in range(3):
        found = load_series(world.context, feed.id, DAY, None, page)
        got += [item.value for item in found.items]
        page = Page(limit=3, cursor=found.next_cursor)
    assert got == list(numbers)
    assert found.next_cursor is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (half_hours((5,), unit="GBP/MWh"), "unit: must be EUR/MWh"),
        (half_hours((5,), unit="EUR/kWh"), "unit: must be <ISO 4217>/MWh"),
        (half_hours((5, 1e9)), "value at .* must be from"),
        ([*half_hours((5,)), *half_hours((6,))], "has two values"),
        ([*half_hours((5,)), *half_hours((6,), T0 + HALF_HOUR / 2)], "overlaps"),
    ],
)
def test_bad_answer_stores_nothing_and_keeps_the_last_good(
    world: World, bad: Sequence[object], message: str
) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(70)
    fetch_feed(world.context, feed.id)
    world.clock.advance(900)
    world.price.values = [*half_hours((80,), T0 + 4 * HALF_HOUR), *bad]  # type: ignore[list-item]
    outcome = fetch_feed(world.context, feed.id)
    assert outcome.stored == 0
    view = load_feed(world.context, feed.id)
    assert re.search(message, str(view.health.last_error))
    assert outcome.error == view.health.last_error
    assert (view.health.consecutive_failures, view.health.invalid_total) == (1, 1)
    assert view.health.next_attempt_at == world.clock.now() + timedelta(seconds=feed.poll_s)
    assert view.current is not None
    assert (view.current.value, view.age_s) == (70, 900)
    assert values(world, feed.id) == [70]


def test_value_for_longer_than_a_month_is_refused(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.values = [
        type(item)(T0, T0 + timedelta(days=33), 5, item.unit, item.kind, T0)
        for item in half_hours((5,))
    ]
    assert "at most 32 days" in str(fetch_feed(world.context, feed.id).error)
    assert values(world, feed.id) == []


def test_unavailable_backs_off_and_success_forgets(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    waits = []
    world.price.error = FeedUnavailable("HTTP 503: try later")
    for _ in range(3):
        assert fetch_feed(world.context, feed.id).error == "HTTP 503: try later"
        health = load_feed(world.context, feed.id).health
        assert health.next_attempt_at is not None
        waits.append((health.next_attempt_at - world.clock.now()).total_seconds())
    assert 30 <= waits[0] <= 60
    assert 60 <= waits[1] <= 120
    assert 120 <= waits[2] <= 240
    assert (health.last_error_kind, health.consecutive_failures) == ("FeedUnavailable", 3)
    assert health.invalid_total == 0
    world.price.say(1)
    fetch_feed(world.context, feed.id)
    health = load_feed(world.context, feed.id).health
    assert (health.last_error, health.last_error_kind, health.consecutive_failures) == (
        None,
    ) * 2 + (0,)


def test_stale_after_too_long_without_an_answer(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(1)
    fetch_feed(world.context, feed.id)
    for seconds in (feed.stale_after_s + 1, 7 * 86_400):
        world.clock.advance(seconds)
        view = load_feed(world.context, feed.id)
        assert view.stale
        assert view.current is None
        assert view.latest is not None
        assert view.latest.value == 1


def test_removed_feed_is_planned_without(world: World) -> None:
    site = world.make_site()
    feed = world.make_feed()
    world.register()
    world.price.say(80)
    fetch_feed(world.context, feed.id)
    replan(world.context, site.id, "schedule")
    remove_feed(world.context, feed.id)
    plan = load_plan(world.context, "oslo")
    assert plan.trigger == "feed p removed"
    assert plan.inputs == ()


def test_preview_stores_nothing(world: World) -> None:
    world.make_site()
    world.price.say(4, 5)
    found = preview_feed(world.context, FeedRequest("oslo", "p", "price"))
    assert [item.value for item in found] == [4, 5]
    world.price.say(4, unit="GBP/MWh")
    with pytest.raises(InvalidValue, match="unit: must be EUR/MWh"):
        preview_feed(world.context, FeedRequest("oslo", "p", "price"))
    world.price.error = FeedRejected("no such zone")
    with pytest.raises(FeedRejected, match="no such zone"):
        preview_feed(world.context, FeedRequest("oslo", "p", "price"))
    assert list_feeds(world.context, "oslo", Page()).items == ()


def test_due_feeds_are_the_longest_waiting_first(world: World) -> None:
    world.make_site()
    first, second, new = (world.make_feed(name=name) for name in "abc")
    world.price.say(1)
    fetch_feed(world.context, second.id)
    world.clock.advance(10)
    fetch_feed(world.context, first.id)
    world.clock.advance(900)
    assert list_due_feeds(world.context) == [new.id, second.id, first.id]
