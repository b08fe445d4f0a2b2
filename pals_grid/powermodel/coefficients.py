"""Coefficients per (GPU, model), fitted by this project on published measurements.

Sources, all third-party measurements that are quoted, never shipped:

- A100: ``moe_summary_tp4.xlsx`` of github.com/mrhankendi/AI_LLM, commit 96d22f4: 4 GPUs, tensor
  parallelism 4, power limits of 100 to 400 W, synchronous batches of 1 to 64 short prompts with
  5 output tokens, power by NVML. The fit (least squares of log time and log power with a weak
  pull to physical start values; 3 shared and 10 own coefficients a model, 5 models) leaves a
  mean absolute error of 2.4 % in throughput and 2.0 % in power; with one limit left out, the
  pull's strength chosen on the same scores, 5.6 % and 2.5 %. By left-out limit, throughput:
  12.5 % at 100 W (extrapolated below the lowest limit seen), 6.7 % at 150 W, 3.3 % and less from
  250 W up. The sheet's rows at 200 and 300 W were not seen.
- H100 decode: ``lm-arena-chat`` of github.com/ml-energy/leaderboard, commit 0cd52da (benchmark
  v3, Apache-2.0): median ITL and mean power against the batch, no power limit.
- A100 decode at larger batches: github.com/ml-energy/leaderboard-v2, commit c3af7f3 (v2,
  Apache-2.0): the slope of TPOT with the batch for Mixtral 8x7B.

Assumed, not measured: the A100 source does not state its prompts' length; 200 tokens are taken
(a HellaSwag context with four endings), and prefill speed per token scales with that.
Idle draw, 55 W (A100) and 70 W (H100), is a customary figure for a board with a loaded model.
"""

from __future__ import annotations

from pals_grid.core.errors import NotFound
from pals_grid.core.ports import PowerLimitRange
from pals_grid.powermodel.physics import DecodeCost, EngineModel, PowerLaw, PrefillCost

_MS = 1e-3
_PROMPT_TOKENS = 200.0

A100_SXM4 = PowerLaw(
    idle_w=55.0,
    static_w=85.89,
    linear_share=0.4954,
    exponent=7.076,
    min_frequency_ratio=210 / 1410,
    max_clock_mhz=1410.0,
)
_A100_LIMITS = PowerLimitRange(100.0, 400.0, 400.0)

#: Response to a limit EXTRAPOLATED: the A100's curve and its static share of the limit.
H100_SXM5 = PowerLaw(
    idle_w=70.0,
    static_w=147.0,
    linear_share=A100_SXM4.linear_share,
    exponent=A100_SXM4.exponent,
    min_frequency_ratio=345 / 1980,
    max_clock_mhz=1980.0,
)
_H100_LIMITS = PowerLimitRange(200.0, 700.0, 700.0)


def _a100_prefill(fixed_ms: float, cycles_ms: float, dynamic_w: float) -> PrefillCost:
    """Prefill from the fitted milliseconds per prompt of the source."""
    return PrefillCost(
        fixed_s_per_token=fixed_ms * _MS / _PROMPT_TOKENS,
        cycles_s_per_token=cycles_ms * _MS / _PROMPT_TOKENS,
        dynamic_w=dynamic_w,
    )


def _a100_decode(
    steps_ms: tuple[float, float, float, float],
    per_seq_ms: float,
    coverage_per_seq: float,
    dynamic_w: tuple[float, float],
) -> DecodeCost:
    """Decode step: (fixed, weights, fixed cycles, weights cycles) and (base, coverage) watts."""
    fixed, weights, fixed_cycles, weights_cycles = steps_ms
    return DecodeCost(
        fixed_s=fixed * _MS,
        weights_s=weights * _MS,
        fixed_s_cycles=fixed_cycles * _MS,
        weights_s_cycles=weights_cycles * _MS,
        per_seq_s=per_seq_ms * _MS,
        coverage_per_seq=coverage_per_seq,
        dynamic_w=dynamic_w[0],
        dynamic_coverage_w=dynamic_w[1],
    )


