"""Demand-response events: ordered, shown, cancelled, and what was delivered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, RedirectResponse

from pals_grid.core.errors import Conflict, InvalidValue
from pals_grid.core.events import EventStatus
from pals_grid.core.intervals import Interval
from pals_grid.core.units import kwh_from_j
from pals_grid.service.events import cancel_event, create_event, load_delivery, load_event
from pals_grid_dashboards.console import chart_data, loading
from pals_grid_dashboards.console.event_form import blank_form, read_form
from pals_grid_dashboards.console.headline import event_label
from pals_grid_dashboards.console.node_rows import site_now
from pals_grid_dashboards.console.rendering import render_page

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.service.context import Context
    from pals_grid.service.events import Delivery
    from pals_grid_dashboards.console.event_form import EventForm
    from pals_grid_dashboards.console.loading import SiteScope
    from pals_grid_dashboards.console.words import Label

SHOWN = 50
BESIDE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event with its place on the clock; ``delivery`` once it has begun."""

    event: DemandResponseEvent
    label: Label
    may_cancel: bool
    delivery: Delivery | None

    @property
    def curtailed_kwh(self) -> float | None:
        """Energy below the reference."""
        return kwh_from_j(self.delivery.curtailed_j) if self.delivery else None


class EventPage:
    """The page of events and what is posted to it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, request: Request) -> Response:
        """List events, newest first, under a blank form."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="events")
        return self._page(scope, blank_form(scope.local))

    def create(self, request: Request, fields: dict[str, str]) -> Response:
        """Order an event; what is wrong is shown beside its field, what was typed stays."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="events")
        form = read_form(fields, scope.local)
        if form.request is not None:
            try:
                event = create_event(self._context, scope.site.policy.slug, form.request)
                return _back(scope.site.policy.slug, event.id)
            except InvalidValue as error:
                form.refuse(error)
            except Conflict as error:
                form.errors["form"] = str(error)
        return self._page(scope, form, status=422)

    def cancel(self, request: Request, fields: dict[str, str]) -> Response:
        """Cancel an event that nobody has changed since the page was made."""
        event_id = int(request.path_params["event_id"])
        slug = fields.get("site", "")
        try:
            cancel_event(self._context, event_id, int(fields["version"]))
        except (KeyError, ValueError) as error:
            raise InvalidValue("version", fields.get("version"), "must be a number") from error
        except Conflict as error:
            scope = loading.load_scope(self._context, slug)
            return render_page(
                "error.html", scope, status=409, title="Not cancelled", detail=str(error)
            )
        return _back(slug, event_id)

    def chart(self, request: Request) -> Response:
        """Power by minute against the order and the reference."""
        event_id = int(request.path_params["event_id"])
        delivery = load_delivery(self._context, event_id)
        order = load_event(self._context, event_id).order
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        window = Interval(order.start_at - BESIDE, order.end_at + BESIDE)
        levels = {
            "limit": ("Ordered limit", delivery.ordered_w),
            "expected": ("Reference", delivery.reference_w),
        }
        points = [(point.start_at, point.power_w) for point in delivery.points]
        series = chart_data.delivery_series(points, levels, window, self._origin(scope))
        bands = chart_data.event_bands([delivery.event], window)
        return JSONResponse(chart_data.chart(window, scope.local, [series], bands=bands))

    def _origin(self, scope: loading.Scope) -> str:
        if scope.site is None:
            return "unknown"
        nodes = loading.load_nodes(self._context, scope.site.policy.slug)
        return ", ".join(label.text for label in site_now(nodes).origins) or "no node online"

    def _page(self, scope: SiteScope, form: EventForm, status: int = 200) -> Response:
        events = sorted(
            loading.load_events(self._context, scope.site.policy.slug),
            key=lambda item: item.order.start_at,
            reverse=True,
        )
        rows = [self._row(event, scope.local.now) for event in events[:SHOWN]]
        return render_page(
            "events.html",
            scope,
            status=status,
            here="events",
            form=form,
            events=rows,
            hidden=len(events) - len(rows),
        )

    def _row(self, event: DemandResponseEvent, now: datetime) -> EventRow:
        live = event.status is EventStatus.SCHEDULED
        begun = live and event.order.start_at <= now
        return EventRow(
            event=event,
            label=event_label(event, now),
            may_cancel=live and event.order.end_at > now,
            delivery=load_delivery(self._context, event.id) if begun else None,
        )


def _back(slug: str, event_id: int) -> Response:
    return RedirectResponse(f"/events?site={slug}#event-{event_id}", 303)
