"""From a served group's levels to an engine that a limit or a clock lock can act on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.powermodel.communication import expert_parallel
from pals_grid.powermodel.features import weight_bytes
from pals_grid.powermodel.gpu_kinds import gpu_kind
from pals_grid.powermodel.physics import DecodeCost, DecodeLevel, EngineModel, PrefillCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.fitted import LevelGroup
    from pals_grid.powermodel.gpu_kinds import GpuKind
    from pals_grid.powermodel.physics import ClockResponse

_PREFILL_FULL_TOKENS = 2048.0
_HALVINGS = 30


class ExpertLayers(NamedTuple):
    """What of a mixture's shape decides its traffic; from its published configuration."""

    moe_layers: int
    hidden_size: int
    top_k: int


def engine_from_group(group: LevelGroup) -> EngineModel:
    """Engine of a fitted group.

    MEASURED: step time and draw at the source's stock limit (its decode holds what prefill the
    source's requests brought). EXTRAPOLATED or ASSUMED: everything that follows the clock, and
    prefill (2 FLOP per activated parameter and token at ``compute_ratio`` of the peak).
    """
    kind = gpu_kind(group.gpu_model)
    clock = kind.moe_decode if group.architecture == "MoE" else kind.dense_decode
    levels = [
        _free_level(kind, clock, DecodeLevel(running, step_ms * 1e-3, power_w))
        for running, step_ms, power_w in zip(
            group.running, group.step_ms, group.power_w, strict=True
        )
    ]
    peak = kind.peak_flop_per_s * (2.0 / max(1.0, weight_bytes(group.precision)))
    flop_per_token = 2e9 * group.activated_params_b
    return EngineModel(
        gpu_model=group.gpu_model,
        model=group.model,
        gpu_count=group.gpu_count,
        limit_range=kind.limit_range,
        power=kind.law,
        decode=DecodeCost(decode_levels(levels), clock),
        prefill=PrefillCost(
            token_s=flop_per_token / (group.gpu_count * peak * kind.compute_ratio),
            clock=kind.prefill,
            dynamic_w=kind.prefill_dynamic_w,
            saturation_tokens=_PREFILL_FULL_TOKENS / 2,
        ),
        basis=f"levels measured without a limit; response to a limit {kind.limit_response}",
    )


def across_nodes(engine: EngineModel, nodes: int, experts: ExpertLayers) -> EngineModel:
    """Return the engine with its experts spread over ``nodes`` such groups of GPUs. MODELLED.

    Every node serves its own share of the sequences (data-parallel attention) in the step that
    one node takes, and the links are added. An upper bound of the step: each GPU then reads
    fewer experts' weights, which is left out.
    """
    if nodes == 1:
        return engine
    gpu_count = engine.gpu_count * nodes
    levels = tuple(level._replace(running=level.running * nodes) for level in engine.decode.levels)
    return replace(
        engine,
        gpu_count=gpu_count,
        decode=replace(engine.decode, levels=levels),
        prefill=replace(engine.prefill, token_s=engine.prefill.token_s / nodes),
        communication=expert_parallel(
            nodes,
            gpu_count,
            moe_layers=experts.moe_layers,
            hidden_size=experts.hidden_size,
            top_k=experts.top_k,
        ),
        basis=f"{engine.basis}; {nodes} nodes and their links modelled",
    )


def decode_levels(levels: Sequence[DecodeLevel]) -> tuple[DecodeLevel, ...]:
    """Levels of which a larger batch is never quicker in a step, nor slower in tokens/s."""
    kept = [levels[0]]
    for level in levels[1:]:
        last = kept[-1]
        most_s = last.step_s * level.running / last.running * 0.999
        kept.append(level._replace(step_s=min(max(level.step_s, last.step_s * 1.0001), most_s)))
    return tuple(kept)


def _free_level(kind: GpuKind, clock: ClockResponse, drawn: DecodeLevel) -> DecodeLevel:
    """Level without a limit, of one that was measured at the highest limit.

    ``drawn.dynamic_w`` is the whole draw. Close to the limit the measured step was clipped
    already, so that the free draw is higher and the free step shorter.
    """
    law, limit_w = kind.law, kind.limit_range.max_w

    def held(dynamic_w: float) -> tuple[float, float]:
        engine = _one_level(kind, clock, dynamic_w)
        mix = engine.phase_mix(1.0, limit_w)
        return mix.decode_w, mix.decode_step_s

    low = max(drawn.dynamic_w - law.static_w, 0.05 * law.static_w)
    high = 1.3 * limit_w
    if held(low)[0] < drawn.dynamic_w - 0.5:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if held(middle)[0] < drawn.dynamic_w else (low, middle)
    return DecodeLevel(drawn.running, drawn.step_s / held(low)[1], low)


def _one_level(kind: GpuKind, clock: ClockResponse, dynamic_w: float) -> EngineModel:
    level = DecodeLevel(1.0, 1.0, dynamic_w)
    return EngineModel(
        gpu_model=kind.name,
        model="",
        gpu_count=1,
        limit_range=kind.limit_range,
        power=kind.law,
        decode=DecodeCost((level,), clock),
        prefill=PrefillCost(1.0, clock, dynamic_w),
    )
