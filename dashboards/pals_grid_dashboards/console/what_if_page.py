"""What tomorrow would be if the site were run otherwise: a form, a table, a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import Busy, Conflict, InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.service.tariffs import list_tariffs
from pals_grid.service.what_if import what_if
from pals_grid_dashboards.console import loading
from pals_grid_dashboards.console.rendering import render_page
from pals_grid_dashboards.console.what_if_form import policy_fields, read_form, tier_names
from pals_grid_dashboards.console.what_if_view import QUANTITIES, TITLES, rows_of, what_if_chart
from pals_grid_dashboards.console.words import origin_labels

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context
    from pals_grid.service.what_if import WhatIf
    from pals_grid_dashboards.console.loading import SiteScope
    from pals_grid_dashboards.console.what_if_form import WhatIfForm


class WhatIfPage:
    """The page of what-ifs. What is asked stands in its address: it can be kept and shared."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, request: Request) -> Response:
        """Work out what is asked; without anything asked, tomorrow as it stands."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="what-if")
        policy = scope.site.policy
        tariffs = list_tariffs(self._context, policy.slug).tariffs
        form = read_form(request.query_params, policy, tariffs, scope.local)
        found, problem, status = None, "", 200
        if not form.errors:
            try:
                found = self._ask(policy.slug, form)
            except InvalidValue as error:
                form.refuse(error, policy)
            except Conflict:
                problem = "No node of this site is online, so there is nothing to plan with."
            except Busy:
                problem, status = "Another what-if is being worked out. Ask again in a moment.", 503
        return render_page(
            "what_if.html",
            scope,
            status=422 if form.errors else status,
            here="what-if",
            form=form,
            fields=policy_fields(policy),
            tiers=list(zip(tier_names(policy), policy.tiers, strict=True)),
            tariffs=tariffs,
            problem=problem,
            found=found,
            rows=rows_of(found) if found else (),
            chart=self._chart(scope, found, form) if found else None,
            titles=TITLES,
            quantities=QUANTITIES,
            label=origin_labels({Origin.MODELLED})[0],
        )

    def _ask(self, slug: str, form: WhatIfForm) -> WhatIf:
        return what_if(self._context, slug, form.changes, form.start_at, form.end_at)

    def _chart(self, scope: SiteScope, found: WhatIf, form: WhatIfForm) -> dict[str, object]:
        events = loading.load_events(self._context, scope.site.policy.slug)
        return what_if_chart(found, scope.local, events, form.changes.event)
