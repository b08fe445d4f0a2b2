"""/nodes: who takes part, and what nodes say to the service and ask of it."""

import time
from dataclasses import asdict, dataclass
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
from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.service import envelopes, nodes, telemetry
from pals_grid.service.nodes import NodeView
from pals_grid.service.paging import Paged
from pals_grid.store.listen import Notifications, Subscription
from pals_grid.wire.messages import (
    EnvelopeSchedule,
    NodeStatus,
    PowerGrant,
    RegisterReply,
    RegisterRequest,
    StatusReply,
    TelemetryAck,
    TelemetryBatch,
    decode,
    encode,
)

router = APIRouter(prefix="/nodes", tags=["nodes"])

# How often a waiting request looks whether its node has gone, and, while notifications do not
# arrive, for a plan. Thousands of nodes wait at a time.
GLANCE_S = 5.0


def _node(*path: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("node", *path))


def _plain(value: object) -> object:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value


class PlannedOut(Model):
    """What the plan in force allows a node now, and why."""

    power_max_w: float
    target_tokens_per_s: float
    reason: Reason
    event_id: int | None


class GrantOut(Model):
    """A live grant that has not run out; a node holds it once its status names the same."""

    epoch: int
    sequence: int
    power_w: float
    ends_at: Instant


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
    planned: PlannedOut | None = None
    grant: GrantOut | None = None
    held_grant_w: float | None = None


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
    openapi_extra=takes(NodeStatus),
    response_class=Response,
    responses=answers(200, StatusReply),
)
def record_status(context: ContextDep, node: NodeDep, body: BodyDep) -> Response:
    """Take a node's sign of life; the answer holds the node's live grant, if it has one."""
    grant = nodes.record_status(context, node, decode(body, NodeStatus))
    return _wire(StatusReply(grant=None if grant is None else PowerGrant(**asdict(grant))))


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
    wait = _Wait(request, notifications, time.monotonic() + wait_s)
    async with notifications.subscribe({"plan"}, str(node.site_id)) as subscription:
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
    notifications: Notifications
    deadline_s: float

    async def is_over(self) -> bool:
        """Whether time is up, the node has gone, or the service is about to."""
        late = time.monotonic() >= self.deadline_s
        stopping: bool = self.request.app.state.stopping
        return late or stopping or await self.request.is_disconnected()

    async def until_planned(self, subscription: Subscription) -> None:
        """Return at a new plan of the site, when one may have been missed, or when it is over."""
        while not await self.is_over():
            left_s = self.deadline_s - time.monotonic()
            if await subscription.get(max(0.0, min(left_s, GLANCE_S))) is not None:
                return
            if not self.notifications.is_connected:
                return
