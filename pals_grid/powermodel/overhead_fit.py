"""A node's linear model from readings of its meter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PAIRS = 10
LEAST_SPAN_RATIO = 0.2
"""GPU power has to vary by this share of its highest, or the slope is noise."""


@dataclass(frozen=True, slots=True)
class OverheadFit:
    """The fitted line, and how far its pairs lie from it (root mean square, in watts)."""

    overhead: NodeOverhead
    rmse_w: float
    pairs: int
    gpu_power_low_w: float
    gpu_power_high_w: float


def fit_overhead(pairs: Sequence[tuple[float, float]]) -> OverheadFit:
    """Least squares over ``(gpu_power_w, node_power_w)``: GPUs' sum and whole node, in watts.

    The slope is held to 1 or more: a node draws what its GPUs draw. Valid inside the span of GPU
    power that was seen; leaves out the CPUs' own load.

    Raises:
        InvalidValue: for too few pairs, too little variation, or figures that no node has.
    """
    if len(pairs) < LEAST_PAIRS:
        raise InvalidValue("pairs", len(pairs), f"must be {LEAST_PAIRS} or more")
    if not all(math.isfinite(gpu) and math.isfinite(node) and gpu >= 0 for gpu, node in pairs):
        raise InvalidValue("pairs", "some", "must be finite, GPU power 0 or more")
    low, high = min(gpu for gpu, _ in pairs), max(gpu for gpu, _ in pairs)
    if high - low < max(1.0, LEAST_SPAN_RATIO * high):
        bound = f"must vary by {LEAST_SPAN_RATIO:.0%} of its highest, {high:.0f} W"
        raise InvalidValue("gpu_power_w", f"{low:.0f} to {high:.0f} W", bound)
    gpu_mean = sum(gpu for gpu, _ in pairs) / len(pairs)
    node_mean = sum(node for _, node in pairs) / len(pairs)
    spread = sum((gpu - gpu_mean) ** 2 for gpu, _ in pairs)
    slope = sum((gpu - gpu_mean) * (node - node_mean) for gpu, node in pairs) / spread
    slope = max(1.0, slope)
    base_w = node_mean - slope * gpu_mean
    if base_w < 0:
        raise InvalidValue("base_w", round(base_w, 1), "must be 0 or more: is that the whole node?")
    overhead = NodeOverhead(base_w, slope - 1)
    errors = [node - overhead.node_power_w(gpu) for gpu, node in pairs]
    rmse_w = math.sqrt(sum(error**2 for error in errors) / len(errors))
    return OverheadFit(overhead, rmse_w, len(pairs), low, high)
