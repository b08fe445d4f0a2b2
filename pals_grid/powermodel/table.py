"""The frontier table of an engine: its operating points when it is saturated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.saturated import Workload, steady_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.physics import EngineModel

LIMIT_STEP_W = 25.0
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def build_frontier_table(  # noqa: PLR0913 - the engine, the workload and three axes
    gpu_model: str,
    model: str,
    gpu_count: int,
    input_per_output: float,
    *,
    output_tokens: float = 211.0,
    power_limits_w: Sequence[float] | None = None,
    max_num_seqs: Sequence[int] = BATCHES,
    sm_clocks_mhz: Sequence[float | None] = (None,),
) -> FrontierTable:
    """Model every (power limit, clock lock, batch) for a workload of one mean request.

    ``input_per_output`` is prompt tokens per output token; ``output_tokens`` the mean answer
    (211 in the Azure 2023 conversation trace). Limits are per GPU and default to the device's
    range in steps of 25 W. ``sm_clocks_mhz`` are the highest SM clocks; None leaves it free.

    Raises:
        NotFound: when the engine has no coefficients.
        InvalidValue: when the workload is impossible.
    """
    if not 0 <= input_per_output <= 1e5:
        raise InvalidValue("input_per_output", input_per_output, "must be from 0 to 1e5")
    if not 1 <= output_tokens <= 1e6:
        raise InvalidValue("output_tokens", output_tokens, "must be from 1 to 1e6")
    engine = engine_model(gpu_model, model, gpu_count)
    limits_w = _default_limits_w(engine) if power_limits_w is None else power_limits_w
    return FrontierTable(
        gpu_model=gpu_model,
        gpu_count=gpu_count,
        model=model,
        input_per_output=input_per_output,
        origin=Origin.MODELLED,
        points=tuple(
            operating_point(
                engine,
                limit_w,
                batch,
                input_per_output * output_tokens,
                output_tokens,
                sm_clock_mhz=clock_mhz,
            )
            for limit_w in limits_w
            for clock_mhz in sm_clocks_mhz
            for batch in max_num_seqs
        ),
    )


def operating_point(
    engine: EngineModel,
    power_limit_w: float,
    max_num_seqs: int,
    tokens_in: float,
    tokens_out: float,
    *,
    sm_clock_mhz: float | None = None,
) -> OperatingPoint:
    """Steady state with always ``max_num_seqs`` requests of one mean inside, see ``saturated``.

    ``ttft_s`` counts from admission; waiting for a place in the batch is the queue's, not the
    engine's.
    """
    state = steady_state(
        engine, power_limit_w, Workload(max_num_seqs, tokens_in, tokens_out), sm_clock_mhz
    )
    return OperatingPoint(
        power_limit_w=power_limit_w,
        max_num_seqs=max_num_seqs,
        tokens_per_s=state.tokens_per_s,
        gpu_power_w=engine.gpu_count * state.gpu_w,
        ttft_s=state.ttft_s,
        itl_s=state.itl_s,
        sm_clock_mhz=sm_clock_mhz,
    )


def synchronous_round(
    engine: EngineModel, power_limit_w: float, batch: float, tokens_in: float, tokens_out: float
) -> tuple[float, float]:
    """(Output tokens/s of the engine, watts per GPU) of batches that start and end together.

    How the A100 table was measured: all prompts of a batch first, then ``tokens_out`` steps.
    """
    mix = engine.phase_mix(batch, power_limit_w, chunk_tokens=batch * tokens_in)
    prefill_s = batch * tokens_in * mix.prefill_token_s
    decode_s = tokens_out * mix.decode_step_s
    seconds = prefill_s + decode_s
    draw_w = (prefill_s * mix.prefill_w + decode_s * mix.decode_w) / seconds
    return tokens_out * batch / seconds, draw_w


def _default_limits_w(engine: EngineModel) -> list[float]:
    """Limits over the device's range; its highest is always among them."""
    low_w, high_w = engine.limit_range.min_w, engine.limit_range.max_w
    steps = round((high_w - low_w) / LIMIT_STEP_W)
    return [low_w + (high_w - low_w) * i / steps for i in range(steps + 1)]
