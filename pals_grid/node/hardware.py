"""What a node is made of: its GPUs, the engines on them, its meter and its overhead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.fleet import Origin

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import Engine, Gpu, NodeMeter
    from pals_grid.powermodel.overhead import NodeOverhead


@dataclass(frozen=True, slots=True)
class EngineUnit:
    """One engine and the GPUs that it runs on.

    Without a ``table`` the unit is only observed: its power counts, its limits stay as they are.
    ``origin`` says how its energy is known. ``max_loss_ratio`` is the unit's priority tier: the
    part of its throughput target that it may lose while the budget is short (0, 0.1, 0.25, 0.5).
    """

    name: str
    engine: Engine
    gpus: tuple[Gpu, ...]
    table: FrontierTable | None = None
    origin: Origin = Origin.MEASURED
    max_loss_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeHardware:
    """A whole node behind the ports; ``description`` is shown to people."""

    description: str
    origin: Origin
    units: tuple[EngineUnit, ...]
    meter: NodeMeter
    overhead: NodeOverhead
