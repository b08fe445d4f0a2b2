"""Feeds in detail: health, the last 24 hours of values, fetching now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from pals_grid.service.feeds import fetch_feed, load_feed
from pals_grid_dashboards.console import chart_data, loading
from pals_grid_dashboards.console.feed_rows import feed_row, feed_rows
from pals_grid_dashboards.console.rendering import render_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context

PAST_H = 24.0
AHEAD_H = 24.0


class FeedPage:
    """The page of feeds."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, request: Request) -> Response:
        """Every feed with its health."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="feeds")
        feeds = feed_rows(loading.load_feeds(self._context, scope.site.policy.slug))
        return render_page("feeds.html", scope, here="feeds", feeds=feeds, outcome=None)

    def fetch(self, request: Request, fields: dict[str, str]) -> Response:
        """Fetch now and say what came of it: one card to a script, the whole page to none."""
        feed_id = int(request.path_params["feed_id"])
        outcome = fetch_feed(self._context, feed_id)
        scope = loading.load_scope(self._context, fields.get("site"))
        if request.headers.get("hx-request") == "true":
            feed = feed_row(load_feed(self._context, feed_id))
            return render_page("fragments/feed_card.html", scope, feed=feed, outcome=outcome)
        feeds = feed_rows(loading.load_feeds(self._context, fields.get("site", "")))
        return render_page("feeds.html", scope, here="feeds", feeds=feeds, outcome=outcome)

    def chart(self, request: Request) -> Response:
        """A feed's values from 24 h ago to 24 h ahead."""
        feed_id = int(request.path_params["feed_id"])
        feed = load_feed(self._context, feed_id).feed
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        window = loading.around(scope.local, PAST_H, AHEAD_H)
        observations = loading.load_observations(self._context, feed_id, window)
        series = chart_data.signal_series(feed.quantity, observations, window)
        return JSONResponse(chart_data.chart(window, scope.local, [series] if series else []))