MIXTRAL_8X7B_A100 = EngineModel(
    gpu_model="A100-SXM4",
    model="mistralai/Mixtral-8x7B-Instruct-v0.1",
    gpu_count=4,
    limit_range=_A100_LIMITS,
    power=A100_SXM4,
    decode=_a100_decode((2.504, 9.099, 2.758, 5.648), 0.25, 0.4147, (131.4, 59.72)),
    prefill=_a100_prefill(2.277, 5.753, 438),
)
"""Fit 1.9 % throughput, 1.1 % power; left-out limits 6.2 % and 1.2 %.

``per_seq_ms`` is the slope of v2's TPOT from batch 128 to 1005, an older and slower engine: an
upper bound, EXTRAPOLATED to this one. v2's own draw (115-178 W per GPU) is lower than here, as
its GPUs waited for the host.
"""

DEEPSEEK_MOE_16B_A100 = EngineModel(
    gpu_model="A100-SXM4",
    model="deepseek-ai/deepseek-moe-16b-base",
    gpu_count=4,
    limit_range=_A100_LIMITS,
    power=A100_SXM4,
    decode=_a100_decode((1.802, 10.19, 2.072, 2.206), 0.08, 0.2548, (72.06, 24.67)),
    prefill=_a100_prefill(0.3749, 2.037, 271.2),
)
"""Fit 2.7 % throughput and power; left-out limits 5.6 % and 3.5 %.

``per_seq_ms`` EXTRAPOLATED: the slope of Qwen3-30B-A3B on two H100 in v3 (0.07 ms), which have
about the memory bandwidth of four A100.
"""

QWEN15_MOE_A100 = EngineModel(
    gpu_model="A100-SXM4",
    model="Qwen/Qwen1.5-MoE-A2.7B",
    gpu_count=4,
    limit_range=_A100_LIMITS,
    power=A100_SXM4,
    decode=_a100_decode((1.265, 6.276, 1.781, 1.926), 0.08, 0.3615, (76.7, 21.76)),
    prefill=_a100_prefill(0.3793, 1.65, 261.3),
)
"""Fit 2.5 % throughput, 2.7 % power; left-out limits 5.1 % and 3.7 %.

``per_seq_ms`` EXTRAPOLATED as DeepSeek's.
"""

LLAMA_31_70B_H100 = EngineModel(
    gpu_model="H100",
    model="meta-llama/Llama-3.1-70B-Instruct",
    gpu_count=4,
    limit_range=_H100_LIMITS,
    power=H100_SXM5,
    decode=DecodeCost(
        fixed_s=13.7e-3,
        weights_s=0.0,
        fixed_s_cycles=2.4e-3,
        weights_s_cycles=0.0,
        per_seq_s=0.0974e-3,
        coverage_per_seq=0.01049,
        dynamic_w=268.6,
        dynamic_coverage_w=174.4,
    ),
    prefill=PrefillCost(fixed_s_per_token=7.1e-6, cycles_s_per_token=64e-6, dynamic_w=553.0),
)
"""Dense. Decode fitted on v3, batches 8 to 383: median ITL 2.5 %, power 1.3 %.

EXTRAPOLATED: the share of decode that follows the clock (15 %), all of prefill (2 FLOP per
parameter and token at half of 4 x 989 TFLOP/s bf16, drawing 700 W), and the response to a limit.
"""

_ENGINES = (MIXTRAL_8X7B_A100, DEEPSEEK_MOE_16B_A100, QWEN15_MOE_A100, LLAMA_31_70B_H100)


def known_engines() -> tuple[EngineModel, ...]:
    """Every (GPU, model) that has coefficients."""
    return _ENGINES


def engine_model(gpu_model: str, model: str, gpu_count: int) -> EngineModel:
    """Coefficients for ``model`` on ``gpu_count`` GPUs whose driver's name is ``gpu_model``.

    Raises:
        NotFound: when there are none.
    """
    for engine in _ENGINES:
        same = (engine.model, engine.gpu_count) == (model, gpu_count)
        if same and engine.gpu_model in gpu_model:
            return engine
    raise NotFound("power model of", f"{model} on {gpu_count} x {gpu_model}")
