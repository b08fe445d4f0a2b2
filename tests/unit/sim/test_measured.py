"""The plant's draw and token gaps beside measured ones: Llama 3.1 70B on four H100, no limit.

The sources do not give the prompts' lengths; 300 tokens are taken. The bounds are wide, as the
plant is not fitted on these spreads.
"""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from functools import cache
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

import pytest

from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.sim.arrivals import saturating
from pals_grid.sim.clock import SimClock
from pals_grid.sim.plant import NodeSpec, SimNode

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "meta-llama/Llama-3.1-70B-Instruct"
PROMPT_TOKENS = 300.0
OUTPUT_TOKENS = 350.0


def _saturated(batch: int) -> tuple[SimClock, SimNode]:
    clock = SimClock(datetime(2026, 1, 1, tzinfo=UTC))
    spec = NodeSpec("n", "NVIDIA H100 80GB HBM3", MODEL, 4, FOUR_A100, batch)
    node = SimNode(clock, spec, saturating(PROMPT_TOKENS, OUTPUT_TOKENS), 3)
    clock.advance(60.0)
    return clock, node


@cache
def _traces(path: Path) -> dict[int, list[float]]:
    """Node draw of the model's runs by batch, every 0.1 s, without the first and last tenth."""
    draws: dict[int, list[float]] = {}
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["model"] == "Llama-3.1-70B":
                batch = int(row["max_num_seqs"])
                draws.setdefault(batch, []).append(float(row["power_total_W"]))
    return {b: w[len(w) // 10 : -len(w) // 10] for b, w in draws.items()}


@pytest.mark.parametrize("batch", [8, 32, 64, 128])
def test_the_draw_spreads_as_measured(shared_data: Path, batch: int) -> None:
    path = shared_data / "power-perf/gpu2grid_h100_power_traces/power_traces_all.csv.gz"
    measured_w = _traces(path)[batch]
    clock, node = _saturated(batch)
    before_j = sum(gpu.observe().energy_j for gpu in node.gpus)
    draws_w = []
    for _ in range(1500):
        clock.advance(0.1)
        energy_j = sum(gpu.observe().energy_j for gpu in node.gpus)
        draws_w.append((energy_j - before_j) / 0.1)
        before_j = energy_j
    measured = pstdev(measured_w) / fmean(measured_w)
    assert pstdev(draws_w) / fmean(draws_w) == pytest.approx(measured, rel=0.45)


@pytest.mark.parametrize("batch", [32, 64, 128])
def test_late_tokens_come_as_late_as_measured(shared_data: Path, batch: int) -> None:
    with (shared_data / "power-perf/mlenergy_v3/llm_mllm_configs.csv").open(newline="") as lines:
        (row,) = (
            row
            for row in csv.DictReader(lines)
            if (row["task"], row["model_id"], row["num_gpus"], row["max_num_seqs"])
            == ("lm-arena-chat", MODEL, "4", str(batch))
            and row["gpu_model"].startswith("H100")
        )
    clock, node = _saturated(batch)
    clock.advance(120.0)
    node.advance()
    median_s, late_s = (node.itl_histogram.quantile(q) for q in (0.5, 0.99))
    assert median_s == pytest.approx(float(row["median_itl_ms"]) / 1000, rel=0.15)
    assert late_s == pytest.approx(float(row["p99_itl_ms"]) / 1000, rel=0.35)
