"""The web console: its pages, its charts' data, its live stream and its own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.staticfiles import StaticFiles

from pals_grid_dashboards.console.answering import form_page, page, with_headers
from pals_grid_dashboards.console.event_page import EventPage
from pals_grid_dashboards.console.feed_page import FeedPage
from pals_grid_dashboards.console.live import Live
from pals_grid_dashboards.console.now_page import NowPage
from pals_grid_dashboards.console.report_page import ReportPage
from pals_grid_dashboards.console.tariff_page import TariffPage
from pals_grid_dashboards.console.what_if_page import WhatIfPage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context
    from pals_grid.store.listen import Notifications

STATIC = Path(__file__).parent / "static"


def build_console(context: Context, notifications: Notifications) -> APIRouter:
    """Return the console's routes. ``notifications`` must be running for the live stream."""
    router = APIRouter(include_in_schema=False)
    now, events = NowPage(context), EventPage(context)
    feeds, reports = FeedPage(context), ReportPage(context)
    tariff, what_if = TariffPage(context), WhatIfPage(context)
    for path, answer in {
        "/": now.show,
        "/charts/now": now.chart,
        "/events": events.show,
        "/charts/events/{event_id:int}": events.chart,
        "/feeds": feeds.show,
        "/charts/feeds/{feed_id:int}": feeds.chart,
        "/reports": reports.show,
        "/tariff": tariff.show,
        "/what-if": what_if.show,
    }.items():
        router.add_route(path, page(context, answer), ["GET"])
    for path, take in {
        "/events": events.create,
        "/events/{event_id:int}/cancel": events.cancel,
        "/feeds/{feed_id:int}/fetch": feeds.fetch,
        "/tariff": tariff.take,
    }.items():
        router.add_route(path, form_page(context, take), ["POST"])
    router.add_route("/live", Live(context, notifications, now).stream, ["GET"])
    router.add_route("/static/{path:path}", _static_files(), ["GET"])
    return router


def _static_files() -> Callable[[Request], Awaitable[Response]]:
    files = StaticFiles(directory=STATIC)

    async def endpoint(request: Request) -> Response:
        response = await files.get_response(request.path_params["path"], request.scope)
        response.headers["Cache-Control"] = "no-cache"
        return with_headers(response)

    return endpoint
