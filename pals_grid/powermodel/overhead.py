"""Power of a node around its GPUs, modelled as a straight line."""

from __future__ import annotations

from dataclasses import dataclass

from pals_grid.core.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class NodeOverhead:
    """``node = base_w + (1 + per_gpu_w_ratio) * gpu``, in watts.

    ``base_w`` holds CPUs, memory, NICs and fans at rest; ``per_gpu_w_ratio`` the conversion
    losses and the fans that follow the GPUs' draw. Leaves out the CPUs' own load.
    """

    base_w: float
    per_gpu_w_ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.base_w <= 1e6:
            raise InvalidValue("base_w", self.base_w, "must be from 0 to 1e6")
        if not 0 <= self.per_gpu_w_ratio <= 10:
            raise InvalidValue("per_gpu_w_ratio", self.per_gpu_w_ratio, "must be from 0 to 10")

    def node_power_w(self, gpu_power_w: float) -> float:
        """Power of the whole node, from that of all its GPUs."""
        return self.base_w + (1 + self.per_gpu_w_ratio) * gpu_power_w

    def gpu_power_w(self, node_power_w: float) -> float:
        """What the GPUs may draw inside ``node_power_w``; never below 0."""
        return max(0.0, node_power_w - self.base_w) / (1 + self.per_gpu_w_ratio)


FOUR_A100 = NodeOverhead(base_w=420.0, per_gpu_w_ratio=0.15)
"""ASSUMED, for a node of four A100: two server CPUs, memory, NICs and fans at 420 W, and 15 %
on top of GPU power for conversion and fans. Not measured; replace it by a meter."""

EIGHT_H100 = NodeOverhead(base_w=1200.0, per_gpu_w_ratio=0.15)
"""ASSUMED, for a node of eight H100: two CPUs, memory, eight NICs, switches between the GPUs and
fans at 1.2 kW, and 15 % on top of GPU power. Not measured; replace it by a meter."""

EIGHT_B200 = NodeOverhead(base_w=1600.0, per_gpu_w_ratio=0.15)
"""ASSUMED as ``EIGHT_H100``, with 1.6 kW at rest for eight B200."""
