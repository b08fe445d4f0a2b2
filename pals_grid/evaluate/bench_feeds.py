"""What a year of five-minute values costs: to fetch and store, and to ask for by quarter-hours.

Wall time on a real Postgres, embedded, whose own work is in it; the provider is a stand-in
that answers at once, so that its network is not.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.intervals import Interval, slots
from pals_grid.core.ports import HttpResponse
from pals_grid.core.site import SitePolicy
from pals_grid.evaluate.scratch import scratch_database
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.backfill import backfill_feed
from pals_grid.service.context import Context
from pals_grid.service.feeds import FeedRequest, add_feed
from pals_grid.service.sites import create_site
from pals_grid.service.values import load_values
from pals_grid.sim.clock import SimClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.store.engine import Database

FIVE_MINUTES = timedelta(minutes=5)
PART = timedelta(days=30)
QUERIES = 20


@dataclass(frozen=True, slots=True)
class FeedCosts:
    """Seconds to backfill ``values`` of them, and milliseconds to load ``slots`` as JSON."""

    values: int
    backfill_s: float
    slots: int
    first_query_ms: float
    query_p50_ms: float
    query_max_ms: float


@dataclass
class InstantWattTime:
    """``core.ports.HttpClient`` that answers as WattTime does, without a network."""

    asked: list[Mapping[str, str]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - every account is good
    ) -> HttpResponse:
        """Answer a login, or a question about the past."""
        if url.endswith("/login"):
            return HttpResponse(url, 200, {}, b'{"token": "bench"}')
        asked = dict(params or {})
        self.asked.append(asked)
        return HttpResponse(url, 200, {}, _historical(asked))

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Answer as ``get`` does."""
        return self.get(url, form, headers)


def measure_feeds(now: datetime, days: int = 365) -> FeedCosts:
    """Backfill ``days`` up to ``now`` on a database of its own, then ask for them all."""
    whole = Interval(now - timedelta(days=days), now)
    with scratch_database(None) as database, tempfile.NamedTemporaryFile("w") as account:
        account.write("bench:bench")
        account.flush()
        context, feed_id = _make_feed(database, now, f"file:{account.name}")
        begun_s = time.perf_counter()
        stored = sum(
            backfill_feed(context, feed_id, part).stored
            for part in slots(whole.start_at, whole.end_at, PART)
        )
        backfill_s = time.perf_counter() - begun_s
        queries_ms = [_query_ms(context, feed_id, whole) for _ in range(QUERIES)]
        count = len(load_values(context, feed_id, whole).values)
    return FeedCosts(
        stored, backfill_s, count, queries_ms[0], median(queries_ms), max(queries_ms[1:])
    )


def _make_feed(database: Database, now: datetime, secret_ref: str) -> tuple[Context, int]:
    context = Context(
        database, SimClock(now), ConnectorRegistry(), InstantWattTime(), plan_power_budget
    )
    policy = SitePolicy(
        slug="bench", name="Bench", grid_connection_w=1e4, minimum_w=0.0, safe_limit_w=0.0
    )
    create_site(context, policy)
    request = FeedRequest("bench", "moer", "watttime", {"region": "BENCH"}, secret_ref)
    return context, add_feed(context, request).id


def _query_ms(context: Context, feed_id: int, whole: Interval) -> float:
    begun_s = time.perf_counter()
    msgspec.json.encode(load_values(context, feed_id, whole).values)
    return (time.perf_counter() - begun_s) * 1000


def _historical(asked: Mapping[str, str]) -> bytes:
    start_at, end_at = (datetime.fromisoformat(asked[name]) for name in ("start", "end"))
    count = round((end_at - start_at) / FIVE_MINUTES)
    points = [
        {"point_time": (start_at + i * FIVE_MINUTES).isoformat(), "value": 900 + i * 37 % 101}
        for i in range(count)
    ]
    meta = {
        "data_point_period_seconds": 300,
        "region": asked["region"],
        "signal_type": asked["signal_type"],
        "units": "lbs_co2_per_mwh",
        "warnings": [],
    }
    return json.dumps({"data": points, "meta": meta}).encode()
