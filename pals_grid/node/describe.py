"""How a node introduces itself: what it is, and its power as a function of tokens/s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import DeviceError
from pals_grid.core.fleet import PowerCurve, floor_power_w
from pals_grid.powermodel.curve import node_power_curve
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.wire.messages import CurvePoint, GpuDescription, RegisterRequest

if TYPE_CHECKING:
    from pals_grid.core.ports import Gpu
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit, NodeHardware


def describe_node(
    name: str, hardware: NodeHardware, slo: Slo, agent_version: str
) -> RegisterRequest:
    """Describe a node at its own boundary.

    Its least power is the floor of every unit's table, its most that of every unit's hungriest
    point; a unit without a table counts with its GPUs' lowest and highest limits.

    Raises:
        InvalidValue: when a table has no point that meets the ITL objective.
    """
    floor_w = sum(_power_range_w(unit, slo)[0] for unit in hardware.units)
    most_w = sum(_power_range_w(unit, slo)[1] for unit in hardware.units)
    curve = _curve(hardware, slo)
    power_max_w = hardware.overhead.node_power_w(most_w)
    return RegisterRequest(
        name=name,
        hardware=hardware.description,
        agent_version=agent_version,
        origin=hardware.origin,
        gpus=[_describe_gpu(gpu) for unit in hardware.units for gpu in unit.gpus],
        models=[unit.engine.model for unit in hardware.units],
        power_min_w=min(hardware.overhead.node_power_w(floor_w), power_max_w),
        power_max_w=power_max_w,
        curve=[
            CurvePoint(tokens_per_s=tokens, power_w=power)
            for tokens, power in zip(curve.tokens_per_s, curve.power_w, strict=True)
        ],
    )


def _describe_gpu(gpu: Gpu) -> GpuDescription:
    limits = gpu.limit_range
    return GpuDescription(
        uuid=gpu.uuid,
        model=gpu.model,
        limit_min_w=limits.min_w,
        limit_max_w=limits.max_w,
        limit_default_w=limits.default_w,
    )


def _power_range_w(unit: EngineUnit, slo: Slo) -> tuple[float, float]:
    if unit.table is not None:
        powers = [point.gpu_power_w for point in unit.table.points]
        return floor_power_w(unit.table.points, slo.planned_itl_s), max(powers)
    ranges = [gpu.limit_range for gpu in unit.gpus]
    return sum(limits.min_w for limits in ranges), sum(limits.max_w for limits in ranges)


def _curve(hardware: NodeHardware, slo: Slo) -> PowerCurve:
    """Return the units' curves laid together; the node's base power counts once."""
    whole = hardware.overhead
    part = NodeOverhead(whole.base_w / max(1, len(hardware.units)), whole.per_gpu_w_ratio)
    return PowerCurve.combined([_unit_curve(unit, part, slo) for unit in hardware.units])


def _unit_curve(unit: EngineUnit, overhead: NodeOverhead, slo: Slo) -> PowerCurve:
    if unit.table is None:
        return PowerCurve((0.0,), (overhead.node_power_w(_drawn_w(unit)),))
    return node_power_curve(unit.table, overhead, slo)


def _drawn_w(unit: EngineUnit) -> float:
    total_w = 0.0
    for gpu in unit.gpus:
        try:
            total_w += gpu.observe().power_draw_w
        except DeviceError:
            continue  # a lost GPU draws nothing that could be planned with
    return total_w
