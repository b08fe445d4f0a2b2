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
    ``origin`` says how its energy is known.
    """

    name: str
    engine: Engine
    gpus: tuple[Gpu, ...]
    table: FrontierTable | None = None
    origin: Origin = Origin.MEASURED


@dataclass(frozen=True, slots=True)
class NodeHardware:
    """A whole node behind the ports; ``description`` is shown to people."""

    description: str
    origin: Origin
    units: tuple[EngineUnit, ...]
    meter: NodeMeter
    overhead: NodeOverhead
