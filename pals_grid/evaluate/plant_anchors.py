"""Published figures as sanity gates: what the plant says in the same situation.

They are quotes (``literature_anchors.csv`` of the sources), mostly of other models, engines and
mixes of phases, so that a gate can show a mistake but cannot prove the plant right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.plant_errors import Gate
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.gpu_kinds import B200, gpu_kind

if TYPE_CHECKING:
    from pals_grid.powermodel.physics import EngineModel

_CODER_480B = "Qwen/Qwen3-Coder-480B-A35B-Instruct"
_RUNNING = 64.0
_EXTRAPOLATED = "extrapolated"


def anchor_gates() -> list[Gate]:
    """Every gate; needs no data."""
    coder = engine_model("B200", _CODER_480B, 8)
    dense = engine_model("B200", "meta-llama/Llama-3.1-70B-Instruct", 2)
    h100 = engine_model("H100", "Qwen/Qwen3-30B-A3B-Instruct-2507", 2)
    llama = engine_model("A100-SXM4", "meta-llama/Llama-3.1-70B-Instruct", 4)
    return [
        *_calibrated_limit(coder),
        _gain("B200 MoE, best limit alone", coder, 26.0),
        _gain("B200 dense, best limit alone", dense, 5.7),
        *_clock_lock(h100),
        *_lower_limit(llama),
        Gate(
            "B200 idle board", "note 60954797867", "R1", "W", 187.0, 204.0, B200.idle_w, "assumed"
        ),
        _prefill_clock(),
        _max_q(coder),
    ]


def _rate_and_draw(
    engine: EngineModel, limit_w: float, clock_mhz: float | None = None
) -> tuple[float, float]:
    """Decode of ``_RUNNING`` sequences: tokens/s and watts per GPU."""
    mix = engine.phase_mix(_RUNNING, limit_w, sm_clock_mhz=clock_mhz)
    return _RUNNING / mix.decode_step_s, mix.decode_w


def _calibrated_limit(engine: EngineModel) -> list[Gate]:
    top_w = engine.limit_range.max_w
    rate, draw_w = _rate_and_draw(engine, top_w)
    held_rate, held_w = _rate_and_draw(engine, 0.85 * draw_w)
    source = "Xenoscube, calibrated decode limit, Qwen3-Coder-480B"
    return [
        Gate(
            "B200 MoE decode, limit at 85 % of natural draw: tokens/s",
            source, "R1", "%", -12.0, -8.0, 100 * (held_rate / rate - 1), _EXTRAPOLATED,
        ),
        Gate(
            "B200 MoE decode, limit at 85 % of natural draw: power",
            source, "R1", "%", -20.0, -16.0, 100 * (held_w / draw_w - 1), _EXTRAPOLATED,
        ),
    ]  # fmt: skip


def _gain(name: str, engine: EngineModel, published: float) -> Gate:
    """Best tokens/J of decode over all limits; published figures are of a whole mix."""
    top_w = engine.limit_range.max_w
    rate, draw_w = _rate_and_draw(engine, top_w)
    best = 0.0
    for step in range(1, 71):
        held_rate, held_w = _rate_and_draw(engine, top_w * (1 - step / 100))
        best = max(best, held_rate / held_w / (rate / draw_w) - 1)
    return Gate(
        f"{name}: tokens/J", "Xenoscube, appendix A; bounds +-30 %", "R1", "%",
        0.7 * published, 1.3 * published, 100 * best, _EXTRAPOLATED,
    )  # fmt: skip


def _clock_lock(engine: EngineModel) -> list[Gate]:
    top_w = engine.limit_range.max_w
    rate, draw_w = _rate_and_draw(engine, top_w)
    knee_rate, _ = _rate_and_draw(engine, top_w, 1590.0)
    savings = []
    for clock_mhz in range(600, 1980, 15):
        held_rate, held_w = _rate_and_draw(engine, top_w, float(clock_mhz))
        savings.append(1 - held_w / held_rate * rate / draw_w)
    source = "Ma et al. arXiv 2605.11999 (H200; here an H100 engine)"
    return [
        Gate(
            "H100 MoE decode locked to 1590 MHz: tokens/s",
            source, "R2", "%", -2.0, 0.5, 100 * (knee_rate / rate - 1), _EXTRAPOLATED,
        ),
        Gate(
            "H100 MoE decode, best clock lock: energy saved",
            source, "R1", "%", 0.0, 32.0, 100 * max(savings), _EXTRAPOLATED,
        ),
    ]  # fmt: skip


def _lower_limit(engine: EngineModel) -> list[Gate]:
    rate, draw_w = _rate_and_draw(engine, 250.0)
    held_rate, held_w = _rate_and_draw(engine, 175.0)
    source = "Samsi et al. arXiv 2310.03003, LLaMA-65B (bounds: half to one and a half)"
    energy = held_w / held_rate / (draw_w / rate) - 1
    return [
        Gate(
            "A100 dense decode, 250 to 175 W: energy",
            source, "R2", "%", -34.5, -11.5, 100 * energy, "modelled",
        ),
        Gate(
            "A100 dense decode, 250 to 175 W: latency",
            source, "R2", "%", 3.35, 10.05, 100 * (rate / held_rate - 1), "modelled",
        ),
    ]  # fmt: skip


def _prefill_clock() -> Gate:
    kind = gpu_kind("B200")
    ratio = kind.law.frequency_ratio(1000.0, kind.prefill_dynamic_w)
    return Gate(
        "B200 prefill at 1000 W: SM clock, no lower than a matrix product's",
        "note 60954797867 (bf16 8192^3: 1072-1222 MHz)", "R1", "MHz", 1072.0, 1965.0,
        ratio * kind.law.max_clock_mhz, "assumed",
    )  # fmt: skip


def _max_q(engine: EngineModel) -> Gate:
    """Most energy that decode saves at 97 % of its speed, by limit or clock lock."""
    top_w = engine.limit_range.max_w
    rate, draw_w = _rate_and_draw(engine, top_w)
    best = 0.0
    for clock_mhz in range(600, 1965, 15):
        held_rate, held_w = _rate_and_draw(engine, top_w, float(clock_mhz))
        if held_rate >= 0.97 * rate:
            best = max(best, 1 - held_w / held_rate * rate / draw_w)
    return Gate(
        "B200 MoE decode at 97 % of its speed: energy saved", "NVIDIA power profiles (HPC and AI)",
        "R1", "%", 0.0, 15.0, 100 * best, _EXTRAPOLATED,
    )  # fmt: skip
