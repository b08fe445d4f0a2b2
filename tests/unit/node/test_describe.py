from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.fleet import Origin, floor_power_w
from pals_grid.core.site import Slo
from pals_grid.node.describe import describe_node
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.null_engine import NullEngine
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable

OVERHEAD = NodeOverhead(100.0, 0.1)


def node(*units: EngineUnit) -> NodeHardware:
    return NodeHardware("fakes", Origin.SIMULATED, units, LinearNodeMeter(OVERHEAD), OVERHEAD)


def test_a_node_states_its_range_and_curve_at_its_own_boundary(table: FrontierTable) -> None:
    gpus = (FakeGpu("a", demand_w=60.0), FakeGpu("b", demand_w=60.0))
    hardware = node(EngineUnit("e", FakeEngine(), gpus, table))
    request = describe_node("n", hardware, Slo(), "1.0")
    powers = [point.gpu_power_w for point in table.points]
    floor_w = floor_power_w(table.points, Slo().planned_itl_s)
    assert request.power_min_w == pytest.approx(100 + 1.1 * floor_w)
    assert request.power_max_w == pytest.approx(100 + 1.1 * max(powers))
    assert request.curve[0].tokens_per_s == 0
    assert request.curve[0].power_w == pytest.approx(request.power_min_w)
    assert request.curve[-1].tokens_per_s == max(p.tokens_per_s for p in table.points)
    assert [gpu.uuid for gpu in request.gpus] == ["a", "b"]
    assert request.models == ["fake-model"]


def test_the_base_power_of_two_engines_counts_once(table: FrontierTable) -> None:
    units = [
        EngineUnit(f"e{i}", FakeEngine(), (FakeGpu(f"{i}a", demand_w=60.0),), table)
        for i in range(2)
    ]
    request = describe_node("n", node(*units), Slo(), "1.0")
    floor_w = floor_power_w(table.points, Slo().planned_itl_s)
    assert request.curve[0].power_w == pytest.approx(100 + 1.1 * 2 * floor_w)


def test_gpus_without_a_table_count_with_their_limits_and_their_draw() -> None:
    lost = FakeGpu("b")
    lost.lost = True
    gpus = (FakeGpu("a", demand_w=250.0), lost)
    request = describe_node("n", node(EngineUnit("g", NullEngine(), gpus)), Slo(), "1.0")
    assert [point.power_w for point in request.curve] == [pytest.approx(100 + 1.1 * 250)]
    assert request.power_min_w == pytest.approx(100 + 1.1 * 200)
    assert request.power_max_w == pytest.approx(100 + 1.1 * 800)
