"""From a frontier table to the power curve that a planner sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import PowerCurve, floor_power_w

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.site import Slo
    from pals_grid.powermodel.overhead import NodeOverhead


def node_power_curve(table: FrontierTable, overhead: NodeOverhead, slo: Slo) -> PowerCurve:
    """Cheapest power for each throughput at the node's boundary, inside the ITL objective.

    It starts at the floor of the table: a serving engine under a steady trickle always has
    something running, and no power limit holds it below that. Points between the table's are
    time-shared.

    Raises:
        InvalidValue: when no point of the table meets ``slo.planned_itl_s``.
    """
    points = [
        (point.tokens_per_s, overhead.node_power_w(point.gpu_power_w))
        for point in table.points
        if point.itl_s <= slo.planned_itl_s
    ]
    if not points:
        fastest_s = min(point.itl_s for point in table.points)
        bound = f"must be {fastest_s * slo.itl_s / slo.planned_itl_s:.4f} or more for the table"
        raise InvalidValue("slo.itl_s", slo.itl_s, bound)
    floor_w = floor_power_w(table.points, slo.planned_itl_s)
    return PowerCurve.lower_hull(overhead.node_power_w(floor_w), points)
