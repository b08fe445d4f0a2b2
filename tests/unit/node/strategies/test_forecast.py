from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.ports import EngineSample
from pals_grid.node.strategies.forecast import QUANTILE_Z, SCARCE_Z, LoadForecast
from tests.unit.node.strategies.world import engine_sample

if TYPE_CHECKING:
    from pals_grid.node.strategies.forecast import Load

TOKENS = 100


class Stream:
    """An engine that serves every request of 100 tokens within the tick of its arrival."""

    def __init__(self, *, adaptive: bool = True) -> None:
        self.forecast = LoadForecast(adaptive=adaptive, margin_ratio=0.25)
        self.finished = 0
        self.load = self.forecast.update(self.sample(), 0.0)

    def sample(self, waiting: int = 0) -> EngineSample:
        tokens = float(self.finished * TOKENS)
        return EngineSample(4, waiting, 5 * tokens, tokens, self.finished, 0, 0, 64)

    def arrive(self, *counts: int) -> list[Load]:
        loads = []
        for count in counts:
            self.finished += count
            loads.append(self.forecast.update(self.sample(), 0.5))
        self.load = loads[-1]
        return loads


def test_the_mean_is_what_arrives_times_the_mean_output() -> None:
    stream = Stream()
    stream.arrive(*[3] * 400)
    assert stream.load.mean_per_s == pytest.approx(6 * TOKENS, rel=0.01)
    assert stream.load.known
    assert stream.forecast.tokens_out_per_request == pytest.approx(TOKENS)
    assert stream.forecast.served_per_s == pytest.approx(6 * TOKENS, rel=0.01)


def test_the_margin_follows_the_variance() -> None:
    def margin(counts: list[int], *, adaptive: bool = True) -> float:
        stream = Stream(adaptive=adaptive)
        stream.arrive(*counts)
        return stream.load.ready_per_s / stream.load.mean_per_s - 1

    draw = random.Random(1)  # no secret
    wild = [draw.choice((0, 0, 0, 12)) for _ in range(800)]
    assert margin([3] * 800) == pytest.approx(0.0, abs=0.02)
    assert margin(wild) > 0.04
    assert margin([3] * 800, adaptive=False) == pytest.approx(0.25)


def test_a_trend_is_followed_ahead() -> None:
    steady, rising = Stream(), Stream()
    ramp = [1 + k // 40 for k in range(240)]
    steady.arrive(*ramp)
    rising.arrive(*ramp)
    ahead = rising.forecast._trend_per_s
    assert ahead > 0
    flat = Stream(adaptive=False)
    flat.arrive(*ramp)
    assert rising.load.mean_per_s > flat.load.mean_per_s


@pytest.mark.parametrize("base", [1, 3, 10])
def test_five_times_the_arrivals_are_a_surge_at_the_first_full_tick(base: int) -> None:
    stream = Stream()
    stream.arrive(*[base] * 200)
    assert not stream.load.surges
    (load,) = stream.arrive(5 * base)
    assert load.surges


def test_a_surge_ends_when_arrivals_fall_back_and_when_the_level_has_learned_them() -> None:
    stream = Stream()
    stream.arrive(*[2] * 200)
    assert all(load.surges for load in stream.arrive(*[10] * 20))
    after = [load.surges for load in stream.arrive(*[2] * 40)]
    assert after[0]
    assert not after[-1]
    lasting = Stream()
    lasting.arrive(*[2] * 200)
    loads = lasting.arrive(*[10] * 600)
    assert loads[60].surges
    assert not loads[-1].surges
    assert loads[-1].mean_per_s == pytest.approx(20 * TOKENS, rel=0.05)


def test_poisson_arrivals_rarely_look_like_a_surge() -> None:
    stream, draw = Stream(), random.Random(3)  # no secret
    rate = 2.0
    surges = 0
    for _ in range(2000):
        count, at = 0, draw.expovariate(rate)
        while at < 1.0:
            count, at = count + 1, at + draw.expovariate(rate)
        surges += stream.arrive(count)[0].surges
    assert surges < 2000 * 0.06


def test_what_may_wait_is_left_out_while_a_plan_grants_its_place() -> None:
    forecast = LoadForecast()
    load = forecast.update(EngineSample(8, 0, 0.0, 0.0, 0, 0, 0, 64, 0, 4), 0.0)
    for k in range(1, 400):
        sample = EngineSample(8, 0, 0.0, 200.0 * k, 2 * k, 0, 0, 64, 0, 4)
        load = forecast.update(sample, 0.5, interactive_only=True)
    assert load.mean_per_s == pytest.approx(200.0, rel=0.02)  # half of 400 tokens/s


def test_a_restarted_engine_is_no_surge() -> None:
    stream = Stream()
    stream.arrive(*[3] * 200)
    stream.finished = 0
    load = stream.forecast.update(stream.sample(), 0.5)
    assert not load.surges
    assert load.mean_per_s == pytest.approx(600.0, rel=0.05)


def test_where_a_budget_would_bind_more_is_kept_free() -> None:
    draw = random.Random(3)
    forecast, finished = LoadForecast(surges=False), 0
    for _ in range(600):
        finished += sum(draw.random() < 0.5 for _ in range(8))
        sample = engine_sample(running=8, tokens=100.0 * finished, finished=finished)
        wide = copy.deepcopy(forecast).update(sample, 0.5)
        scarce = forecast.update(sample, 0.5, scarce=True)
    margin = wide.ready_per_s / wide.mean_per_s - 1
    assert margin > 0
    assert scarce.mean_per_s == wide.mean_per_s
    assert scarce.ready_per_s / scarce.mean_per_s - 1 == pytest.approx(
        margin * SCARCE_Z / QUANTILE_Z
    )
