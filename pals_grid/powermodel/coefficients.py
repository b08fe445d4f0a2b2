"""Engines of the plant: (GPU, model) with coefficients, and what each rests on.

Sources, all third-party measurements; only fitted figures ship (``data/engines.json``):

- ``moe_summary_tp4`` (github.com/mrhankendi/AI_LLM, commit 96d22f4): 4 GPUs, tensor parallelism
  4, power limits of 100 to 400 W, synchronous batches of 1 to 64 short prompts with 5 output
  tokens, power by NVML. Five MoE models. The A100's power law and clock shares come from here.
- ML.ENERGY's third benchmark (github.com/ml-energy/leaderboard, commit 0cd52da, Apache-2.0):
  H100 and B200, median ITL and mean power against the batch, no power limit.

Assumed, not measured: the A100 source does not state its prompts' length; 200 tokens are taken
(a HellaSwag context with four endings), and prefill speed per token scales with that. Idle draw,
55 W (A100) and 70 W (H100), is a customary figure for a board with a loaded model.
``docs/plant.md`` has the errors, in the sample and held out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import NotFound
from pals_grid.powermodel.fitted import packaged_fit
from pals_grid.powermodel.gpu_kinds import A100_SXM4, B200, H100_SXM5, a100_law, gpu_kind
from pals_grid.powermodel.physics import (
    ClockResponse,
    DecodeCost,
    DecodeLevel,
    EngineModel,
    PrefillCost,
)
from pals_grid.powermodel.served_engine import (
    ExpertLayers,
    across_nodes,
    decode_levels,
    engine_from_group,
)

if TYPE_CHECKING:
    from pals_grid.powermodel.fitted import FittedEngine, FittedPlant, LevelGroup

__all__ = [
    "A100_SXM4",
    "B200",
    "CLOCK_LOCK_ENGINES",
    "EXPERT_PARALLEL_ENGINES",
    "H100_SXM5",
    "PAPER_ENGINES",
    "PROMPT_TOKENS",
    "a100_engine",
    "engine_model",
    "known_engines",
]

PROMPT_TOKENS = 200.0

#: Sheet name: (model, seconds that a further sequence adds to a step above batch 64). The slopes
#: are EXTRAPOLATED: of Qwen3-30B-A3B on two H100 (0.07 ms; about the memory bandwidth of four
#: A100) for the small ones, of v2's TPOT (an older, slower engine) for Mixtral.
_A100_MODELS = {
    "deepseek": ("deepseek-ai/deepseek-moe-16b-base", 0.08e-3),
    "microsoft": ("microsoft/Phi-3.5-MoE-instruct", 0.16e-3),
    "mixtral": ("mistralai/Mixtral-8x7B-Instruct-v0.1", 0.25e-3),
    "olmoe": ("allenai/OLMoE-1B-7B-0924", 0.06e-3),
    "qwen": ("Qwen/Qwen1.5-MoE-A2.7B", 0.08e-3),
}
_BEYOND = (128.0, 256.0, 512.0)


def a100_engine(fitted: FittedEngine, fit: FittedPlant | None = None) -> EngineModel:
    """Engine of one model of the A100 table, on 4 GPUs; MEASURED up to batch 64.

    ``fit`` gives the power law, by default the packaged one.
    """
    shared = (packaged_fit() if fit is None else fit).a100
    model, per_seq_s = _A100_MODELS.get(fitted.sheet_name, (fitted.sheet_name, 0.1e-3))
    kind = gpu_kind("A100")
    levels = [
        DecodeLevel(running, step_ms * 1e-3, dynamic_w)
        for running, step_ms, dynamic_w in zip(
            fitted.running, fitted.step_ms, fitted.dynamic_w, strict=True
        )
    ]
    last = levels[-1]
    levels += [
        DecodeLevel(n, last.step_s + per_seq_s * (n - last.running), last.dynamic_w)
        for n in _BEYOND
        if n > last.running
    ]
    return EngineModel(
        gpu_model="A100-SXM4",
        model=model,
        gpu_count=4,
        limit_range=kind.limit_range,
        power=a100_law(shared),
        decode=DecodeCost(decode_levels(levels), ClockResponse(fitted.decode_cycles_share)),
        prefill=PrefillCost(
            token_s=fitted.prompt_ms * 1e-3 / PROMPT_TOKENS,
            clock=ClockResponse(fitted.prefill_cycles_share),
            dynamic_w=fitted.prompt_dynamic_w,
            saturation_tokens=shared.saturation_tokens,
        ),
        basis="measured, limits and batches to 64"
        if len(fitted.limits_w) > 1
        else "measured at 400 W; response to a limit predicted from the other models",
    )


_LAUNCH_S = 4e-3
"""Part of a dense decode step on four A100 that does not shrink with more GPUs: launches and two
all-reduces a layer. The smallest step of the A100 table is 4.3 ms (OLMoE at batch 1)."""


def _dense_a100(model: str) -> EngineModel:
    """MODELLED: a dense model on 4 x A100, scaled from its measured H100 levels.

    A step is ``_LAUNCH_S`` and the rest by aggregate memory bandwidth; the draw above static is
    the H100's share of its limit. No measurement of these models on four A100 under today's
    engine is public: v2's rows are from an engine whose GPUs waited for the host.
    """
    group = _group("H100", model)
    here, there = gpu_kind("A100"), gpu_kind("H100")
    bandwidth = here.memory_bytes_per_s * 4 / (there.memory_bytes_per_s * group.gpu_count)
    limits = here.limit_range.max_w / there.limit_range.max_w
    levels = [
        DecodeLevel(
            running=running,
            step_s=_LAUNCH_S + max(step_ms * 1e-3 - _LAUNCH_S, 0.1 * step_ms * 1e-3) / bandwidth,
            dynamic_w=max(power_w - there.law.static_w, 20.0) * limits,
        )
        for running, step_ms, power_w in zip(
            group.running, group.step_ms, group.power_w, strict=True
        )
    ]
    return EngineModel(
        gpu_model="A100-SXM4",
        model=model,
        gpu_count=4,
        limit_range=here.limit_range,
        power=here.law,
        decode=DecodeCost(decode_levels(levels), here.dense_decode),
        prefill=PrefillCost(
            token_s=2e9
            * group.activated_params_b
            / (4 * here.peak_flop_per_s * here.compute_ratio),
            clock=here.prefill,
            dynamic_w=here.prefill_dynamic_w,
            saturation_tokens=packaged_fit().a100.saturation_tokens,
        ),
        basis="modelled: H100 levels scaled to four A100",
    )


def _group(gpu_model: str, model: str, gpu_count: int | None = None) -> LevelGroup:
    """Return the fitted group of a model, chat before other tasks."""
    found = [
        group
        for group in packaged_fit().groups
        if group.source == "mlenergy_v3"
        and group.gpu_model in gpu_model
        and group.model == model
        and gpu_count in (None, group.gpu_count)
    ]
    if not found:
        count = "" if gpu_count is None else f"{gpu_count} x "
        raise NotFound("power model of", f"{model} on {count}{gpu_model}")
    return max(found, key=lambda group: (group.task == "lm-arena-chat", group.rows))


PAPER_ENGINES = (
    *(a100_engine(fitted) for fitted in packaged_fit().engines),
    _dense_a100("meta-llama/Llama-3.1-8B-Instruct"),
    _dense_a100("Qwen/Qwen3-32B"),
    _dense_a100("meta-llama/Llama-3.1-70B-Instruct"),
)
"""The paper's setting: five MoE models (measured table) and three dense ones (modelled), 4 x A100.

