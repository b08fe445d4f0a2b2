"""What a served model's step time and draw depend on, as features of a straight line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.powermodel.deployment import Deployment

_BYTES = {"bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "mxfp4": 0.55, "nvfp4": 0.55}
_TASKS = ("gpqa", "image-chat", "video-chat", "sourcegraph-fim", "chat")
_MEDIA = ("image-chat", "video-chat")

FEATURE_NAMES = (
    "one", "n", "n2", "weights", "active", "gpus", "weights_n", "active_n", "sparse", "sparse_n",
    *(f"{task}{suffix}" for task in _TASKS for suffix in ("", "_n")),
    "b200", "b200_n", "a100", "a100_n", "fp8", "fp4", "moe", "moe_n", "hybrid",
    "replicas", "replicas_n", "tensor",
    "knee_90", "knee_400", "knee_1300", "knee_400_b200", "knee_400_moe", "knee_150_media",
    "knee_150_active",
)  # fmt: skip


def weight_bytes(precision: str) -> float:
    """Bytes of one parameter; 2 where the precision is not known."""
    return _BYTES.get(precision, 2.0)


def knee(log_running: float, at: float) -> float:
    """Smooth ramp that starts to rise at ``at``."""
    z = 2 * (log_running - at)
    return (z if z > 30 else math.log1p(math.exp(z))) / 2


def feature_row(served: Deployment, running: float) -> list[float]:
    """Features in the order of ``FEATURE_NAMES``; logarithms of sizes in 1e9 bytes per GPU."""
    n = math.log(max(running, 1.0))
    size = weight_bytes(served.precision) / served.gpu_count
    weights = math.log(served.total_params_b * size)
    active = math.log(served.activated_params_b * size)
    b200, a100 = float("B200" in served.gpu_model), float("A100" in served.gpu_model)
    moe = float(served.architecture == "MoE")
    hybrid = float(served.architecture not in ("MoE", "Dense Transformer"))
    replicas = float(served.data_parallel > 1)
    tasks = [value for task in _TASKS for value in _with_n(served.task == task, n)]
    late = knee(n, 6.0)
    return [
        1.0, n, n * n, weights, active, math.log(served.gpu_count), weights * n, active * n,
        weights - active, (weights - active) * n,
        *tasks,
        b200, b200 * n, a100, a100 * n, float(weight_bytes(served.precision) == 1.0),
        float(weight_bytes(served.precision) < 1.0), moe, moe * n, hybrid,
        replicas, replicas * n, float(served.tensor_parallel > 1),
        knee(n, 4.5), late, knee(n, 7.2), b200 * late, moe * late,
        float(served.task in _MEDIA) * knee(n, 5.0), active * knee(n, 5.0),
    ]  # fmt: skip


def _with_n(flag: bool, n: float) -> tuple[float, float]:
    return float(flag), float(flag) * n
