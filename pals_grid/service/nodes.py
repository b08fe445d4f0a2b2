"""Nodes: enrolment, registration, sign of life."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pals_grid.core.errors import AccessDenied, InvalidValue
from pals_grid.core.fleet import PowerCurve
from pals_grid.service.paging import paged
from pals_grid.service.plans import counts_on, replan_since, replan_within
from pals_grid.service.reservations import is_online
from pals_grid.store.engine import notify
from pals_grid.store.envelopes import EnvelopeRepository
from pals_grid.store.grants import PowerGrantRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.wire.messages import RegisterReply, encode

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.budget import PowerEnvelope
    from pals_grid.core.fleet import Node
    from pals_grid.core.grant import Grant
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged
    from pals_grid.store.grants import NodeGrant
    from pals_grid.wire.messages import NodeStatus, RegisterRequest

ONLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node and what it last said; ``online``: it said so less than 15 s ago.

    ``planned`` is its envelope by the plan in force now; ``grant`` the live grant that has not run
    out, which it may or may not hold: its status says which it does.
    """

    node: Node
    status: NodeStatus | None
    online: bool
    planned: PowerEnvelope | None = None
    grant: NodeGrant | None = None

    @property
    def held_grant_w(self) -> float | None:
        """What it says that it follows instead of its plan; None without."""
        grant, status = self.grant, self.status
        if grant is None or status is None or not self.online:
            return None
        is_held = (status.grant_epoch, status.grant_sequence) == (grant.epoch, grant.sequence)
        return grant.power_w if is_held else None


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
    context.known_nodes.forget()
    slo = site.policy.slo
    return RegisterReply(
        node_id=node.id,
        node_token=node_token,
        site=site.policy.slug,
        ttft_slo_s=slo.ttft_s,
        itl_slo_s=slo.itl_s,
    )


def authenticate_node(context: Context, token: str) -> Node:
    """Return the node that a node token belongs to, as it was at most 5 s ago.

    Raises:
        AccessDenied: when it belongs to none.
    """
    digest, now_s = _digest(token), context.clock.monotonic_s()
    known = context.known_nodes.find(digest, now_s)
    if known is not None:
        return known
    with context.database.read() as connection:
        found = NodeRepository(connection).load_by_token(digest)
    if found is None or not hmac.compare_digest(found[1], digest):
        raise AccessDenied("the token is not a node token of this service; register again")
    context.known_nodes.hold(digest, found[0], now_s)
    return found[0]


def record_status(context: Context, node: Node, status: NodeStatus) -> Grant | None:
    """Store what a node says about itself now; plan anew when the plan does not count on it.

    Returns the grant that the answer hands out, if there is one and the node takes any.
    """
    now = context.clock.now()
    with context.database.begin() as connection:
        seen_at, grant = NodeRepository(connection).record_status(node.id, encode(status), now)
        is_planned = is_online(seen_at, now) or counts_on(connection, node.site_id, seen_at)
    if not is_planned:
        replan_since(context, node.site_id, f"node {node.name} is back", now)
    return grant if status.takes_grants else None


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
    context.known_nodes.forget()


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
        planned = EnvelopeRepository(connection).load_present(site.id, context.clock.now())
        grants = PowerGrantRepository(connection).load_of([node.id for node, _, _ in found])
    now = context.clock.now()
    views = [
        replace(_view(*item, now), planned=planned.get(item[0].id), grant=grants.get(item[0].id))
        for item in found
    ]
    return paged(views, page, lambda view: (view.node.id,))


def load_node(context: Context, node_id: int) -> NodeView:
    """Return a node.

    Raises:
        NotFound: no such node.
    """
    with context.database.read() as connection:
        found = NodeRepository(connection).load_live(node_id)
        now, site_id = context.clock.now(), found[0].site_id
        planned = EnvelopeRepository(connection).load_present(site_id, now)
        grants = PowerGrantRepository(connection).load_of([node_id])
    view = _view(*found, now)
    return replace(view, planned=planned.get(node_id), grant=grants.get(node_id))


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
