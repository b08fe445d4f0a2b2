"""Feeds in detail: health, the last 24 hours of values, fetching now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from pals_grid.service.feeds import fetch_feed, load_feed
from pals_grid.service.forecasts import list_states, load_feed_forecast
from pals_grid_dashboards.console import chart_data, loading
from pals_grid_dashboards.console.feed_rows import feed_row, feed_rows
from pals_grid_dashboards.console.rendering import render_page
from pals_grid_dashboards.console.substitutes import SUBSTITUTE, substitution_rows

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
        slug = scope.site.policy.slug
        feeds = feed_rows(loading.load_feeds(self._context, slug))
        told = self._substitutes(scope) | {"models": dict(list_states(self._context, slug))}
        return render_page("feeds.html", scope, here="feeds", feeds=feeds, outcome=None, **told)

    def fetch(self, request: Request, fields: dict[str, str]) -> Response:
        """Fetch now and say what came of it: one card to a script, the whole page to none."""
        feed_id = int(request.path_params["feed_id"])
        outcome = fetch_feed(self._context, feed_id)
        scope = loading.load_scope(self._context, fields.get("site"))
        if request.headers.get("hx-request") == "true":
            feed = feed_row(load_feed(self._context, feed_id))
            models = {feed_id: load_feed_forecast(self._context, feed_id).state}
            told = self._substitutes(scope) | {"models": models}
            return render_page(
                "fragments/feed_card.html", scope, feed=feed, outcome=outcome, **told
            )
        slug = fields.get("site", "")
        feeds = feed_rows(loading.load_feeds(self._context, slug))
        told = self._substitutes(scope) | {"models": dict(list_states(self._context, slug))}
        return render_page("feeds.html", scope, here="feeds", feeds=feeds, outcome=outcome, **told)

    def _substitutes(self, scope: loading.Scope) -> dict[str, Any]:
        """What stands in for which feed in the plan in force."""
        plan = None
        if scope.site is not None:
            plan = loading.load_latest_plan(self._context, scope.site.policy.slug)
        rows = substitution_rows(plan, scope.local)
        return {"substitutions": rows, "substitute_label": SUBSTITUTE}

    def chart(self, request: Request) -> Response:
        """A feed's values from 24 h ago to 24 h ahead."""
        feed_id = int(request.path_params["feed_id"])
        feed = load_feed(self._context, feed_id).feed
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        window = loading.around(scope.local, PAST_H, AHEAD_H)
        observations = loading.load_observations(self._context, feed_id, window)
        series = chart_data.signal_series(feed.quantity, observations, window)
        return JSONResponse(chart_data.chart(window, scope.local, [series] if series else []))
