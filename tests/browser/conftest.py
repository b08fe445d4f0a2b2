"""The real application in a thread, over a database with a day of made-up life, and a browser."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn
from pals_grid_dashboards.console.routes import build_console
from playwright.sync_api import expect, sync_playwright

from pals_grid.api.app import build_api
from pals_grid.core.errors import FeedUnavailable
from pals_grid.core.events import EventRequest
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import floor_to
from pals_grid.core.site import SitePolicy
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.events import create_event
from pals_grid.service.feeds import FeedRequest, add_feed, fetch_feed
from pals_grid.service.nodes import (
    authenticate_node,
    issue_enrolment_token,
    record_status,
    register_node,
)
from pals_grid.service.sites import create_site
from pals_grid.service.telemetry import ingest
from pals_grid.sim.clock import SimClock
from pals_grid.store.listen import Notifications
from pals_grid.wire.messages import (
    CurvePoint,
    EngineRow,
    EngineStatus,
    GpuDescription,
    NodeStatus,
    RegisterRequest,
    TelemetryBatch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI
    from playwright.sync_api import Browser, Page, Playwright

    from pals_grid.core.ports import HttpResponse
    from pals_grid.store.engine import Database

CHROMIUM = Path(os.environ.get("PALS_GRID_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MODEL = "Qwen2.5-7B-Instruct"
ROW = timedelta(seconds=5)
NOW = datetime(2026, 11, 18, 12, 7, 13, tzinfo=UTC)
"""It stands still but for reports: no node goes offline and no event ends under a test."""
PATIENCE_MS = 60_000


class NoNetwork:
    """Every provider is out of reach, in words that the page has to quote."""

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        del params, headers
        raise FeedUnavailable(f"HTTP 503 from {url}: closed for <b>maintenance</b>")

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        return self.get(url, form, headers)


@dataclass
class Console:
    """A running console, and the node that a test speaks for."""

    url: str
    context: Context
    clock: SimClock
    app: FastAPI
    node_token: str = ""

    def report(self, node_power_w: float) -> None:
        """Send a status of the node, a second later than the one before."""
        self.clock.advance(1.0)
        node = authenticate_node(self.context, self.node_token)
        record_status(self.context, node, _status(self.clock.now(), node_power_w))


@pytest.fixture
def empty_console(database: Database) -> Iterator[Console]:
    """The application over a database that holds nothing."""
    clock = SimClock(NOW)
    context = Context(
        database=database,
        clock=clock,
        registry=ConnectorRegistry(),
        http=NoNetwork(),
        planner=plan_power_budget,
    )
    notifications = Notifications(database.url)
    app = build_api(context, notifications)
    app.include_router(build_console(context, notifications))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, name="console")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Console(f"http://127.0.0.1:{port}", context, clock, app)
    finally:
        app.state.stopping = True
        server.should_exit = True
        thread.join(timeout=120)
        assert not thread.is_alive()


@pytest.fixture
def console(empty_console: Console) -> Console:
    """The application over a site with feeds, a node, half an hour of telemetry and events."""
    context = empty_console.context
    create_site(context, _policy())
    _add_feeds(context)
    reply = register_node(context, issue_enrolment_token(context, "works"), _introduction())
    node = authenticate_node(context, reply.node_token)
    now = context.clock.now()
    ingest(context, node, TelemetryBatch(spool_id="a", seq=1, engine_rows=_rows(now), gpu_rows=[]))
    for order in _orders(now):
        create_event(context, "works", order)
    empty_console.node_token = reply.node_token
    empty_console.report(612.0)
    return empty_console


def _policy() -> SitePolicy:
    return SitePolicy(
        slug="works",
        name="Test works",
        timezone="Europe/London",
        currency="GBP",
        grid_connection_w=3000.0,
        minimum_w=300.0,
        safe_limit_w=1200.0,
        carbon_price_per_tonne=50.0,
        deferrable_ratio=0.3,
        demand_tokens_per_s=1500.0,
    )


def _add_feeds(context: Context) -> None:
    price = {"quantity": "price", "currency": "GBP"}
    for name, connector, options in (
        ("made-up price", "synthetic", price),
        ("made-up carbon", "synthetic", {"quantity": "average_intensity"}),
        ("neso", "neso", {}),
    ):
        feed = add_feed(context, FeedRequest("works", name, connector, options))
        fetch_feed(context, feed.id)


def _introduction() -> RegisterRequest:
    return RegisterRequest(
        name="node-1",
        hardware="2 x NVIDIA L40S",
        agent_version="0.1.0",
        origin=Origin.SIMULATED,
        gpus=[_gpu("GPU-1"), _gpu("GPU-2")],
        models=[MODEL],
        power_min_w=250.0,
        power_max_w=1000.0,
        curve=[
            CurvePoint(tokens_per_s=0.0, power_w=250.0),
            CurvePoint(tokens_per_s=1500.0, power_w=600.0),
            CurvePoint(tokens_per_s=2500.0, power_w=1000.0),
        ],
    )


def _gpu(uuid: str) -> GpuDescription:
    return GpuDescription(
        uuid=uuid, model="NVIDIA L40S", limit_min_w=100, limit_max_w=350, limit_default_w=350
    )


def _orders(now: datetime) -> list[EventRequest]:
    start = floor_to(now, timedelta(minutes=1)) - timedelta(minutes=20)
    tomorrow = floor_to(now, timedelta(hours=1)) + timedelta(hours=20)
    return [
        EventRequest("Grid test", start, start + timedelta(minutes=30), limit_w=700.0, ramp_s=300),
        EventRequest(
            "Tomorrow's <peak>", tomorrow, tomorrow + timedelta(hours=2), reduction_ratio=0.2
        ),
    ]


def _rows(now: datetime) -> list[EngineRow]:
    last = floor_to(now, ROW)
    return [_row(last - ROW * k, 600.0 + 40.0 * (k % 7)) for k in range(360, 0, -1)]


def _row(start_at: datetime, node_power_w: float) -> EngineRow:
    gpu_power_w = node_power_w * 0.7
    return EngineRow(
        engine="engine-0",
        model=MODEL,
        start_at=start_at,
        end_at=start_at + ROW,
        ticks=10,
        gpu_energy_j=gpu_power_w * 5,
        node_energy_j=node_power_w * 5,
        idle_energy_j=node_power_w * 0.5,
        energy_origin=Origin.SIMULATED,
        node_energy_origin=Origin.MODELLED,
        power_draw_w=gpu_power_w,
        power_draw_max_w=gpu_power_w * 1.1,
        power_limit_w=500.0,
        power_envelope_w=900.0,
        ticks_over_envelope=0,
        max_num_seqs=64,
        requests_running=40.0,
        requests_waiting=2.0,
        tokens_in=18_000.0,
        tokens_out=7_500.0,
        requests_finished=30,
        ttft_misses=1,
        itl_misses=0,
    )


def _status(at: datetime, node_power_w: float) -> NodeStatus:
    engine = EngineStatus(
        engine="engine-0",
        model=MODEL,
        power_limit_w=500.0,
        power_draw_w=node_power_w * 0.7,
        max_num_seqs=64,
        requests_running=40,
        requests_waiting=2,
        tokens_out_per_s=1500.0,
        gpu_energy_j_per_token=0.29,
        reason="inside the envelope",
    )
    return NodeStatus(
        at=at,
        mode="following",
        envelope_version=1,
        power_envelope_w=700.0,
        node_power_w=node_power_w,
        node_power_origin=Origin.MODELLED,
        gpu_power_w=node_power_w * 0.7,
        tick_lag_ms=1.0,
        engines=[engine],
        gpus=[],
    )


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if not CHROMIUM.is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}; PALS_GRID_CHROMIUM names another place")
    started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh profile. Anything that it complains of fails the test."""
    profile = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    complaints: list[str] = []
    profile.set_default_timeout(PATIENCE_MS)
    opened = profile.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None,
    )
    yield opened
    profile.close()
    refused = "the server responded with a status of 422"
    assert [text for text in complaints if refused not in text] == []
