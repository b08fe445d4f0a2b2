"""Nodes: enrolment, registration, sign of life."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import AccessDenied, InvalidValue
from pals_grid.core.fleet import PowerCurve
from pals_grid.service.paging import paged
from pals_grid.service.plans import counts_on, is_online, replan, replan_within
from pals_grid.store.engine import notify
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.wire.messages import RegisterReply, encode

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.fleet import Node
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged
    from pals_grid.wire.messages import NodeStatus, RegisterRequest

ONLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node and what it last said; ``online``: it said so less than 15 s ago."""

    node: Node
    status: NodeStatus | None
    online: bool


def issue_enrolment_token(context: Context, slug: str) -> str:
    """Make a token that lets nodes register at a site; only its digest is stored.

    Raises:
        NotFound: no such site.
    """
    token = secrets.token_urlsafe(32)
    with context.database.begin() as connection:
        site = SiteRepository(connection).load(slug)
        now = context.clock.now()
        NodeRepository(connection).insert_enrolment_token(site.id, _digest(token), now)
    return token


def register_node(context: Context, token: str, request: RegisterRequest) -> RegisterReply:
    """Store a node and give it a new token of its own; the one it had is void.

    Plans anew in the same transaction when the fleet changed by it.

    Raises:
        AccessDenied: when ``token`` is no enrolment token.
        InvalidValue: for a power range or a curve that cannot be.
    """
    _require_sound(request)
    node_token = secrets.token_urlsafe(32)
    with context.database.begin() as connection:
        nodes, sites = NodeRepository(connection), SiteRepository(connection)
        enrolment = nodes.load_enrolment(_digest(token))
        if enrolment is None or not hmac.compare_digest(enrolment[1], _digest(token)):
            raise AccessDenied("the token is not an enrolment token of this service")
        site = sites.load_by_id(enrolment[0])
        sites.lock(site.id)
        before = nodes.find(site.id, request.name)
        node = nodes.upsert(site.id, request, _digest(node_token), context.clock.now())
        notify(connection, "node", site.id)
        if (
            before is None
            or before.capability != node.capability
            or not counts_on(connection, site.id, before.last_seen_at)
        ):
            replan_within(context, connection, site.id, f"node {node.name} registered")
    slo = site.policy.slo
    return RegisterReply(
        node_id=node.id,
        node_token=node_token,
        site=site.policy.slug,
        ttft_slo_s=slo.ttft_s,
        itl_slo_s=slo.itl_s,
    )


def authenticate_node(context: Context, token: str) -> Node:
    """Return the node that a node token belongs to.

    Raises:
        AccessDenied: when it belongs to none.
    """
    with context.database.read() as connection:
        found = NodeRepository(connection).load_by_token(_digest(token))
    if found is None or not hmac.compare_digest(found[1], _digest(token)):
        raise AccessDenied("the token is not a node token of this service; register again")
    return found[0]


def record_status(context: Context, node: Node, status: NodeStatus) -> None:
    """Store what a node says about itself now; plan anew when the plan does not count on it."""
    now = context.clock.now()
    with context.database.begin() as connection:
        seen_at = NodeRepository(connection).record_status(node.id, encode(status), now)
        is_planned = is_online(seen_at, now) or counts_on(connection, node.site_id, seen_at)
    if not is_planned:
        replan(context, node.site_id, f"node {node.name} is back")


def remove_node(context: Context, node_id: int) -> None:
    """Take a node out of use and plan without it, in one transaction.

    Its token is void from then on; what it reported stays. A node of the same name that
    registers takes its place, so an agent that still runs comes back: stop it first.

    Raises:
        NotFound: no such node.
    """
    with context.database.begin() as connection:
        nodes = NodeRepository(connection)
        node = nodes.load(node_id)
        SiteRepository(connection).lock(node.site_id)
        nodes.remove(node_id, context.clock.now())
        notify(connection, "node", node.site_id)
        replan_within(context, connection, node.site_id, f"node {node.name} removed")


def list_nodes(context: Context, slug: str, page: Page) -> Paged[NodeView]:
    """Nodes of a site by id.

    Raises:
        NotFound: no such site.
    """
    after = page.after(tuple[int])
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        found = NodeRepository(connection).list_live_after(
            site.id, after[0] if after else None, page.limit + 1
        )
    now = context.clock.now()
    views = [_view(*item, now) for item in found]
    return paged(views, page, lambda view: (view.node.id,))


def load_node(context: Context, node_id: int) -> NodeView:
    """Return a node.

    Raises:
        NotFound: no such node.
    """
    with context.database.read() as connection:
        found = NodeRepository(connection).load_live(node_id)
    return _view(*found, context.clock.now())


def _view(node: Node, status: NodeStatus | None, at: datetime | None, now: datetime) -> NodeView:
    return NodeView(node, status, at is not None and (now - at).total_seconds() < ONLINE_S)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _require_sound(request: RegisterRequest) -> None:
    if request.power_max_w < request.power_min_w:
        bound = f"must be at least power_min_w ({request.power_min_w:g})"
        raise InvalidValue("power_max_w", request.power_max_w, bound)
    PowerCurve(
        tuple(point.tokens_per_s for point in request.curve),
        tuple(point.power_w for point in request.curve),
    )
