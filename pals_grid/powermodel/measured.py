"""Published measurements, read from the files as they are; nothing of them ships."""

from __future__ import annotations

import csv
import math
import re
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A100_TABLE = "pals_author_a100/moe_summary_tp4.csv"
V2_TABLE = "mlenergy_v2/llm_text_generation.csv"
V3_TABLE = "mlenergy_v3/llm_mllm_configs.csv"
TRACE_TABLE = "gpu2grid_h100_power_traces/steady_state_summary.csv"
V100_TABLE = "gridpilot_v100/E1_power_cap_sweep__parsed_results.csv"
NCCL_TABLE = "aiconfigurator_ops/nccl.csv"
ALLREDUCE_TABLE = "aiconfigurator_ops/vllm_custom_allreduce.csv"
ANCHOR_TABLE = "literature_anchors.csv"


class LimitRow(NamedTuple):
    """A cell of the A100 table: tokens/s of the node, watts per GPU."""

    model: str
    limit_w: float
    batch: float
    tokens_per_s: float
    gpu_power_w: float


class LevelRow(Deployment, frozen=True):
    """A deployment's batch level without a limit: step and W per GPU, tokens/s of the node."""

    level: float
    running: float
    step_ms: float
    power_w: float
    tokens_per_s: float


class CollectiveRow(NamedTuple):
    """A collective between the GPUs of one node."""

    gpu_model: str
    operation: str
    gpu_count: int
    size_bytes: float
    seconds: float


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header.

    Raises:
        InvalidValue: when it is not text.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))
    except UnicodeDecodeError as error:
        raise InvalidValue("data", str(path), "must be CSV text in UTF-8") from error


def read_limits(path: Path) -> list[LimitRow]:
    """Cells of the A100 table."""
    return [
        LimitRow(
            row["model"],
            number(row, "cap_w"),
            number(row, "batch"),
            number(row, "avg_Tokens_per_s"),
            number(row, "avg_gpu_power"),
        )
        for row in _checked(path, ("model", "cap_w", "batch", "avg_Tokens_per_s", "avg_gpu_power"))
    ]


def read_v3(path: Path) -> list[LevelRow]:
    """Rows of ML.ENERGY's third benchmark."""
    return [_v3_row(row) for row in _checked(path, ("gpu_model", "median_itl_ms", "num_gpus"))]


def _v3_row(row: dict[str, str]) -> LevelRow:
    gpus = int(number(row, "num_gpus"))
    return LevelRow(
        source="mlenergy_v3",
        gpu_model=row["gpu_model"],
        model=row["model_id"],
        family=re.sub(r" (FP8|Instruct|Thinking)", "", row["nickname"]),
        task=row["task"],
        gpu_count=gpus,
        tensor_parallel=int(number(row, "tensor_parallel")),
        expert_parallel=int(number(row, "expert_parallel")),
        data_parallel=int(number(row, "data_parallel")),
        precision=row["weight_precision"],
        total_params_b=number(row, "total_params_billions"),
        activated_params_b=number(row, "activated_params_billions"),
        architecture=row["architecture"],
        level=number(row, "max_num_seqs"),
        running=number(row, "avg_batch_size"),
        step_ms=number(row, "median_itl_ms"),
        power_w=number(row, "avg_power_watts") / gpus,
        tokens_per_s=number(row, "output_throughput_tokens_per_sec"),
    )


def read_v2(path: Path) -> list[LevelRow]:
    """Rows of ML.ENERGY's second benchmark; power is energy a request over its time."""
    return [_v2_row(row) for row in _checked(path, ("Model", "GPU", "Avg TPOT (s)", "TP", "PP"))]


def _v2_row(row: dict[str, str]) -> LevelRow:
    tensor, pipeline = int(number(row, "TP")), int(number(row, "PP"))
    rate = number(row, "Token tput (tok/s)")
    total_w = number(row, "Energy/req (J)") / number(row, "Avg Output Tokens") * rate
    total_b, active_b = parameters_b(row["Model"])
    return LevelRow(
        source="mlenergy_v2",
        gpu_model=row["GPU"].removeprefix("NVIDIA "),
        model=row["Model"],
        family=row["Model"],
        task=row["task"],
        gpu_count=tensor * pipeline,
        tensor_parallel=tensor,
        expert_parallel=1,
        data_parallel=1,
        precision="bfloat16",
        total_params_b=total_b,
        activated_params_b=active_b,
        architecture="MoE" if active_b < total_b else "Dense Transformer",
        level=number(row, "Max BS (reqs)"),
        running=number(row, "Avg BS (reqs)"),
        step_ms=number(row, "Avg TPOT (s)") * 1e3,
        power_w=total_w / (tensor * pipeline),
        tokens_per_s=rate,
    )


_NAMED_B = {
    "mini": 3.8, "small": 7.4, "medium": 14.0, "Nemo": 12.2, "Mistral-Large": 123.0,
}  # fmt: skip
_MIXTURES_B = {"8x7B": (46.7, 12.9), "8x22B": (140.6, 39.1)}


def parameters_b(model: str) -> tuple[float, float]:
    """(Total, activated) parameters in 1e9, from a model's name; 8 where it does not tell."""
    for name, sizes in _MIXTURES_B.items():
        if name in model:
            return sizes
    found = re.search(r"(\d+(?:\.\d+)?)[bB]\b", model)
    if found:
        size_b = float(found.group(1))
    else:
        size_b = next((size for name, size in _NAMED_B.items() if name in model), 8.0)
    return size_b, size_b


def read_collectives(nccl: Path, custom: Path) -> list[CollectiveRow]:
    """Half-precision collectives; sizes are in elements of two bytes."""
    rows = [
        _collective(row, row["op_name"])
        for row in (read_table(nccl) if nccl.is_file() else [])
        if row.get("nccl_dtype") == "half"
    ]
    rows += [
        _collective(row, "vllm_all_reduce")
        for row in (read_table(custom) if custom.is_file() else [])
        if row.get("kernel_source") == "vLLM_custom_graph"
    ]
    return rows


def _collective(row: dict[str, str], operation: str) -> CollectiveRow:
    gpu = row["system"].split("_")[0].upper()
    size = 2 * number(row, "message_size")
    return CollectiveRow(
        gpu, operation, int(number(row, "num_gpus")), size, number(row, "latency") * 1e-3
    )


def number(row: dict[str, str], column: str) -> float:
    """A finite number above 0.

    Raises:
        InvalidValue: with column and value.
    """
    text = row.get(column) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidValue(column, text, "must be a number above 0")
    return value


def _checked(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for row in read_table(path):
        missing = next((name for name in columns if row.get(name) is None), None)
        if missing:
            raise InvalidValue("data", str(path), f"must have the column {missing}")
        yield row
