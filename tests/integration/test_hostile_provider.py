"""Thousands of answers of a provider that does everything wrong, by the production path.

From the HTTP client through connectors, guard, pace, breaker and back-off into the store, by two
replicas over one database. ``make test-hostile`` takes 10,000 answers and prints its figures.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from pals_grid.core.clock import SystemClock
from pals_grid.core.feed import BreakerState
from pals_grid.core.site import SitePolicy
from pals_grid.feeds.addresses import AddressRule, read_network
from pals_grid.feeds.backoff import BackOff
from pals_grid.feeds.cache import Answers
from pals_grid.feeds.http import HttpLimits, RequestsHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.feeds import FeedRequest, add_feed, fetch_feed, load_feed
from pals_grid.service.sites import create_site
from pals_grid.store.engine import Database
from tests.integration.hostile_server import KINDS, kind_of, true_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pals_grid.core.feed import Feed, FeedHealth
    from pals_grid.core.ports import HttpResponse
    from pals_grid.service.feeds import FeedView, FetchOutcome

ANSWERS = int(os.environ.get("PALS_GRID_HOSTILE_ANSWERS", "300"))
SEED = 20260306
POLL_S = 30.0
BACK_OFF = BackOff(min_s=0.02, max_s=0.1, breaker_failures=5, wish_max_s=0.05)
LIMITS = HttpLimits(connect_s=2.0, read_s=2.0, deadline_s=3.0)
# Eight fetches at once, each with a body of at most 32 MiB and one copy of it, and what the
# libraries take.
RSS_MAX_MB = 8 * 2 * 33.6 + 100
GOOD = {"good", "clock_skew"}
REJECTED = {"redirect_inward", "redirect_loop", "redirect_file", "404", "401"}
INVALID = {
    *("html", "empty", "zip_truncated", "zip_bomb", "gzip_file_bomb", "xml_bomb", "xml_many"),
    *("json_deep", "json_many", "wrong_zone", "no_offset", "not_a_number", "beyond_bounds"),
    "known_later",
}
SLOW = {"silent", "trickle"}
TOO_LATE = ("ReadTimeout", "ConnectTimeout", "did not finish", "timed out")
TELL_CREDIT = {"good", "clock_skew", "429_seconds", "429_bare", "429_date", "500", "404", "html"}
WISHES = {"429_seconds", "429_date"}
# Given by the provider in a unit ten times smaller than the stored one.
SCALE = {"octopus": 10.0}


def options(feed: str, address: str) -> tuple[str, dict[str, str]]:
    """Connector and options of a feed."""
    base = f"{address}/{feed}"
    return {
        "octopus": ("octopus_agile", {"base_url": f"{base}/v1"}),
        "neso": ("neso", {"base_url": base, "region": "13"}),
        "entsoe": ("entsoe", {"base_url": f"{base}/api", "zone": "NL"}),
        "file": (
            "file",
            {
                "url": f"{base}/prices.csv",
                "quantity": "price",
                "unit": "EUR/MWh",
                "start_column": "start",
                "value_column": "price",
                "interval_s": "3600",
                "known_at_column": "known",
            },
        ),
    }[feed.rstrip("0123456789")]


@dataclass
class Counting:
    """Counts what is asked of each feed's address, on the way to the network."""

    inner: RequestsHttp
    asked: Counter[str] = field(default_factory=Counter)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        self.asked[urlsplit(url).path.split("/")[1]] += 1
        return self.inner.get(url, params, headers)

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise NotImplementedError(url, form, headers)


@dataclass
class Tally:
    """What the run gave, over all feeds."""

    kinds: Counter[str] = field(default_factory=Counter)
    held_back: int = 0
    open_seen: int = 0
    backed_off: int = 0
    late: int = 0
    lock: Lock = field(default_factory=Lock)
    said: int = 0

    def say_progress(self) -> None:
        """A line each thousand answers."""
        answers = sum(self.kinds.values())
        if answers // 1000 > self.said:
            self.said = answers // 1000
            print(f"{answers} answers", flush=True)


