"""Now and the next 24 hours."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.series import Quantity
from pals_grid.core.substitution import source_words
from pals_grid.service.live.views import load_live
from pals_grid.service.plans import load_plan
from pals_grid.service.telemetry import load_power_series
from pals_grid_dashboards.console import chart_data, loading
from pals_grid_dashboards.console.feed_rows import feed_alerts, feed_rows
from pals_grid_dashboards.console.headline import budget_now, event_now
from pals_grid_dashboards.console.live_words import live_line
from pals_grid_dashboards.console.node_rows import node_rows, site_now
from pals_grid_dashboards.console.rendering import render_page, render_text
from pals_grid_dashboards.console.substitutes import SUBSTITUTE, substitution_rows
from pals_grid_dashboards.console.words import REASONS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.core.budget import Plan
    from pals_grid.service.context import Context
    from pals_grid_dashboards.console.loading import SiteScope

PAST_H = 6.0
AHEAD_H = 24.0
POWER_STEP_S = 60.0
KEPT_PLANS = 256

FRAGMENTS = {
    "head": "fragments/head.html",
    "nodes": "fragments/nodes.html",
    "feeds": "fragments/feeds.html",
    "plan": "fragments/plan.html",
    "substitutes": "fragments/substitutes.html",
}
"""The parts of the page that are sent again when they change, by name of their event."""
OF_THE_PLAN = frozenset({"head", "plan", "substitutes"})


class NowPage:
    """The first page, its chart and its live parts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # A stored plan never changes, and the chart of the past needs many of them.
        self._load_version = lru_cache(maxsize=KEPT_PLANS)(partial(load_plan, context))

    def show(self, request: Request) -> Response:
        """Return the page, whole at once: nothing on it waits for a script."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="now")
        plan = loading.load_latest_plan(self._context, scope.site.policy.slug)
        values: dict[str, Any] = {}
        for name in FRAGMENTS:
            values |= self._values(scope, name, plan)
        return render_page("now.html", scope, here="now", **values)

    def fragment(self, slug: str, name: str) -> str:
        """One live part as it is now."""
        scope = loading.load_scope(self._context, slug)
        assert isinstance(scope, loading.SiteScope)
        plan = loading.load_latest_plan(self._context, slug) if name in OF_THE_PLAN else None
        return render_text(FRAGMENTS[name], scope=scope, **self._values(scope, name, plan))

    def chart(self, request: Request) -> Response:
        """Budget, power, price and carbon from 6 h ago to 24 h ahead."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return JSONResponse({"panels": []})
        local, slug = scope.local, scope.site.policy.slug
        window = loading.around(local, PAST_H, AHEAD_H)
        budget = loading.load_budget(self._context, slug, window, self._load_version)
        events = loading.load_events(self._context, slug)
        return JSONResponse(
            chart_data.chart(
                window,
                local,
                [self._power(scope, budget, window), *self._signals(slug, window)],
                bands=chart_data.event_bands(events, window),
                reasons=chart_data.reason_spans(budget, local),
            )
        )

    def _power(
        self, scope: SiteScope, budget: list[Any], window: Interval
    ) -> list[chart_data.Series]:
        slug, now = scope.site.policy.slug, scope.local.now
        past = Interval(
            floor_to(window.start_at, timedelta(seconds=POWER_STEP_S)),
            floor_to(now, timedelta(seconds=POWER_STEP_S)),
        )
        points = load_power_series(self._context, slug, past, POWER_STEP_S)
        site = site_now(loading.load_nodes(self._context, slug))
        return chart_data.power_series(
            budget,
            [(point.start_at, point.node_power_w) for point in points],
            step_s=POWER_STEP_S,
            origin=", ".join(label.text for label in site.origins) or "no node online",
            now=now,
        )

    def _signals(self, slug: str, window: Interval) -> list[list[chart_data.Series]]:
        """One panel for each quantity, price first."""
        found: dict[Quantity, list[Any]] = {}
        for view in loading.load_feeds(self._context, slug):
            held = found.setdefault(view.feed.quantity, [])
            held += loading.load_observations(self._context, view.feed.id, window)
        return [
            chart_data.signal_series(quantity, found[quantity], window)
            for quantity in Quantity
            if quantity in found
        ]

    def _values(self, scope: SiteScope, name: str, plan: Plan | None) -> dict[str, Any]:
        """What one part needs; ``plan`` is the one in force, for the parts that show it."""
        slug, now = scope.site.policy.slug, scope.local.now
        if name == "head":
            return {
                "budget": budget_now(plan, scope.site.policy, now),
                "site_now": site_now(loading.load_nodes(self._context, slug)),
                "event": event_now(loading.load_events(self._context, slug), now),
                "live_line": live_line(load_live(self._context, slug)),
                "feed_alerts": feed_alerts(loading.load_feeds(self._context, slug)),
            }
        if name == "nodes":
            return {"nodes": node_rows(loading.load_nodes(self._context, slug), now)}
        if name == "feeds":
            return {"feeds": feed_rows(loading.load_feeds(self._context, slug))}
        if name == "substitutes":
            rows = substitution_rows(plan, scope.local)
            return {"substitutions": rows, "substitute_label": SUBSTITUTE}
        return {"plan": plan, "reasons": REASONS, "source_words": source_words}
