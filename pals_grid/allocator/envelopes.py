"""A plan's budgets as envelopes, so that no watt would give more tokens at another node."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fill import fit, split_power_w, split_tokens_per_s
from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.core.budget import NodeShare, PowerEnvelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pals_grid.allocator.fleet_arrays import Floats
    from pals_grid.core.budget import BudgetInterval
    from pals_grid.core.fleet import NodeCapability


class EnvelopeSplitter:
    """Splits interval after interval among the same nodes."""

    def __init__(self, nodes: Sequence[NodeCapability]) -> None:
        self._nodes = nodes
        self._node_ids = [node.node_id for node in nodes]
        self._fleet = FleetArrays.of(nodes)

    def split(
        self, interval: BudgetInterval, reserved_w: Mapping[int, float] | None = None
    ) -> tuple[PowerEnvelope, ...]:
        """One envelope per node; the sum of ``power_max_w`` never exceeds ``interval.limit_w``.

        ``reserved_w``, by node, is what nodes may draw that no new envelope reaches; the others
        share the rest, and get nothing where that alone exceeds the limit. They are filled as
        ``split_power_w`` says.
        """
        columns = (part.tolist() for part in self._split(self._fleet, interval, reserved_w or {}))
        return tuple(
            PowerEnvelope(
                node_id=node_id,
                interval=interval.interval,
                power_min_w=low_w,
                power_max_w=high_w,
                target_tokens_per_s=target,
                reason=interval.reason,
                event_id=interval.event_id,
            )
            for node_id, low_w, high_w, target in zip(self._node_ids, *columns, strict=True)
        )

    def split_all(
        self,
        intervals: Sequence[BudgetInterval],
        reserved_w: Sequence[Mapping[int, float]],
        most_w: Sequence[Mapping[int, float]] | None = None,
    ) -> list[NodeShare]:
        """Split every interval as ``split`` does; nodes that get the same come together.

        ``reserved_w`` and ``most_w`` have a mapping for each interval; ``most_w``, by node, is the
        most that it can draw meanwhile, where that is less than what it is known for.
        """
        shares = np.empty((3, self._fleet.count, len(intervals)))
        fleets = {frozenset[tuple[int, float]](): self._fleet}
        for at, (interval, held_w) in enumerate(zip(intervals, reserved_w, strict=True)):
            lowered = frozenset(most_w[at].items()) if most_w else frozenset()
            if lowered not in fleets:
                fleets[lowered] = self._lowered(dict(lowered))
            shares[:, :, at] = self._split(fleets[lowered], interval, held_w)
        alike: dict[bytes, list[int]] = {}
        for row in range(self._fleet.count):
            alike.setdefault(shares[:, row].tobytes(), []).append(row)
        return [
            NodeShare(
                tuple(self._node_ids[row] for row in rows),
                *(shares[part, rows[0]].tolist() for part in range(3)),
            )
            for rows in alike.values()
        ]

    def _lowered(self, most_w: Mapping[int, float]) -> FleetArrays:
        return FleetArrays.of(
            [
                replace(node, power_max_w=most_w[node.node_id]) if node.node_id in most_w else node
                for node in self._nodes
            ]
        )

    def _split(
        self, fleet: FleetArrays, interval: BudgetInterval, reserved_w: Mapping[int, float]
    ) -> tuple[Floats, Floats, Floats]:
        """Least and most power and throughput of each node; each (N,)."""
        power_w = self._split_power_w(fleet, interval.limit_w, reserved_w)
        targets = split_tokens_per_s(fleet, power_w, interval.granted_tokens_per_s)
        return np.minimum(fleet.power_min_w, power_w), power_w, targets

    def _split_power_w(
        self, fleet: FleetArrays, limit_w: float, reserved_w: Mapping[int, float]
    ) -> Floats:
        if not reserved_w:
            return split_power_w(fleet, limit_w)
        held = np.array([reserved_w.get(node_id, 0.0) for node_id in self._node_ids])
        held_w = math.fsum(held)
        if held_w <= 0:
            return split_power_w(fleet, limit_w)
        reachable = np.array([node_id not in reserved_w for node_id in self._node_ids])
        granted = held * min(1.0, limit_w / held_w)
        others = fleet.subset(reachable)
        granted[reachable] = split_power_w(others, max(0.0, limit_w - held_w))
        return fit(granted, limit_w)


def allocate_envelopes(
    interval: BudgetInterval,
    nodes: Sequence[NodeCapability],
    reserved_w: Mapping[int, float] | None = None,
) -> tuple[PowerEnvelope, ...]:
    """Split one interval as ``EnvelopeSplitter.split`` does."""
    return EnvelopeSplitter(nodes).split(interval, reserved_w)
