"""What each node may draw: the schedule that it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.store.envelopes import EnvelopeRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.plans import PlanRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.budget import PowerEnvelope
    from pals_grid.core.fleet import Node
    from pals_grid.core.site import Site
    from pals_grid.service.context import Context


def load_schedule(context: Context, node_id: int) -> EnvelopeSchedule:
    """Return a node's envelopes of the plan in force, the present one first.

    ``safe_power_w`` is the node's share of the site's safe limit, in proportion to
    ``power_max_w``, so that all nodes together stay inside it without any plan. Without a plan
    the version is 0 and there are no intervals.

    Raises:
        NotFound: no such node.
    """
    now = context.clock.now()
    with context.database.read() as connection:
        nodes, plans = NodeRepository(connection), PlanRepository(connection)
        node = nodes.load(node_id)
        site = SiteRepository(connection).load_by_id(node.site_id)
        safe_power_w = share_of_safe_limit_w(site, node, nodes.total_power_max_w(site.id))
        key = plans.latest_key(site.id)
        envelopes = _load(context, connection, node, key[0], now) if key else []
    return EnvelopeSchedule(
        node_id=node_id,
        version=key[1] if key else 0,
        issued_at=now,
        safe_power_w=safe_power_w,
        intervals=[_interval(item) for item in envelopes],
    )


def load_schedule_version(context: Context, node_id: int) -> int:
    """Return the version that ``load_schedule`` would have; 0 without a plan or node."""
    with context.database.read() as connection:
        return PlanRepository(connection).latest_version_for_node(node_id) or 0


def _load(
    context: Context, connection: Connection, node: Node, plan_id: int, now: datetime
) -> list[PowerEnvelope]:
    schedules = context.schedules.get(connection, node.site_id, plan_id)
    if schedules.shares:
        return schedules.envelopes(node.id, now)
    # Made by the previous release, or for no node.
    return EnvelopeRepository(connection).load(plan_id, node_id=node.id, from_at=now)


def share_of_safe_limit_w(site: Site, node: Node, total_w: float) -> float:
    """Return what a node may draw while no schedule holds, in W.

    ``total_w`` is the ``power_max_w`` of all nodes of its site.
    """
    ratio = node.capability.power_max_w / total_w if total_w > 0 else 0.0
    return site.policy.safe_limit_w * ratio


def _interval(item: PowerEnvelope) -> EnvelopeInterval:
    return EnvelopeInterval(
        start_at=item.interval.start_at,
        end_at=item.interval.end_at,
        power_min_w=item.power_min_w,
        power_max_w=item.power_max_w,
        target_tokens_per_s=item.target_tokens_per_s,
        reason=item.reason,
        event_id=item.event_id,
    )
