from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin, floor_power_w
from pals_grid.core.site import Slo
from pals_grid.powermodel.coefficients import engine_model, known_engines
from pals_grid.powermodel.curve import node_power_curve
from pals_grid.powermodel.overhead import FOUR_A100, NodeOverhead
from pals_grid.powermodel.table import BATCHES, build_frontier_table, synchronous_round

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.powermodel.physics import EngineModel


def _table(model: str = "deepseek-ai/deepseek-moe-16b-base") -> FrontierTable:
    return build_frontier_table("NVIDIA A100-SXM4-80GB", model, 4, 1155 / 211)


def test_the_table_covers_limits_and_batches_and_says_that_it_is_modelled() -> None:
    table = _table()
    assert table.origin is Origin.MODELLED
    assert {p.power_limit_w for p in table.points} == {100.0 + 25 * i for i in range(13)}
    assert {p.max_num_seqs for p in table.points} == set(BATCHES)


@pytest.mark.parametrize("engine", known_engines(), ids=lambda engine: engine.model)
def test_points_are_finite_and_draw_no_more_than_their_limit(engine: EngineModel) -> None:
    table = build_frontier_table(engine.gpu_model, engine.model, engine.gpu_count, 5.5)
    for point in table.points:
        assert point.gpu_power_w <= engine.gpu_count * point.power_limit_w + 1e-6
        values = (point.tokens_per_s, point.gpu_power_w, point.ttft_s, point.itl_s)
        assert all(math.isfinite(v) and v > 0 for v in values)


@pytest.mark.parametrize("engine", known_engines(), ids=lambda engine: engine.model)
def test_throughput_rises_with_limit_and_batch(engine: EngineModel) -> None:
    """At a low limit a larger batch may slow prompts down a little: its steps are hotter."""
    table = build_frontier_table(engine.gpu_model, engine.model, engine.gpu_count, 5.5)
    rate = {(p.power_limit_w, p.max_num_seqs): p.tokens_per_s for p in table.points}
    limits = sorted({p.power_limit_w for p in table.points})
    for low, high in itertools.pairwise(limits):
        assert all(rate[low, b] <= rate[high, b] + 1e-9 for b in BATCHES)
    for small, large in itertools.pairwise(BATCHES):
        assert all(rate[w, small] < rate[w, large] * 1.003 for w in limits)
        assert rate[limits[-1], small] < rate[limits[-1], large]


@pytest.mark.parametrize(
    ("model", "limit_w", "batch", "tokens_per_s", "gpu_w"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 400.0, 64, 434.8, 379.3),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 250.0, 16, 281.2, 248.3),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 100.0, 64, 106.4, 99.0),
        ("deepseek-ai/deepseek-moe-16b-base", 150.0, 32, 650.8, 148.6),
        ("Qwen/Qwen1.5-MoE-A2.7B", 350.0, 64, 1529.0, 287.2),
    ],
)
def test_measured_cells_of_the_a100_table_come_out(
    model: str, limit_w: float, batch: int, tokens_per_s: float, gpu_w: float
) -> None:
    """5 output tokens after 200 prompt tokens, as the fit assumes; quoted from the source."""
    engine = engine_model("A100-SXM4", model, 4)
    rate, draw_w = synchronous_round(engine, limit_w, batch, 200.0, 5.0)
    assert rate == pytest.approx(tokens_per_s, rel=0.06)
    assert draw_w == pytest.approx(gpu_w, rel=0.05)


def test_a_clock_lock_is_an_axis_of_the_table() -> None:
    table = build_frontier_table(
        "B200", "Qwen/Qwen3-235B-A22B-Instruct-2507", 8, 2.0,
        power_limits_w=[1000.0], max_num_seqs=[64], sm_clocks_mhz=(None, 1500.0),
    )  # fmt: skip
    free, locked = table.points
    assert (free.sm_clock_mhz, locked.sm_clock_mhz) == (None, 1500.0)
    assert locked.gpu_power_w < free.gpu_power_w
    assert locked.tokens_per_s < free.tokens_per_s


def test_an_impossible_workload_is_refused() -> None:
    with pytest.raises(InvalidValue, match="input_per_output"):
        build_frontier_table("A100-SXM4", "Qwen/Qwen1.5-MoE-A2.7B", 4, math.nan)
    with pytest.raises(InvalidValue, match="output_tokens"):
        build_frontier_table("A100-SXM4", "Qwen/Qwen1.5-MoE-A2.7B", 4, 5.0, output_tokens=0.0)


def test_the_node_curve_stands_on_its_floor_and_reaches_the_fastest_point_inside_the_slo() -> None:
    table = _table()
    curve = node_power_curve(table, FOUR_A100, Slo(itl_s=0.05))
    fastest = max(p.tokens_per_s for p in table.points if p.itl_s <= 0.04)
    floor_w = floor_power_w(table.points, 0.04)
    assert curve.floor_w == pytest.approx(FOUR_A100.node_power_w(floor_w))
    assert curve.max_tokens_per_s == pytest.approx(fastest)
    for point in table.points:
        if point.itl_s <= 0.04:
            cheapest_w = curve.power_w_at(point.tokens_per_s)
            own_w = max(curve.floor_w, FOUR_A100.node_power_w(point.gpu_power_w))
            assert cheapest_w <= own_w + 1e-6


def test_a_curve_for_an_slo_that_no_point_meets_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"slo\.itl_s"):
        node_power_curve(_table(), FOUR_A100, Slo(itl_s=0.001))


def test_overhead_is_its_own_inverse_and_bounds_are_checked() -> None:
    overhead = NodeOverhead(400.0, 0.25)
    assert overhead.node_power_w(800.0) == 1400.0
    assert overhead.gpu_power_w(1400.0) == pytest.approx(800.0)
    assert overhead.gpu_power_w(100.0) == 0.0
    with pytest.raises(InvalidValue, match="base_w"):
        NodeOverhead(-1.0, 0.1)
    with pytest.raises(InvalidValue, match="per_gpu_w_ratio"):
        NodeOverhead(1.0, math.nan)
