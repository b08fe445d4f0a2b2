"""A model as a published source served it."""

from __future__ import annotations

import msgspec

_KEY = (
    "source", "gpu_model", "model", "task", "gpu_count", "tensor_parallel", "expert_parallel",
    "data_parallel", "precision",
)  # fmt: skip


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was served, for which task, on which GPUs; parameters in 1e9."""

    source: str
    gpu_model: str
    model: str
    family: str
    task: str
    gpu_count: int
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    precision: str
    total_params_b: float
    activated_params_b: float
    architecture: str

    @property
    def key(self) -> tuple[object, ...]:
        """What makes a group of levels: all but what follows from the model."""
        return tuple(getattr(self, name) for name in _KEY)