@pytest.fixture
def provider() -> Iterator[tuple[str, list[str]]]:
    program = Path(__file__).with_name("hostile_server.py")
    order = [sys.executable, str(program), str(SEED)]
    with subprocess.Popen(order, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said: list[str] = []
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}", said
        finally:
            server.terminate()
            said += server.stdout.read().split()


def make_replica(database: Database) -> Context:
    clock = SystemClock()
    rule = AddressRule((read_network("127.0.0.1/32"),))
    return Context(
        database,
        clock,
        ConnectorRegistry(),
        Counting(RequestsHttp(LIMITS, clock, rule)),
        plan_power_budget,
        answers=Answers(clock, max_age_s=0.0),
        back_off=BACK_OFF,
    )


def make_feeds(context: Context, address: str, folder: Path) -> dict[str, Feed]:
    token = folder / "token"
    token.write_text("a-token")
    for slug, currency in (("gbp", "GBP"), ("eur", "EUR")):
        policy = SitePolicy(slug, slug, 20_000, 2_000, 5_000, currency=currency)
        create_site(context, policy)
    feeds = {}
    for name in ("octopus1", "octopus2", "neso1", "neso2", "entsoe1", "file1", "file2", "file3"):
        connector, given = options(name, address)
        site = "gbp" if name.startswith(("octopus", "neso")) else "eur"
        secret = f"file:{token}" if connector == "entsoe" else None
        request = FeedRequest(site, name, connector, given, secret, POLL_S)
        feeds[name] = add_feed(context, request)
    return feeds


class Asking:
    """Fetches one feed again and again, by one replica and the other, and checks its health."""

    def __init__(self, replicas: list[Context], feed: Feed, tally: Tally) -> None:
        self._replicas = replicas
        self._feed = feed
        self._tally = tally
        self._failures = 0
        self._invalid = 0
        self._turn = 0

    def run(self, until: int) -> None:
        while sum(self._tally.kinds.values()) < until:
            self._turn += 1
            replica = self._replicas[self._turn % len(self._replicas)]
            before = self._asked()
            outcome = fetch_feed(replica, self._feed.id)
            name = self._feed.name
            kinds = [kind_of(SEED, name, n) for n in range(before, self._asked())]
            view = load_feed(replica, self._feed.id)
            with self._tally.lock:
                self._tally.kinds.update(kinds)
                self._tally.say_progress()
                if view.provider and view.provider.breaker is not BreakerState.CLOSED:
                    self._tally.open_seen += 1
            if outcome.error is not None and "is not asked" in outcome.error:
                self._check_held_back(view)
            else:
                self._check(kinds, outcome, view)

    def _asked(self) -> int:
        return sum(replica.http.asked[self._feed.name] for replica in self._replicas)  # type: ignore[attr-defined]

    def _check_held_back(self, view: FeedView) -> None:
        assert view.health.consecutive_failures == self._failures
        with self._tally.lock:
            self._tally.held_back += 1
        time.sleep(0.01)

    def _check(self, kinds: list[str], outcome: FetchOutcome, view: FeedView) -> None:
        health, last = view.health, kinds[-1]
        said = (self._feed.name, kinds, outcome)
        # Bounds are looked at when all pages are there.
        assert set(kinds[:-1]) <= GOOD | {"beyond_bounds"}, said
        bad = [kind for kind in kinds if kind not in GOOD]
        if last not in SLOW and any(word in (outcome.error or "") for word in TOO_LATE):
            # This machine was too busy: for the client that is silence, and to be taken so.
            bad = ["silent"]
            with self._tally.lock:
                self._tally.late += 1
        if not bad:
            assert outcome.error is None, said
            self._failures = 0
            assert (health.last_error, health.last_success_at) == (None, health.last_attempt_at)
            assert (view.stale, view.coverage_24h_ratio > 0.9) == (False, True), said
            assert view.clock_is_wrong == (last == "clock_skew"), said
            self._check_wait(health, POLL_S, POLL_S)
        else:
            self._failures += 1
            self._check_failed(bad[-1], health, said)
        if last in TELL_CREDIT and bad[-1:] != ["silent"]:
            assert health.credit_left == self._asked() - 1, said
        assert health.consecutive_failures == self._failures, said
        assert health.invalid_total == self._invalid, said

    def _check_failed(self, last: str, health: FeedHealth, said: object) -> None:
        wanted = "FeedRejected" if last in REJECTED else "FeedUnavailable"
        if last in INVALID:
            self._invalid += 1
            wanted = "FeedDataInvalid"
        assert health.last_error_kind == wanted, said
        assert health.last_error, said
        if wanted != "FeedUnavailable":
            self._check_wait(health, POLL_S, POLL_S)
            return
        ceiling_s = min(BACK_OFF.max_s, BACK_OFF.min_s * 2.0 ** min(self._failures, 20))
        low_s = max(BACK_OFF.min_s, ceiling_s / 2)
        if last in WISHES:
            low_s = BACK_OFF.wish_max_s
            ceiling_s = max(ceiling_s, BACK_OFF.wish_max_s + BACK_OFF.min_s)
        self._check_wait(health, low_s, ceiling_s)
        with self._tally.lock:
            self._tally.backed_off += 1

    def _check_wait(self, health: FeedHealth, low_s: float, high_s: float) -> None:
        assert health.next_attempt_at is not None
        assert health.last_attempt_at is not None
        wait_s = (health.next_attempt_at - health.last_attempt_at).total_seconds()
        assert low_s - 1e-4 <= wait_s <= high_s + 1e-4, (self._feed.name, wait_s, low_s, high_s)


