from __future__ import annotations

import csv
from statistics import fmean
from typing import TYPE_CHECKING

from pals_grid.powermodel.coefficients import (
    DEEPSEEK_MOE_16B_A100,
    LLAMA_31_70B_H100,
    MIXTRAL_8X7B_A100,
    QWEN15_MOE_A100,
)
from pals_grid.powermodel.table import operating_point

if TYPE_CHECKING:
    from pathlib import Path

_SHEET_NAMES = {
    "mixtral": MIXTRAL_8X7B_A100,
    "deepseek": DEEPSEEK_MOE_16B_A100,
    "qwen": QWEN15_MOE_A100,
}


def test_the_shipped_coefficients_keep_their_stated_error_on_the_a100_table(
    shared_data: Path,
) -> None:
    speed_errors, power_errors = [], []
    path = shared_data / "power-perf/pals_author_a100/moe_summary_tp4.csv"
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            engine = _SHEET_NAMES.get(row["model"])
            if engine is None:
                continue
            point = operating_point(engine, float(row["cap_w"]), int(row["batch"]), 200.0, 5.0)
            speed_errors.append(abs(point.tokens_per_s / float(row["avg_Tokens_per_s"]) - 1))
            power_errors.append(abs(point.gpu_power_w / 4 / float(row["avg_gpu_power"]) - 1))
    assert len(speed_errors) >= 90
    assert fmean(speed_errors) < 0.04
    assert fmean(power_errors) < 0.03


def test_dense_decode_keeps_its_stated_error_on_the_h100_rows(shared_data: Path) -> None:
    step_errors, power_errors = [], []
    engine = LLAMA_31_70B_H100
    with (shared_data / "power-perf/mlenergy_v3/llm_mllm_configs.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            key = (row["task"], row["gpu_model"], row["nickname"], row["num_gpus"])
            batch = float(row["avg_batch_size"])
            if key != ("lm-arena-chat", "H100", "Llama 3.1 70B Instruct", "4") or batch > 400:
                continue
            mix = engine.phase_mix(batch, 700.0)
            step_errors.append(abs(mix.decode_step_s * 1e3 / float(row["median_itl_ms"]) - 1))
            power_errors.append(abs(mix.decode_w * 4 / float(row["avg_power_watts"]) - 1))
    assert len(step_errors) >= 5
    assert fmean(step_errors) < 0.04
    assert fmean(power_errors) < 0.03
