"""Whole-node power where no meter exists: a linear model of GPU power, labelled modelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.fleet import Origin
from pals_grid.core.ports import NodePower

if TYPE_CHECKING:
    from pals_grid.powermodel.overhead import NodeOverhead


LINEAR = "linear model"


class LinearNodeMeter:
    """``base_w`` plus a share of GPU power for fans and conversion (powermodel.overhead)."""

    def __init__(self, overhead: NodeOverhead) -> None:
        self._overhead = overhead

    def observe_node_power(self, gpu_power_w: float) -> NodePower:
        """Power of the whole node in watts."""
        return NodePower(self._overhead.node_power_w(gpu_power_w), Origin.MODELLED, LINEAR)
