"""Split a site's budget so that no watt would give more tokens at another node."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from pals_grid.core.budget import PowerEnvelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.budget import BudgetInterval
    from pals_grid.core.fleet import NodeCapability

_SLOPE_DIGITS = 12


def allocate_envelopes(
    interval: BudgetInterval, nodes: Sequence[NodeCapability]
) -> tuple[PowerEnvelope, ...]:
    """One envelope per node; the sum of ``power_max_w`` never exceeds ``interval.limit_w``.

    Every node is granted its ``power_min_w`` first: also one that is offline, since it may well
    run on and follow its schedule. What is left goes to the online nodes by equal marginal power
    per token, then, beyond what their curves can use, as headroom up to ``power_max_w``. When
    even the minimums do not fit, all are scaled down alike.
    """
    power_w = _split_power_w(interval.limit_w, nodes)
    targets = _split_tokens_per_s(interval.planned_tokens_per_s, nodes, power_w)
    return tuple(
        PowerEnvelope(
            node_id=node.node_id,
            interval=interval.interval,
            power_min_w=min(node.power_min_w, granted_w),
            power_max_w=granted_w,
            target_tokens_per_s=target,
            reason=interval.reason,
            event_id=interval.event_id,
        )
        for node, granted_w, target in zip(nodes, power_w, targets, strict=True)
    )


def _split_power_w(limit_w: float, nodes: Sequence[NodeCapability]) -> list[float]:
    granted = [node.power_min_w for node in nodes]
    total = math.fsum(granted)
    if total > limit_w:
        return _fit([power_w * limit_w / total for power_w in granted], limit_w)
    floor_gaps = [
        (i, max(0.0, node.curve.floor_w - node.power_min_w)) for i, node in enumerate(nodes)
    ]
    left_w = _pour(granted, floor_gaps, limit_w - total)
    for group in _by_slope(_power_steps(nodes)):
        left_w = _pour(granted, group, left_w)
    headroom = [
        (i, max(0.0, node.power_max_w - granted[i])) for i, node in enumerate(nodes) if node.online
    ]
    _pour(granted, headroom, left_w)
    return _fit(granted, limit_w)


def _split_tokens_per_s(
    tokens_per_s: float, nodes: Sequence[NodeCapability], power_w: Sequence[float]
) -> list[float]:
    """Split the planned throughput by equal marginal power, inside each node's grant."""
    targets = [0.0] * len(nodes)
    left = tokens_per_s
    for group in _by_slope(_token_steps(nodes, power_w)):
        left = _pour(targets, group, left)
    return targets


def _power_steps(nodes: Sequence[NodeCapability]) -> list[tuple[float, int, float]]:
    """``(slope, node, watts)`` of each curve's segments above the node's minimum."""
    return [
        (slope, i, high_w - max(low_w, node.power_min_w))
        for i, node in enumerate(nodes)
        if node.online
        for slope, (low_w, high_w) in zip(
            node.curve.slopes_w_per_token_per_s,
            itertools.pairwise(min(p, node.power_max_w) for p in node.curve.power_w),
            strict=True,
        )
        if high_w > max(low_w, node.power_min_w)
    ]


def _token_steps(
    nodes: Sequence[NodeCapability], power_w: Sequence[float]
) -> list[tuple[float, int, float]]:
    """``(slope, node, tokens/s)`` of each curve's segments inside the node's grant."""
    steps = []
    for i, node in enumerate(nodes):
        if not node.online:
            continue
        most = node.curve.tokens_per_s_at(power_w[i])
        pairs = itertools.pairwise(node.curve.tokens_per_s)
        for slope, (low, high) in zip(node.curve.slopes_w_per_token_per_s, pairs, strict=True):
            if most > low:
                steps.append((slope, i, min(high, most) - low))
    return steps


def _by_slope(steps: list[tuple[float, int, float]]) -> list[list[tuple[int, float]]]:
    """Group by slope, cheapest first; equal slopes share, so like nodes get like envelopes."""

    def key(step: tuple[float, int, float]) -> float:
        return round(step[0], _SLOPE_DIGITS)

    return [
        [(i, width) for _, i, width in group]
        for _, group in itertools.groupby(sorted(steps, key=key), key=key)
    ]


def _pour(levels: list[float], group: Sequence[tuple[int, float]], left: float) -> float:
    """Raise ``levels`` by the group's widths, in proportion when not all fits; return the rest."""
    total = math.fsum(width for _, width in group)
    if total <= 0 or left <= 0:
        return left
    ratio = min(1.0, left / total)
    for i, width in group:
        levels[i] += width * ratio
    return left - total * ratio


def _fit(power_w: list[float], limit_w: float) -> list[float]:
    """Take rounding errors off the largest share, until any order of summing stays inside."""
    bound_w = limit_w * (1 - len(power_w) * 2**-52)
    while (over_w := math.fsum(power_w) - bound_w) > 0:
        largest = power_w.index(max(power_w))
        power_w[largest] = max(0.0, math.nextafter(power_w[largest] - over_w, 0.0))
    return power_w
