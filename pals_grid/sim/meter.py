"""The simulated node's meter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.fleet import Origin
from pals_grid.core.ports import NodePower

if TYPE_CHECKING:
    from pals_grid.powermodel.overhead import NodeOverhead


class SimMeter:
    """Whole-node power of a simulated node, by its overhead model."""

    def __init__(self, overhead: NodeOverhead) -> None:
        self._overhead = overhead

    def observe_node_power(self, gpu_power_w: float) -> NodePower:
        """Node power for the GPUs' power."""
        return NodePower(
            self._overhead.node_power_w(gpu_power_w), Origin.SIMULATED, "simulated meter"
        )
