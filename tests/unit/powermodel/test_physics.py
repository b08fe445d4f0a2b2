from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import NotFound
from pals_grid.powermodel.coefficients import A100_SXM4, engine_model, known_engines

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
    if A100_SXM4.min_frequency_ratio < frequency < 1:
        assert draw_w == pytest.approx(limit_w, abs=0.05)
    elif frequency == 1:
        assert draw_w <= limit_w + 1e-9


def test_a_limit_above_the_natural_draw_changes_nothing() -> None:
    engine = engine_model("NVIDIA A100-SXM4-80GB", "deepseek-ai/deepseek-moe-16b-base", 4)
    assert engine.phase_mix(32, 399.0) == engine.phase_mix(32, 360.0)


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
