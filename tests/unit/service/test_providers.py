"""Pace, breaker and answers, shared by replicas over one database."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from sqlalchemy import text

from pals_grid.core.connecting import raise_for_status, read_options
from pals_grid.core.errors import FeedHeldBack
from pals_grid.core.feed import BreakerState
from pals_grid.core.ports import HttpResponse, Pace, Rhythm
from pals_grid.core.series import Quantity
from pals_grid.feeds.backoff import BackOff
from pals_grid.feeds.cache import Answers
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.jobs import Jobs
from pals_grid.service.feeds import FeedRequest, add_feed, fetch_feed, load_feed
from pals_grid.service.providers import StoredGate, open_provider
from tests.unit.service.world import T0, half_hours

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.feed import Feed
    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import ConnectorOption, FetchContext
    from pals_grid.core.series import Observation
    from pals_grid.service.context import Context
    from pals_grid.service.feeds import FeedView
    from tests.unit.service.world import World

KEY = "test_providers:provider.example"
BACK_OFF = BackOff(min_s=30, max_s=600, breaker_failures=3)


@dataclass
class Network:
    """Answers with a status; remembers when it was asked."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,  # noqa: ARG002
        headers: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> HttpResponse:
        with self.lock:
            self.asked_s.append(time.monotonic())
        return HttpResponse(url, self.status, self.headers, b"")

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise NotImplementedError(url, form, headers)


class Asks:
    """A connector of one request a fetch, with values that never change."""

    summary: ClassVar[str] = "asks once"
    options: ClassVar[tuple[ConnectorOption, ...]] = ()
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    quantity: ClassVar[Quantity] = Quantity.PRICE
    rhythm: ClassVar[Rhythm | None] = Rhythm(3600.0, 600.0)

    def __init__(self, options: Mapping[str, str]) -> None:
        read_options(options, self.options)

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        del window
        response = context.http.get("https://provider.example/values")
        raise_for_status(response, "no")
        return half_hours((1.0, 2.0))

    def parse(self, payload: bytes, known_at: object) -> list[Observation]:
        raise NotImplementedError(payload, known_at)


class Paced(Asks):
    pace: ClassVar[Pace | None] = Pace(10, 0.5)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def context(world: World, network: Network) -> Context:
    world.make_site("oslo")
    world.make_site("bergen")
    registry = ConnectorRegistry({"asks": lambda: Asks, "paced": lambda: Paced})
    return replace(world.context, registry=registry, http=network, back_off=BACK_OFF)


def add(context: Context, name: str, site: str = "oslo") -> Feed:
    return add_feed(context, FeedRequest(site, name, "asks", poll_s=900))


def advance(context: Context, seconds: float) -> None:
    context.clock.at += timedelta(seconds=seconds)  # type: ignore[attr-defined]


def breaker(view: FeedView) -> tuple[BreakerState, int]:
    assert view.provider is not None
    assert view.provider.key == KEY
    return view.provider.breaker, view.provider.failures


def server_at(context: Context) -> datetime:
    """The database's clock, by which turns are given."""
    with context.database.read() as connection:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def spent_s(begun_s: float) -> float:
    """What the test has taken, and a little for two clocks that do not tick as one."""
    return time.monotonic() - begun_s + 0.1


# --- pace ----------------------------------------------------------------------------------


def test_replicas_keep_one_pace_between_them(context: Context, network: Network) -> None:
    """Never more than the allowed ten in any half second, whoever asks."""
    replicas = [context, replace(context)]
    begun_at, begun_s = server_at(context), time.monotonic()

    def ask(number: int) -> None:
        http, _ = open_provider(replicas[number % 2], Paced({}))
        for _ in range(3):
            http.get("https://provider.example/values")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    # Turns are evenly apart, and nobody asks before its own; one that asks late keeps no other.
    turn_s = 1.1 * 0.5 / 10
    asked_s = sorted(at_s - begun_s for at_s in network.asked_s)
    assert len(asked_s) == 12
    assert all(at_s > i * turn_s - 0.005 for i, at_s in enumerate(asked_s)), asked_s
    with context.database.read() as connection:
        query = text("SELECT next_free_at FROM provider")
        next_at = connection.execute(query).scalar_one()
    turn = timedelta(seconds=turn_s)
    assert begun_at + 12 * turn <= next_at <= server_at(context) + turn