The paper does not name its dense models in what is public; these three span its sizes.
"""

CLOCK_LOCK_ENGINES = tuple(
    engine_from_group(_group(gpu, model, count))
    for gpu, model, count in (
        ("H100", "Qwen/Qwen3-30B-A3B-Instruct-2507", 2),
        ("H100", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", 8),
        ("B200", "Qwen/Qwen3-30B-A3B-Instruct-2507", 1),
        ("B200", "Qwen/Qwen3-235B-A22B-Instruct-2507", 8),
    )
)
"""MoE decode on H100 and B200: levels MEASURED without a limit, response to a limit or a clock
lock EXTRAPOLATED (``gpu_kinds``)."""

EXPERT_PARALLEL_ENGINES = (
    across_nodes(
        engine_from_group(_group("H100", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", 8)),
        2,
        ExpertLayers(moe_layers=94, hidden_size=4096, top_k=8),
    ),
)
"""A mixture over two nodes of eight H100; MODELLED, links between nodes ASSUMED."""

_ENGINES = (
    *PAPER_ENGINES,
    *CLOCK_LOCK_ENGINES,
    *EXPERT_PARALLEL_ENGINES,
    engine_from_group(_group("H100", "meta-llama/Llama-3.1-70B-Instruct", 4)),
)


def known_engines() -> tuple[EngineModel, ...]:
    """Engines that are named here; ``engine_model`` knows every fitted group besides."""
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
    return engine_from_group(_group(gpu_model, model, gpu_count))
