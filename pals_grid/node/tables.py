"""A measured or fitted frontier table in the place of the one from published coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError
from pals_grid.node.null_engine import NullEngine

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.node.hardware import EngineUnit, NodeHardware

PRIORITY_TIERS = (0, 10, 25, 50)
"""Per cent of its throughput target that an engine may lose while the budget is short."""


def use_table(hardware: NodeHardware, table: FrontierTable) -> NodeHardware:
    """Give ``table`` to every engine that it is for.

    Raises:
        ConfigurationError: when it is for none of them; says what it is for and what is here.
    """
    if not any(_fits(table, unit) for unit in hardware.units):
        here = "; ".join(sorted({_show(unit) for unit in hardware.units}))
        raise ConfigurationError(
            f"frontier_table: must be for an engine of this node ({here}), got one for "
            f"{table.model} on {table.gpu_count} x {table.gpu_model}"
        )
    return replace(
        hardware,
        units=tuple(
            replace(unit, table=table) if _fits(table, unit) else unit for unit in hardware.units
        ),
    )


def use_tier(hardware: NodeHardware, max_loss_ratio: float) -> NodeHardware:
    """Put every engine of the node into one priority tier.

    Raises:
        ConfigurationError: for a tier that does not exist.
    """
    if max_loss_ratio not in [tier / 100 for tier in PRIORITY_TIERS]:
        known = ", ".join(str(tier) for tier in PRIORITY_TIERS)
        raise ConfigurationError(
            f"priority_tier: must be one of {known} (per cent), got {100 * max_loss_ratio:g}"
        )
    units = tuple(replace(unit, max_loss_ratio=max_loss_ratio) for unit in hardware.units)
    return replace(hardware, units=units)


def _fits(table: FrontierTable, unit: EngineUnit) -> bool:
    """Whether model, number and kind of GPUs are the same; a kind may be named in part."""
    return (table.model, table.gpu_count) == (unit.engine.model, len(unit.gpus)) and all(
        table.gpu_model in gpu.model for gpu in unit.gpus
    )


def _show(unit: EngineUnit) -> str:
    kinds = ", ".join(sorted({gpu.model for gpu in unit.gpus}))
    engine = "no engine" if isinstance(unit.engine, NullEngine) else unit.engine.model
    return f"{engine} on {len(unit.gpus)} x {kinds}"
