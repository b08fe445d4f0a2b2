"""The energy report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.service.demand import load_demand_charges
from pals_grid.service.reports import energy_report
from pals_grid_dashboards.console import loading
from pals_grid_dashboards.console.rendering import render_page
from pals_grid_dashboards.console.report_view import (
    GROUPS,
    api_url,
    read_choice,
    report_row,
    report_rows,
)
from pals_grid_dashboards.console.words import kind_label, origin_labels

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context


class ReportPage:
    """The page of reports."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, request: Request) -> Response:
        """Return the report that was asked for; what cannot be read is said beside the form."""
        query = request.query_params
        scope = loading.load_scope(self._context, query.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="reports")
        error: InvalidValue | None = None
        try:
            choice = read_choice(query, tuple(query.getlist("by")), scope.local)
        except InvalidValue as refused:
            error, choice = refused, read_choice({}, (), scope.local)
        slug = scope.site.policy.slug
        report = energy_report(self._context, slug, choice.interval, choice.by)
        months = load_demand_charges(self._context, slug, choice.interval)
        return render_page(
            "reports.html",
            scope,
            status=422 if error else 200,
            here="reports",
            typed={
                "from": query.get("from") or choice.first.isoformat(),
                "to": query.get("to") or choice.last.isoformat(),
            },
            error=error,
            choice=choice,
            groups=GROUPS,
            kind_label=kind_label,
            report=report,
            months=months,
            demand_origins=frozenset[Origin]().union(*(month.origins for month in months)),
            origin_labels=origin_labels,
            rows=report_rows(report),
            total=report_row(report.total),
            json_url=api_url(slug, choice, "json"),
            csv_url=api_url(slug, choice, "csv"),
        )
