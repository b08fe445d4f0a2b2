"""Grants that may be in force: raises wait for the cuts that they need.

The service cannot see a node, only what it sent and what was acknowledged. So it keeps, per node,
every grant that may be in force: the last one acknowledged and all sent later. From these follows
the most that the node may be allowed at any time from now on. The sum over the nodes stays inside
the budget, whatever is lost, late, doubled or out of order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.outlook import (
    SAME_W,
    GrantRules,
    Issued,
    NodeGrants,
    Outlook,
    column,
    within_budget,
)
from pals_grid.core.grant import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pals_grid.allocator.fleet_arrays import Flags, Floats
    from pals_grid.allocator.outlook import SiteBudget


@dataclass(frozen=True, slots=True)
class Round:
    """What one round decided. ``allowed_w`` is what all nodes may be allowed now, before it acts.

    ``excess_w`` of it lies above the budget and cannot be had back at once; at
    ``excess_until_s`` leases have brought it back at the latest, None where only an
    acknowledgement or a new schedule can.
    """

    issued: dict[int, Issued]
    allowed_w: float
    excess_w: float
    excess_until_s: float | None
    cuts: int
    raises: int


class GrantBook:
    """All grants of a site. Not thread-safe; times are monotonic, in s, and come in.

    A book knows nothing of the grants that one before it made: until ``quiet_until_s``, when all
    of them have ended, it makes none. ``epoch`` has to be higher than theirs.
    """

    def __init__(self, epoch: int, now_s: float, rules: GrantRules | None = None) -> None:
        self.rules = rules or GrantRules()
        self.epoch = epoch
        self.quiet_until_s = now_s + self.rules.horizon_s
        self._nodes: dict[int, NodeGrants] = {}
        self._sequence = 0

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._nodes

    @property
    def node_ids(self) -> list[int]:
        """Nodes in the order in which they joined."""
        return list(self._nodes)

    def join(self, node_id: int, fallback_w: float, most_w: float) -> None:
        """Count a node, with its schedule until it acknowledges a grant."""
        self._nodes[node_id] = NodeGrants(fallback_w, most_w)

    def leave(self, node_id: int) -> None:
        """Stop counting a node that draws nothing any more."""
        del self._nodes[node_id]

    def retire(self, node_id: int, now_s: float) -> bool:
        """Let a node go as soon as none of its grants can hold any more; whether that is so."""
        node = self._nodes[node_id]
        node.forget_ended(now_s)
        if node.possible:
            self.set_fallback(node_id, 0.0)
            return False
        self.leave(node_id)
        return True

    def set_most(self, node_id: int, most_w: float) -> None:
        """Say the most power that a node can take: it may have registered anew."""
        self._nodes[node_id].most_w = most_w

    def set_fallback(
        self, node_id: int, fallback_w: float, step_s: float = math.inf, next_w: float = 0.0
    ) -> None:
        """Say the most that a node's schedules may allow now, and from ``step_s`` on."""
        node = self._nodes[node_id]
        node.fallback_w, node.step_s, node.next_w = fallback_w, step_s, next_w

    def acknowledge(self, node_id: int, epoch: int, sequence: int) -> None:
        """Note what a node says that it holds: all that was sent before is superseded.

        A node that says less than before has forgotten it, and may follow its schedule.
        """
        node = self._nodes[node_id]
        if epoch != self.epoch or sequence == 0:
            node.ended = max(node.ended, node.acknowledged)
        elif node.acknowledged < sequence <= self._sequence:
            node.acknowledged = sequence
            node.possible = [one for one in node.possible if one.grant.sequence >= sequence]

    def observe_draw(self, node_id: int, power_draw_w: float, now_s: float) -> None:
        """Note a node's measured draw; several in a row tell a liar, or an honest one again."""
        node, rules = self._nodes[node_id], self.rules
        node.forget_ended(now_s)
        node.draws_w = [*node.draws_w[-(rules.lie_reports - 1) :], power_draw_w]
        bound_w = node.allowed_w_at(now_s) * (1 + rules.lie_ratio)
        node.count_report(over=power_draw_w > bound_w, needed=rules.lie_reports)

    @property
    def liars(self) -> list[int]:
        """Nodes that draw more than they can have been granted."""
        return [node_id for node_id, node in self._nodes.items() if node.lies]

    @property
    def lent_w(self) -> float:
        """What the newest grants give nodes above their schedules, in W."""
        above_w = (_present_w(node) - node.fallback_w for node in self._nodes.values())
        return math.fsum(max(0.0, power_w) for power_w in above_w)

    def allowed_w(self, node_id: int, now_s: float) -> float:
        """The most that a node may be allowed, or draws, at any time before a raise would end."""
        node = self._nodes[node_id]
        node.forget_ended(now_s)
        end_s = now_s + self.rules.ahead_s
        edges_s = (node.step_s, *(one.back_s for one in node.possible))
        times_s = [now_s, *(edge_s for edge_s in edges_s if now_s < edge_s < end_s)]
        return max(node.counted_w, *(node.allowed_w_at(at_s) for at_s in times_s))

    def grant_for(self, node_id: int, now_s: float) -> Grant | None:
        """Return the grant to hand out to a node that asks now; None without one."""
        node = self._nodes[node_id]
        return node.possible[-1].handed_out_at(now_s) if node.possible else None

    def decide(self, now_s: float, budget: SiteBudget, targets_w: Mapping[int, float]) -> Round:
        """Issue the grants that bring nodes nearer to their targets, cuts before raises.

        Nodes without a target are left alone and reckoned with.
        """
        for node in self._nodes.values():
            node.forget_ended(now_s)
        outlook = Outlook(self._nodes.values(), now_s, self.rules, budget)
        allowed_w = float(outlook.allowed_w[0].sum())
        issued: dict[int, Issued] = {}
        raises = 0
        if now_s >= self.quiet_until_s and targets_w:
            wanted_w = self._wanted_w(targets_w, outlook, now_s)
            power_w = within_budget(wanted_w, outlook)
            power_w, is_sent = self._worth_sending(power_w, outlook, now_s)
            is_sent &= [node_id in targets_w for node_id in self._nodes]
            above = power_w > outlook.inside_w + SAME_W
            raises = int(np.count_nonzero(is_sent & (power_w > outlook.least_w + SAME_W)))
            keys = list(self._nodes)
            for index in np.flatnonzero(is_sent).tolist():
                lease_s = self.rules.raise_lease_s if above[index] else self.rules.cut_lease_s
                issued[keys[index]] = self._issue(
                    keys[index], float(power_w[index]), lease_s, now_s
                )
        excess_w = max(0.0, allowed_w - budget.at(now_s))
        until_s = outlook.excess_until_s() if excess_w > 0 else now_s
        return Round(issued, allowed_w, excess_w, until_s, len(issued) - raises, raises)

    def _wanted_w(self, targets_w: Mapping[int, float], outlook: Outlook, now_s: float) -> Floats:
        """Targets with the dead band and the pace of raises."""
        rules = self.rules
        nodes = list(self._nodes.values())
        present_w = _presents_w(nodes)
        target_w = np.array([targets_w.get(key, np.nan) for key in self._nodes])
        untouched = np.isnan(target_w)
        target_w = np.where(untouched, outlook.least_w, target_w)
        band_w = rules.dead_band_ratio * column(nodes, "most_w")
        paced = now_s - column(nodes, "raised_s") < rules.raise_every_s
        keep = (np.abs(target_w - present_w) <= band_w) | (paced & (target_w > present_w))
        wanted_w = np.where(keep & ~untouched, present_w, target_w)
        lies = column(nodes, "lies") > 0
        counted_w = np.where(untouched | lies, outlook.allowed_w.max(axis=0), wanted_w)
        if counted_w.sum() > outlook.budgets_w[0]:  # the small cuts are needed after all
            wanted_w = np.minimum(wanted_w, target_w)
        return wanted_w

    def _worth_sending(
        self, power_w: Floats, outlook: Outlook, now_s: float
    ) -> tuple[Floats, Flags]:
        """Power of each node's next grant, and whether that changes or prolongs anything."""
        rules = self.rules
        nodes = list(self._nodes.values())
        present_w, end_s = _presents_w(nodes), _ends_s(nodes)
        # What fits now may not be worth a message.
        band_w = rules.dead_band_ratio * column(nodes, "most_w")
        slight = (present_w < power_w) & (power_w < present_w + band_w)
        same = slight | (np.abs(power_w - present_w) <= SAME_W)
        power_w = np.where(same, present_w, power_w)
        above = power_w > outlook.inside_w + SAME_W
        needed_s = np.where(above, 0.5 * rules.raise_lease_s, 1.5 * rules.ahead_s)
        scheduled = np.abs(power_w - column(nodes, "fallback_w")) <= SAME_W
        lasts = np.isneginf(end_s) | scheduled | (end_s - now_s > needed_s)
        return power_w, ~(same & lasts)

    def _issue(self, node_id: int, power_w: float, lease_s: float, now_s: float) -> Issued:
        """Send a grant: inside the schedule a long one."""
        node, rules = self._nodes[node_id], self.rules
        if power_w > _present_w(node) + SAME_W:
            node.raised_s = now_s
        self._sequence += 1
        found = Issued(
            Grant(self.epoch, self._sequence, power_w, lease_s),
            issued_s=now_s,
            until_s=now_s + rules.held_at_most_s(lease_s),
            back_s=now_s + rules.held_at_least_s(lease_s),
        )
        node.possible.append(found)
        return found


def _present_w(node: NodeGrants) -> float:
    """What the node was told last, its schedule where nothing holds."""
    return node.possible[-1].grant.power_w if node.possible else node.fallback_w


def _presents_w(nodes: Sequence[NodeGrants]) -> Floats:
    return np.fromiter(map(_present_w, nodes), np.float64, len(nodes))


def _ends_s(nodes: Sequence[NodeGrants]) -> Floats:
    """When the lease of each node's newest grant ends; minus infinity without one."""
    ends_s = (
        one.possible[-1].issued_s + one.possible[-1].grant.lease_s if one.possible else -np.inf
        for one in nodes
    )
    return np.fromiter(ends_s, np.float64, len(nodes))
