"""What nodes' work asks for, from what they say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.allocator.fleet_arrays import Floats
    from pals_grid.core.site import ServiceTier
    from pals_grid.store.live_sites import LiveNode, LiveStatus

KEPT_RATIO = 0.8


def urgent_tokens_per_s(status: LiveStatus | None) -> float:
    """Throughput that a node's requests ask for now; infinite where that is not known.

    What it serves, while nothing waits; else as much more as there are more requests than run.
    """
    if status is None or not status.engines:
        return math.inf
    total = 0.0
    for engine in status.engines:
        running, waiting = engine.requests_running, engine.requests_waiting
        if waiting == 0:
            total += engine.tokens_out_per_s
        elif running > 0 and engine.tokens_out_per_s > 0:
            total += engine.tokens_out_per_s * (running + waiting) / running
        else:
            return math.inf
    return total


def has_deferred(status: LiveStatus | None) -> bool:
    """Whether work waits there that may wait."""
    return status is not None and any(one.requests_deferred > 0 for one in status.engines)


def kept_ratio(tiers: Sequence[ServiceTier]) -> float:
    """Share that a site's tiers assure of the demand that cannot wait."""
    urgent = [tier for tier in tiers if tier.deferral_s == 0]
    total = sum(tier.demand_ratio for tier in urgent)
    if total <= 0:
        return 0.0
    return sum(tier.demand_ratio * (1 - tier.loss_ratio) for tier in urgent) / total


class DemandHolder:
    """Demand of each node: up at once, down by at most a fifth a round."""

    def __init__(self) -> None:
        self._held: dict[int, float] = {}

    def observe(self, seen: Sequence[LiveNode], targets: Floats) -> tuple[Floats, Floats]:
        """Return demand and its urgent part, (N,) each, tokens/s.

        Work that may wait counts up to what the plan fills the node up to (``targets``).
        """
        held: dict[int, float] = {}
        for one in seen:
            now, before = urgent_tokens_per_s(one.status), self._held.get(one.node_id, 0.0)
            held[one.node_id] = max(now, KEPT_RATIO * before) if math.isfinite(before) else now
        self._held = held
        urgent = np.array(list(held.values()))
        deferred = np.array([has_deferred(one.status) for one in seen], dtype=bool)
        return np.where(deferred, np.maximum(urgent, targets), urgent), urgent
