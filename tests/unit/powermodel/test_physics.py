from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid.powermodel.coefficients import (
    A100_SXM4,
    CLOCK_LOCK_ENGINES,
    EXPERT_PARALLEL_ENGINES,
    PAPER_ENGINES,
    engine_model,
    known_engines,
)
from pals_grid.powermodel.communication import INTER_NODE, expert_parallel
from pals_grid.powermodel.physics import (
    ClockResponse,
    DecodeCost,
    DecodeLevel,
    EngineModel,
    PowerLaw,
    PrefillCost,
)

if TYPE_CHECKING:
    from pals_grid.powermodel.physics import EngineModel

engines = st.sampled_from(known_engines())


def _limits(engine: EngineModel) -> st.SearchStrategy[float]:
    return st.floats(engine.limit_range.min_w, engine.limit_range.max_w)


@given(st.data(), engines, st.integers(0, 256), st.floats(0.95, 1.05))
def test_draw_never_exceeds_the_limit(
    data: st.DataObject, engine: EngineModel, running: int, die: float
) -> None:
    limit_w = data.draw(_limits(engine))
    mix = engine.phase_mix(running, limit_w, die)
    assert mix.prefill_w <= limit_w
    assert mix.decode_w <= limit_w
    assert engine.power.min_frequency_ratio <= mix.frequency_ratio <= 1
    assert 0 < mix.prefill_share <= 1


@given(st.data(), engines, st.integers(1, 256))
def test_a_lower_limit_is_never_faster_nor_draws_more(
    data: st.DataObject, engine: EngineModel, running: int
) -> None:
    low_w, high_w = sorted((data.draw(_limits(engine)), data.draw(_limits(engine))))
    low, high = engine.phase_mix(running, low_w), engine.phase_mix(running, high_w)
    assert low.decode_step_s >= high.decode_step_s
    assert low.prefill_token_s >= high.prefill_token_s
    assert low.decode_w <= high.decode_w + 1e-9
    assert low.prefill_w <= high.prefill_w + 1e-9


@given(st.floats(100.0, 400.0), st.floats(20.0, 400.0))
def test_the_clock_is_the_inverse_of_the_power(limit_w: float, dynamic_w: float) -> None:
    frequency = A100_SXM4.frequency_ratio(limit_w, dynamic_w)
    draw_w = A100_SXM4.static_w + dynamic_w * A100_SXM4.dynamic_ratio(frequency)
    if 2.5 * A100_SXM4.min_frequency_ratio < frequency < 1:
        assert draw_w == pytest.approx(limit_w, rel=0.003)
    elif frequency == 1:
        assert draw_w <= limit_w + 1e-9


@given(st.data(), engines, st.integers(1, 256))
def test_a_lower_clock_lock_is_never_faster_nor_draws_more(
    data: st.DataObject, engine: EngineModel, running: int
) -> None:
    limit_w = data.draw(_limits(engine))
    top_mhz = engine.power.max_clock_mhz
    slow, fast = sorted(data.draw(st.tuples(*[st.floats(200.0, top_mhz)] * 2)))
    low = engine.phase_mix(running, limit_w, sm_clock_mhz=slow)
    high = engine.phase_mix(running, limit_w, sm_clock_mhz=fast)
    assert low.decode_step_s >= high.decode_step_s - 1e-12
    assert low.decode_w <= high.decode_w + 1e-6
    assert low.frequency_ratio <= slow / top_mhz + 1e-9 or slow < top_mhz * 0.2


def test_a_limit_above_the_natural_draw_changes_nothing() -> None:
    engine = engine_model("NVIDIA A100-SXM4-80GB", "deepseek-ai/deepseek-moe-16b-base", 4)
    assert engine.phase_mix(1, 399.0).decode_w == engine.phase_mix(1, 300.0).decode_w
    assert engine.phase_mix(1, 399.0).decode_step_s == engine.phase_mix(1, 300.0).decode_step_s


def test_the_lowest_limit_is_a_cliff() -> None:
    engine = engine_model("NVIDIA A100-SXM4-40GB", "mistralai/Mixtral-8x7B-Instruct-v0.1", 4)
    step_s = [engine.phase_mix(64, w).prefill_token_s for w in (100.0, 150.0, 200.0, 400.0)]
    assert step_s[0] / step_s[1] > 1.5 > step_s[1] / step_s[2] * 0.9
    assert step_s[0] / step_s[3] > 3


def test_decode_of_a_larger_batch_takes_longer_but_gives_more() -> None:
    for engine in known_engines():
        limit_w = engine.limit_range.max_w
        steps = [engine.phase_mix(n, limit_w).decode_step_s for n in (1, 8, 64, 256)]
        rates = [n / s for n, s in zip((1, 8, 64, 256), steps, strict=True)]
        assert steps == sorted(steps)
        assert rates == sorted(rates)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(NotFound, match="some/model on 4 x NVIDIA A100-SXM4-80GB"):
        engine_model("NVIDIA A100-SXM4-80GB", "some/model", 4)
    with pytest.raises(NotFound, match="on 2 x"):
        engine_model("NVIDIA A100-SXM4-80GB", "Qwen/Qwen1.5-MoE-A2.7B", 2)


def _engine(law: PowerLaw, clock: ClockResponse) -> EngineModel:
    base = PAPER_ENGINES[0]
    return dataclasses.replace(
        base,
        power=law,
        decode=DecodeCost((DecodeLevel(1, 10e-3, 200.0), DecodeLevel(64, 20e-3, 200.0)), clock),
        prefill=PrefillCost(10e-6, clock, 300.0),
    )


