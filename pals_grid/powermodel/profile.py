"""A profile: measured operating points of engines, one row a (limit, clock, batch)."""

from __future__ import annotations

from dataclasses import dataclass

from pals_grid.core.fleet import Origin


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One cell of a profile, in steady state.

    ``power_limit_w`` and ``sm_clock_mhz`` (None: free) are per GPU; ``gpu_power_w`` is the draw
    of all ``gpu_count`` GPUs together; ``tokens_per_s`` counts output tokens of the engine.
    ``input_per_output`` is the phase mix: prompt tokens per output token; None where the source
    does not tell, as are ``ttft_s`` and ``itl_s``.
    """

    gpu_model: str
    gpu_count: int
    model: str
    power_limit_w: float
    max_num_seqs: int
    tokens_per_s: float
    gpu_power_w: float
    tensor_parallel: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    sm_clock_mhz: float | None = None
    input_per_output: float | None = None
    ttft_s: float | None = None
    itl_s: float | None = None
    origin: Origin = Origin.MEASURED
