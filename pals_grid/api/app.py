"""The HTTP application: /api/v1, health, metrics; the composition root adds the console."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from pals_grid import __version__
from pals_grid.api.etag import ETags
from pals_grid.api.guards import BodyLimit, RequestGuard
from pals_grid.api.metrics import ServiceCollector
from pals_grid.api.problems import install_problems
from pals_grid.api.routes import (
    events,
    feeds,
    forecasts,
    health,
    live,
    metrics,
    nodes,
    plans,
    reports,
    sites,
    tariffs,
    telemetry,
    what_if,
)
from pals_grid.api.wire_schema import describe_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from pals_grid.service.context import Context
    from pals_grid.store.listen import Notifications

API_PREFIX = "/api/v1"
RESOURCES = (
    sites,
    live,
    tariffs,
    what_if,
    nodes,
    feeds,
    forecasts,
    plans,
    events,
    telemetry,
    reports,
)


def build_api(
    context: Context, notifications: Notifications, *, hosts: Collection[str] = ()
) -> FastAPI:
    """Build the application over ``context``; it runs ``notifications`` while it lives.

    ``hosts`` are names to answer to besides loopback.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        listening = asyncio.create_task(notifications.run(), name="notifications")
        try:
            yield
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    app = FastAPI(
        title="PALS Grid",
        version=__version__,
        summary="Power budgets for LLM inference fleets, from grid signals to watts",
        lifespan=lifespan,
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,  # its page would load scripts from another host
        redoc_url=None,
    )
    app.state.context = context
    app.state.notifications = notifications
    # Set when the process is about to end: long-polls answer at once.
    app.state.stopping = False
    app.state.metrics = _registry(context)
    _include(app)
    install_problems(app)
    describe_wire(app)
    app.add_middleware(ETags, prefix=API_PREFIX)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestGuard, hosts=hosts)
    return app


def _include(app: FastAPI) -> None:
    api = APIRouter(prefix=API_PREFIX)
    for resource in RESOURCES:
        api.include_router(resource.router)
    app.include_router(api)
    app.include_router(health.router)
    app.include_router(metrics.router)


def _registry(context: Context) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ServiceCollector(context))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