def wrong_values(database: Database, feeds: dict[str, Feed]) -> list[str]:
    """Stored values that are not what good answers say."""
    query = text("SELECT * FROM observation WHERE feed_id = :feed_id")
    wrong: list[str] = []
    with database.read() as connection:
        for name, feed in feeds.items():
            rows = connection.execute(query, {"feed_id": feed.id}).all()
            assert rows or ANSWERS < 2000, name
            scale = SCALE.get(name.rstrip("0123456789"), 1.0)
            wrong += [
                f"{name}: {row}"
                for row in rows
                if abs(row.value - scale * true_value(row.start_at)) > 1e-6
                or row.known_at > row.recorded_at
            ]
    return wrong


def test_nothing_of_a_hostile_provider_is_believed(
    provider: tuple[str, list[str]],
    database: Database,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    address, said = provider
    other = Database(database.url, pool_size=8)
    request.addfinalizer(other.dispose)
    replicas = [make_replica(database), make_replica(other)]
    feeds = make_feeds(replicas[0], address, tmp_path)
    tally = Tally()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun_s, cpu_s = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(len(feeds)) as pool:
        runs = [pool.submit(Asking(replicas, feed, tally).run, ANSWERS) for feed in feeds.values()]
        for run in runs:
            run.result()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wrong = wrong_values(database, feeds)
    print(f"answers {sum(tally.kinds.values())}: {dict(sorted(tally.kinds.items()))}")
    print(f"fetches that ended otherwise than they should 0, wrong values stored {len(wrong)}")
    print(f"back-offs checked {tally.backed_off}, fetches held back {tally.held_back}")
    print(f"answers that came too late by this machine's own load {tally.late}")
    print(f"peak memory {peak_mb:.0f} MB, before {rss_mb:.0f} MB")
    print(f"{time.monotonic() - begun_s:.0f} s, {time.process_time() - cpu_s:.0f} s of CPU")
    assert wrong == []
    assert peak_mb - rss_mb < RSS_MAX_MB
    assert "REACHED" not in said
    if ANSWERS >= 2000:
        assert set(tally.kinds) == set(KINDS)
        assert tally.held_back > 0
        assert tally.open_seen > 0