def test_who_would_wait_too_long_is_told_when_to_come(context: Context) -> None:
    gate = StoredGate(context)
    begun_s = time.monotonic()
    assert gate.admit(KEY, 600.0, 1200.0) <= 0
    wait_s = gate.admit(KEY, 600.0, 1200.0)
    assert 600 - spent_s(begun_s) < wait_s <= 600
    with pytest.raises(FeedHeldBack, match="its pace leaves no room") as caught:
        gate.admit(KEY, 600.0, 1000.0)
    assert caught.value.retry_after_s is not None
    assert 1200 - spent_s(begun_s) < caught.value.retry_after_s <= 1200
    assert gate.admit("other:provider.example", 600.0, 0.0) <= 0


def test_the_wish_of_one_feed_holds_for_all_of_its_provider(
    context: Context, network: Network
) -> None:
    first, second = add(context, "a"), add(context, "b", "bergen")
    network.status, network.headers = 429, {"retry-after": "400"}
    begun_s = time.monotonic()
    fetch_feed(context, first.id)
    outcome = fetch_feed(context, second.id)
    assert "its pace leaves no room" in str(outcome.error)
    assert len(network.asked_s) == 1
    health = load_feed(context, second.id).health
    assert health.next_attempt_at is not None
    wait_s = (health.next_attempt_at - T0).total_seconds()
    assert 400 - spent_s(begun_s) < wait_s <= 416


# --- breaker -------------------------------------------------------------------------------


def test_a_provider_that_fails_is_left_alone_then_probed_once(
    context: Context, network: Network
) -> None:
    feeds = [add(context, name) for name in "abcd"]
    network.status = 503
    for feed in feeds[:3]:
        fetch_feed(context, feed.id)
    view = load_feed(context, feeds[0].id)
    assert breaker(view) == (BreakerState.OPEN, 3)
    assert view.provider is not None
    assert view.provider.probe_at == T0 + timedelta(seconds=60)
    assert "is not asked: 3 failures in a row" in str(fetch_feed(context, feeds[3].id).error)
    assert len(network.asked_s) == 3

    advance(context, 60)
    assert breaker(load_feed(context, feeds[0].id))[0] is BreakerState.HALF_OPEN
    fetch_feed(context, feeds[0].id)
    assert len(network.asked_s) == 4
    view = load_feed(context, feeds[0].id)
    assert breaker(view) == (BreakerState.OPEN, 4)
    assert view.provider is not None
    assert view.provider.probe_at == T0 + timedelta(seconds=60 + 120)

    advance(context, 120)
    network.status = 200
    assert fetch_feed(context, feeds[3].id).error is None
    assert breaker(load_feed(context, feeds[0].id)) == (BreakerState.CLOSED, 0)
    assert fetch_feed(context, feeds[0].id).error is None


def test_only_one_probe_is_out_at_a_time(context: Context, network: Network) -> None:
    gate = StoredGate(context)
    for _ in range(3):
        gate.admit(KEY, 0.0, 1.0)
        gate.record(KEY, failed=True, wish_s=0.0)
    advance(context, 60)
    assert gate.admit(KEY, 0.0, 1.0) <= 0
    with pytest.raises(FeedHeldBack):
        gate.admit(KEY, 0.0, 1.0)
    # Its process died: after the lease another one may try.
    advance(context, 200)
    assert gate.admit(KEY, 0.0, 1.0) <= 0
    assert network.asked_s == []


