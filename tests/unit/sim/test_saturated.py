"""What a table says of a saturated engine, beside the simulated engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.powermodel.table import operating_point
from pals_grid.sim.arrivals import saturating
from pals_grid.sim.clock import SimClock
from pals_grid.sim.plant import NodeSpec, SimNode

if TYPE_CHECKING:
    from pals_grid.powermodel.physics import EngineModel

DEEPSEEK = engine_model("A100-SXM4", "deepseek-ai/deepseek-moe-16b-base", 4)
QWEN = engine_model("H100", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", 8)
REQUESTS = 3000


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
@pytest.mark.parametrize(
    ("model", "limit_w", "tokens_in", "tokens_out"),
    [
        (DEEPSEEK, 400.0, 1155.0, 211.0),
        (DEEPSEEK, 200.0, 1155.0, 211.0),
        (DEEPSEEK, 400.0, 200.0, 5.0),
        (DEEPSEEK, 400.0, 4000.0, 100.0),
        (QWEN, 450.0, 600.0, 20.0),
        (QWEN, 700.0, 100.0, 400.0),
    ],
    ids=lambda value: f"{value:g}" if isinstance(value, float) else value.model,
)
def test_the_table_is_what_a_saturated_engine_does(
    model: EngineModel, limit_w: float, tokens_in: float, tokens_out: float, batch: int
) -> None:
    point = operating_point(model, limit_w, batch, tokens_in, tokens_out)
    clock = SimClock(datetime(2026, 1, 1, tzinfo=UTC))
    spec = NodeSpec(
        "n", model.gpu_model, model.model, model.gpu_count, FOUR_A100, batch, engine=model
    )
    node = SimNode(clock, spec, saturating(tokens_in, tokens_out, seed=7), 1)
    for gpu in node.gpus:
        gpu.die_ratio = 1.0  # the table's are nominal
        gpu.apply_power_limit(limit_w)
    stay_s = batch * tokens_out / point.tokens_per_s
    clock.advance(1.0 + 5 * stay_s)
    first = node.engine.observe()
    first_j = sum(gpu.observe().energy_j for gpu in node.gpus)
    seconds = max(REQUESTS / batch, 20.0) * stay_s
    clock.advance(seconds)
    last = node.engine.observe()
    last_j = sum(gpu.observe().energy_j for gpu in node.gpus)

    tokens = last.tokens_out_total - first.tokens_out_total
    assert first.prefills_total is not None
    assert last.prefills_total is not None
    assert first.prefill_s_total is not None
    assert last.prefill_s_total is not None
    prefills = last.prefills_total - first.prefills_total
    ttft_s = (last.prefill_s_total - first.prefill_s_total) / prefills
    itl_s = (batch * seconds / prefills - ttft_s) / (tokens_out - 1)
    # Three thousand draws of a wide spread of lengths have a mean that is 3 % off at times.
    assert tokens / seconds == pytest.approx(point.tokens_per_s, rel=0.07)
    assert (last_j - first_j) / seconds == pytest.approx(point.gpu_power_w, rel=0.03)
    assert ttft_s == pytest.approx(point.ttft_s, rel=0.3)
    assert itl_s == pytest.approx(point.itl_s, rel=0.08)