def test_a_step_whose_draw_varies_feels_a_limit_just_above_its_mean() -> None:
    even = PowerLaw(50.0, 80.0, 0.6, 10.0, 0.15, 1410.0)
    uneven = dataclasses.replace(even, spread_ratio=0.25)
    clock = ClockResponse(0.5)
    assert _engine(even, clock).phase_mix(8, 290.0).frequency_ratio == 1.0
    clipped = _engine(uneven, clock).phase_mix(8, 290.0)
    assert clipped.frequency_ratio < 1.0
    assert clipped.decode_w < 280.0
    assert _engine(uneven, clock).phase_mix(8, 400.0).decode_w == pytest.approx(280.0)


def test_memory_hides_the_clock_above_the_knee() -> None:
    response = ClockResponse(0.05, 0.9, 0.8)
    assert response.time_ratio(1.0) == 1.0
    assert response.time_ratio(0.8) == pytest.approx(1 + 0.05 * 0.25)
    assert response.time_ratio(0.5) == pytest.approx(1 + 0.05 + 0.9 * 0.75)


def test_at_the_lowest_limit_the_clock_rests_at_its_floor() -> None:
    law = A100_SXM4
    assert law.min_frequency_ratio * law.max_clock_mhz == pytest.approx(210, abs=3)
    assert law.frequency_ratio(100.0, 400.0) == pytest.approx(law.min_frequency_ratio, rel=0.02)
    assert law.frequency_ratio(50.0, 400.0) == pytest.approx(law.min_frequency_ratio)


def test_one_level_of_decode_is_flat_and_beyond_the_levels_the_slope_goes_on() -> None:
    lone = DecodeCost((DecodeLevel(8, 10e-3, 200.0),), ClockResponse(0.5))
    assert lone.at(1) == lone.at(8) == pytest.approx((10e-3, 200.0))
    two = DecodeCost((DecodeLevel(8, 10e-3, 200.0), DecodeLevel(32, 20e-3, 300.0)), lone.clock)
    assert two.at(16)[0] == pytest.approx(math.sqrt(2) * 10e-3)
    assert two.at(128) == pytest.approx((40e-3, 300.0))
    assert two.at(2) == pytest.approx((5e-3, 200.0))


def test_a_small_chunk_of_prompt_draws_as_decode_does() -> None:
    engine = PAPER_ENGINES[0]
    small = engine.phase_mix(64, 400.0, chunk_tokens=1.0)
    full = engine.phase_mix(64, 400.0)
    assert small.prefill_w == pytest.approx(small.decode_w, rel=0.01)
    assert full.prefill_w > small.prefill_w


def test_experts_across_nodes_wait_for_links_that_no_clock_shortens() -> None:
    link = expert_parallel(2, 16, moe_layers=94, hidden_size=4096, top_k=8)
    assert link is not None
    near = CLOCK_LOCK_ENGINES[1]
    far = dataclasses.replace(near, communication=link)
    for clock_mhz in (None, 900.0):
        alone = near.phase_mix(64, 700.0, sm_clock_mhz=clock_mhz)
        apart = far.phase_mix(64, 700.0, sm_clock_mhz=clock_mhz)
        assert apart.decode_step_s - alone.decode_step_s == pytest.approx(link.step_s(64))
        assert apart.decode_w < alone.decode_w
        assert apart.prefill_token_s - alone.prefill_token_s == pytest.approx(link.prompt_token_s)
    latency_s = 2 * 94 * INTER_NODE.latency_s
    assert link.step_s(0) == pytest.approx(latency_s)
    assert link.token_s == pytest.approx(2 * 94 * 4096 * 2 / 16 / INTER_NODE.bytes_per_s)


def test_experts_on_one_node_have_no_such_links() -> None:
    assert expert_parallel(1, 8, moe_layers=94, hidden_size=4096, top_k=8) is None
    with pytest.raises(InvalidValue, match="nodes"):
        expert_parallel(9, 8, moe_layers=94, hidden_size=4096, top_k=8)
    with pytest.raises(InvalidValue, match="top_k"):
        expert_parallel(2, 8, moe_layers=94, hidden_size=4096, top_k=0)


def test_the_papers_setting_is_five_mixtures_and_three_dense_models_on_four_a100() -> None:
    assert len({engine.model for engine in PAPER_ENGINES}) == 8
    assert {(engine.gpu_model, engine.gpu_count) for engine in PAPER_ENGINES} == {("A100-SXM4", 4)}
    assert sum(engine.basis.startswith("measured") for engine in PAPER_ENGINES) == 5


def test_clock_lock_engines_say_that_their_response_is_extrapolated() -> None:
    assert {engine.gpu_model for engine in CLOCK_LOCK_ENGINES} == {"H100", "B200"}
    assert all("extrapolated" in engine.basis for engine in CLOCK_LOCK_ENGINES)


def test_every_fitted_group_is_an_engine() -> None:
    engine = engine_model("NVIDIA B200", "meta-llama/Llama-3.1-70B-Instruct", 2)
    assert engine.gpu_model == "B200"
    assert engine.phase_mix(32, 1000.0).decode_w == pytest.approx(868, rel=0.03)


def test_two_nodes_give_less_than_twice_the_tokens_of_one() -> None:
    (two,) = EXPERT_PARALLEL_ENGINES
    one = engine_model("NVIDIA H100 80GB HBM3", two.model, 8)
    assert two.gpu_count == 16
    assert engine_model("NVIDIA H100 80GB HBM3", two.model, 16) is two
    alone, both = one.phase_mix(64, 700.0), two.phase_mix(128, 700.0)
    assert alone.decode_step_s < both.decode_step_s < 1.5 * alone.decode_step_s
    assert both.decode_w < alone.decode_w
    assert "links modelled" in two.basis
