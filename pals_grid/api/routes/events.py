"""/events: demand-response events, ordered, cancelled, delivered."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import AliasPath, Field

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, IfMatchDep, PageDep, SiteDep, read_site
from pals_grid.api.etag import version_tag
from pals_grid.api.preconditions import precondition
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.service import events
from pals_grid.service.events import Delivery
from pals_grid.service.paging import Paged

router = APIRouter(prefix="/events", tags=["events"])


class EventIn(Model):
    """An order: ``limit_w`` for the site, or ``reduction_ratio`` of its reference power."""

    site: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=200)]
    start_at: Instant
    end_at: Instant
    limit_w: float | None = None
    reduction_ratio: float | None = None
    notice_at: Instant | None = None
    ramp_s: float = 0.0


def _order(name: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("order", name))


class EventOut(Model):
    """A stored event; ``reference_w`` was frozen when it was created."""

    id: int
    site_id: int
    version: int
    status: EventStatus
    name: str = _order("name")
    start_at: Instant = _order("start_at")
    end_at: Instant = _order("end_at")
    limit_w: float | None = _order("limit_w")
    reduction_ratio: float | None = _order("reduction_ratio")
    notice_at: Instant | None = _order("notice_at")
    ramp_s: float = _order("ramp_s")
    ordered_w: float
    reference_w: float
    reference_origin: Origin
    created_at: Instant
    cancelled_at: Instant | None


class DeliveryPointOut(Model):
    """One minute's mean power of the site; null where nothing was measured."""

    start_at: Instant
    power_w: float | None


class DeliveryOut(Model):
    """Delivered against ordered, over the part of the event that has passed."""

    event: EventOut
    ordered_w: float
    reference_w: float
    mean_power_w: float | None
    covered_s: float
    within_limit_ratio: float | None
    curtailed_j: float
    points: list[DeliveryPointOut]


def _tagged(response: Response, event: DemandResponseEvent) -> DemandResponseEvent:
    response.headers["etag"] = version_tag(event.version)
    return event


@router.get("", response_model=PagedOut[EventOut])
def list_events(
    context: ContextDep, site: SiteDep, page: PageDep, request: Request, response: Response
) -> Paged[DemandResponseEvent]:
    """A site's events."""
    return link_next(request, response, events.list_events(context, site, page))


@router.post("", response_model=EventOut, status_code=201)
def create_event(context: ContextDep, body: EventIn, response: Response) -> DemandResponseEvent:
    """Order an event; the plan and every node follow at once."""
    order = EventRequest(**body.model_dump(exclude={"site"}))
    event = events.create_event(context, body.site or read_site(context), order)
    response.headers["location"] = f"/api/v1/events/{event.id}"
    return _tagged(response, event)


@router.get("/{event_id}", response_model=EventOut)
def load_event(context: ContextDep, event_id: int, response: Response) -> DemandResponseEvent:
    """One event; its ETag is what If-Match of its cancellation names."""
    return _tagged(response, events.load_event(context, event_id))


@router.post("/{event_id}/cancel", response_model=EventOut)
def cancel_event(
    context: ContextDep, event_id: int, expected: IfMatchDep, response: Response
) -> DemandResponseEvent:
    """Cancel an event; the plan and every node follow at once."""
    with precondition(expected, lambda: events.load_event(context, event_id).version):
        return _tagged(response, events.cancel_event(context, event_id, expected))


@router.get("/{event_id}/delivery", response_model=DeliveryOut)
def load_delivery(context: ContextDep, event_id: int) -> Delivery:
    """What was delivered against what was ordered."""
    return events.load_delivery(context, event_id)