def test_a_feed_that_is_held_back_has_not_failed(context: Context, network: Network) -> None:
    feed, others = add(context, "a"), [add(context, name) for name in "bcd"]
    network.status = 500
    fetch_feed(context, feed.id)
    before = load_feed(context, feed.id).health
    for other in others[:2]:
        fetch_feed(context, other.id)
    advance(context, 30)
    fetch_feed(context, feed.id)
    fetch_feed(context, others[2].id)
    health = load_feed(context, feed.id).health
    assert health.next_attempt_at is not None
    assert 30 <= (health.next_attempt_at - context.clock.now()).total_seconds() <= 45
    assert replace(health, next_attempt_at=before.next_attempt_at) == before
    fresh = load_feed(context, others[2].id).health
    assert (fresh.last_attempt_at, fresh.consecutive_failures) == (None, 0)
    assert fresh.last_error == f"{KEY} is not asked: 3 failures in a row"


def test_refusals_do_not_open_the_breaker(context: Context, network: Network) -> None:
    feed = add(context, "a")
    network.status = 404
    for _ in range(5):
        fetch_feed(context, feed.id)
    assert len(network.asked_s) == 5
    assert breaker(load_feed(context, feed.id)) == (BreakerState.CLOSED, 0)


def test_a_database_that_fails_is_not_the_providers_fault(
    context: Context, network: Network
) -> None:
    feed = add(context, "a")
    with context.database.begin() as connection:
        connection.execute(text("ALTER TABLE provider RENAME TO provider_gone"))
    http, _ = open_provider(context, Asks({}))
    with pytest.raises(FeedHeldBack, match="the database does not answer: ProgrammingError"):
        http.get("https://provider.example/values")
    assert "the database does not answer" in str(fetch_feed(context, feed.id).error)
    assert network.asked_s == []
    with context.database.begin() as connection:
        connection.execute(text("ALTER TABLE provider_gone RENAME TO provider"))
    health = load_feed(context, feed.id).health
    assert (health.consecutive_failures, health.invalid_total) == (0, 0)


# --- health --------------------------------------------------------------------------------


def test_health_tells_rhythm_credit_and_clock(context: Context, network: Network) -> None:
    feed = add(context, "a")
    network.headers = {"x-ratelimit-remaining": "7", "date": "Mon, 02 Mar 2026 12:05:00 GMT"}
    fetch_feed(context, feed.id)
    view = load_feed(context, feed.id)
    assert (view.health.credit_left, view.health.clock_skew_s) == (7.0, 300.0)
    assert view.clock_is_wrong
    assert (view.health.last_new_at, view.late) == (T0, False)
    assert view.new_due_at == T0 + timedelta(seconds=3600 + 600)
    assert view.coverage_24h_ratio == pytest.approx(1 / 24)
    assert view.coverage_48h_ratio == pytest.approx(1 / 48)
    network.headers = {}
    advance(context, 4201)
    # It answers, with nothing new.
    assert fetch_feed(context, feed.id).stored == 0
    view = load_feed(context, feed.id)
    assert (view.stale, view.late, view.health.last_new_at) == (False, True, T0)
    assert view.health.credit_left == 7.0


# --- one fetch for all ---------------------------------------------------------------------


def test_two_sites_of_one_zone_share_an_answer(context: Context, network: Network) -> None:
    sharing = replace(context, answers=Answers(context.clock))
    feeds = [add(sharing, "a"), add(sharing, "a", "bergen")]
    assert [fetch_feed(sharing, feed.id).stored for feed in feeds] == [2, 2]
    assert len(network.asked_s) == 1


def test_replicas_that_look_at_one_time_fetch_once(context: Context, network: Network) -> None:
    for name in "abc":
        add(context, name)

    def fetch_all(jobs: Jobs) -> int:
        done = 0
        while jobs.fetch_next():
            done += 1
        return done

    replicas = [Jobs(replace(context)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(fetch_all, replicas)) == 3
    assert len(network.asked_s) == 3
