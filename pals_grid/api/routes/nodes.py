"""/nodes: who takes part, and what nodes say to the service and ask of it."""

import time
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AliasPath, BeforeValidator, Field

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import (
    BodyDep,
    ContextDep,
    NodeDep,
    NotificationsDep,
    PageDep,
    SiteDep,
    TokenDep,
)
from pals_grid.api.wire_schema import answers, takes
from pals_grid.core.fleet import Origin
from pals_grid.service import envelopes, nodes, telemetry
from pals_grid.service.nodes import NodeView
from pals_grid.service.paging import Paged
from pals_grid.store.listen import Subscription
from pals_grid.wire.messages import (
    EnvelopeSchedule,
    NodeStatus,
    RegisterReply,
    RegisterRequest,
    TelemetryAck,
    TelemetryBatch,
    decode,
    encode,
)

router = APIRouter(prefix="/nodes", tags=["nodes"])

# A notification may be missed while the database's connection is renewed.
LOOK_AGAIN_S = 5.0
GLANCE_S = 0.5


def _node(*path: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("node", *path))


def _plain(value: object) -> object:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value


class NodeOut(Model):
    """A node, its range of power at the node's boundary, and its last status (NodeStatus)."""

    id: int = _node("id")
    site_id: int = _node("site_id")
    name: str = _node("name")
    hardware: str = _node("hardware")
    gpu_model: str = _node("gpu_model")
    gpu_count: int = _node("gpu_count")
    models: list[str] = _node("models")
    origin: Origin = _node("origin")
    power_min_w: float = _node("capability", "power_min_w")
    power_max_w: float = _node("capability", "power_max_w")
    registered_at: Instant = _node("registered_at")
    last_seen_at: Instant | None = _node("last_seen_at")
    online: bool
    status: Annotated[dict[str, Any] | None, BeforeValidator(_plain)]


def _wire(message: msgspec.Struct, status: int = 200) -> Response:
    return Response(encode(message), status, media_type="application/json")


@router.get("", response_model=PagedOut[NodeOut])
def list_nodes(
    context: ContextDep, site: SiteDep, page: PageDep, request: Request, response: Response
) -> Paged[NodeView]:
    """A site's nodes with what they last said."""
    return link_next(request, response, nodes.list_nodes(context, site, page))


@router.post(
    "/register",
    status_code=201,
    openapi_extra=takes(RegisterRequest),
    response_class=Response,
    responses=answers(201, RegisterReply),
)
def register_node(context: ContextDep, token: TokenDep, body: BodyDep) -> Response:
    """Join a site with its enrolment token; the answer holds the node's own token."""
    return _wire(nodes.register_node(context, token, decode(body, RegisterRequest)), 201)


@router.get("/{node_id}", response_model=NodeOut)
def load_node(context: ContextDep, node_id: int) -> NodeView:
    """One node."""
    return nodes.load_node(context, node_id)


@router.delete("/{node_id}", status_code=204)
def remove_node(context: ContextDep, node_id: int) -> None:
    """Plan without a node and void its token; what it reported stays. Stop its agent first."""
    nodes.remove_node(context, node_id)


@router.post(
    "/{node_id}/status",  # noqa: FAST003 - NodeDep reads it
    status_code=204,
    openapi_extra=takes(NodeStatus),
)
def record_status(context: ContextDep, node: NodeDep, body: BodyDep) -> None:
    """Take a node's sign of life."""
    nodes.record_status(context, node, decode(body, NodeStatus))


@router.post(
    "/{node_id}/telemetry",  # noqa: FAST003 - NodeDep reads it
    openapi_extra=takes(TelemetryBatch),
    response_class=Response,
    responses=answers(200, TelemetryAck),
)
def ingest_telemetry(context: ContextDep, node: NodeDep, body: BodyDep) -> Response:
    """Take a batch of rows; acknowledged means committed, sent twice means once."""
    return _wire(telemetry.ingest(context, node, decode(body, TelemetryBatch)))


@router.get(
    "/{node_id}/envelopes",  # noqa: FAST003 - NodeDep reads it
    response_class=Response,
    responses={**answers(200, EnvelopeSchedule), 204: {"description": "nothing newer"}},
)
async def fetch_schedule(
    context: ContextDep,
    notifications: NotificationsDep,
    node: NodeDep,
    request: Request,
    after_version: Annotated[int, Query(ge=-1, le=2**62)] = -1,
    wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0,
) -> Response:
    """The node's schedule once its version is above ``after_version``; 204 when the wait ended."""
    wait = _Wait(request, node.site_id, time.monotonic() + wait_s)
    async with notifications.subscribe({"plan"}) as subscription:
        while True:
            version = await run_in_threadpool(envelopes.load_schedule_version, context, node.id)
            if version > after_version:
                return _wire(await run_in_threadpool(envelopes.load_schedule, context, node.id))
            if await wait.is_over():
                return Response(status_code=204)
            await wait.until_planned(subscription)


@dataclass(frozen=True, slots=True)
class _Wait:
    """One long-poll's patience; ``deadline_s`` is on the monotonic clock."""

    request: Request
    site_id: int
    deadline_s: float

    async def is_over(self) -> bool:
        """Whether time is up, the node has gone, or the service is about to."""
        late = time.monotonic() >= self.deadline_s
        stopping: bool = self.request.app.state.stopping
        return late or stopping or await self.request.is_disconnected()

    async def until_planned(self, subscription: Subscription) -> None:
        """Return at a new plan of the site, when it is time to look again, or when it is over."""
        look_s = min(self.deadline_s, time.monotonic() + LOOK_AGAIN_S)
        while (left_s := look_s - time.monotonic()) > 0 and not await self.is_over():
            notification = await subscription.get(min(left_s, GLANCE_S))
            if notification is not None and notification.key in {None, str(self.site_id)}:
                return
