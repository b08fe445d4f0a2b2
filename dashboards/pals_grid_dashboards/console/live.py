"""Live updates as server-sent events: woken by the database, at most one a second."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from pals_grid_dashboards.console.answering import with_headers
from pals_grid_dashboards.console.loading import load_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context
    from pals_grid.store.listen import Notifications, Subscription
    from pals_grid_dashboards.console.now_page import NowPage

SPACING_S = 1.0
LOOK_S = 5.0
HEARTBEAT_S = 15.0
STOP_LOOK_S = 0.5

PARTS_BY_TOPIC = {
    "node": frozenset({"head", "nodes"}),
    "plan": frozenset({"head", "plan", "substitutes", "chart"}),
    "event": frozenset({"head", "chart"}),
    "feed": frozenset({"feeds", "chart"}),
}
AGEING = frozenset({"head", "nodes"})
"""Parts that change by time alone: a node that falls silent sends nothing."""


def sse(event: str, data: str) -> str:
    """One event in the stream's format."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {event}\n{lines}\n"


class Live:
    """The stream behind the first page."""

    def __init__(self, context: Context, notifications: Notifications, now_page: NowPage) -> None:
        self._context = context
        self._notifications = notifications
        self._now_page = now_page

    async def stream(self, request: Request) -> Response:
        """Open a stream for one site."""
        slug = request.query_params.get("site")
        scope = await run_in_threadpool(load_scope, self._context, slug)
        if scope.site is None:
            return with_headers(StreamingResponse(iter(()), 204))

        def stopping() -> bool:
            return bool(getattr(request.app.state, "stopping", False))

        updates = self._updates(scope.site.policy.slug, scope.site.id, stopping)
        response = StreamingResponse(updates, media_type="text/event-stream")
        response.headers["X-Accel-Buffering"] = "no"
        return with_headers(response)

    async def _updates(
        self, slug: str, site_id: int, stopping: Callable[[], bool]
    ) -> AsyncIterator[str]:
        topics = sorted(PARTS_BY_TOPIC)
        async with self._notifications.subscribe(topics) as inbox:
            changed = frozenset({"head", "nodes", "feeds", "plan", "substitutes"})
            sent: dict[str, str] = {}
            sent_at_s = time.monotonic()
            yield ": open\n\n"
            while not stopping():
                for name, text in (await self._render(slug, changed)).items():
                    if sent.get(name) != text or name == "chart":
                        sent[name] = text
                        sent_at_s = time.monotonic()
                        yield sse(name, text)
                if time.monotonic() - sent_at_s >= HEARTBEAT_S - LOOK_S:
                    sent_at_s = time.monotonic()
                    yield ": still here\n\n"
                await asyncio.sleep(SPACING_S)
                changed = await changes(inbox, site_id, stopping)

    async def _render(self, slug: str, parts: frozenset[str]) -> dict[str, str]:
        return {
            name: ""
            if name == "chart"
            else await run_in_threadpool(self._now_page.fragment, slug, name)
            for name in sorted(parts)
        }


async def changes(
    inbox: Subscription, site_id: int, stopping: Callable[[], bool], look_s: float = LOOK_S
) -> frozenset[str]:
    """Wait for news of the site and take all that has come; by time alone, what ages."""
    changed: frozenset[str] = frozenset()
    deadline_s = time.monotonic() + look_s
    while True:
        left_s = 0.0 if changed else deadline_s - time.monotonic()
        news = await inbox.get(min(max(0.0, left_s), STOP_LOOK_S))
        if news is None:
            if changed or stopping() or time.monotonic() >= deadline_s:
                return changed or AGEING
        elif news.topic == "feed" or news.key in {str(site_id), None}:
            changed |= PARTS_BY_TOPIC.get(news.topic, frozenset())
