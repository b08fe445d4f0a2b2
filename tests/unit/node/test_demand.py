from __future__ import annotations

import math

from pals_grid.core.ports import EngineSample
from pals_grid.node.demand import DemandEstimator


def sample(
    *, running: int = 0, waiting: int = 0, tokens: float = 0.0, finished: int = 0
) -> EngineSample:
    return EngineSample(running, waiting, 0.0, tokens, finished, 0, 0, 64)


def test_steady_arrivals_give_their_tokens_and_the_margin() -> None:
    demand = DemandEstimator(2.0, margin_ratio=0.25)
    target = 0.0
    for i in range(400):  # 2 requests/s of 100 tokens
        target = demand.update(sample(running=5, tokens=i * 100.0, finished=i), 0.5)
    assert math.isclose(target, 200 * 1.25, rel_tol=0.01)
    assert demand.tokens_out_per_s == 200.0


def test_what_may_wait_is_left_out_where_a_plan_grants_it_its_place() -> None:
    """2 requests/s of 100 tokens; every fourth is deferrable, and two of eight running are."""
    demand = DemandEstimator(2.0, margin_ratio=0.25)
    target = 0.0
    for i in range(400):
        seen = EngineSample(8, 0, 0.0, i * 100.0, i, 0, 0, 64, 3, 2 if i % 8 < 4 else 3)
        target = demand.update(seen, 0.5, interactive_only=True)
    assert math.isclose(target, 200 * (1 - 2.5 / 8) * 1.25, rel_tol=0.03)
    assert demand.tokens_out_per_s == 200.0


def test_a_queue_raises_the_target_in_the_same_tick() -> None:
    demand = DemandEstimator(2.0, margin_ratio=0.25)
    for i in range(100):
        before = demand.update(sample(running=5, tokens=i * 100.0, finished=i), 0.5)
    after = demand.update(sample(running=5, waiting=10, tokens=1e4, finished=100), 0.5)
    assert after >= before + 10 * 100 / 2.0


def test_it_falls_slowly() -> None:
    demand = DemandEstimator(2.0)
    for i in range(100):
        demand.update(sample(running=5, tokens=i * 100.0, finished=i), 0.5)
    high = demand.update(sample(running=5, waiting=10, tokens=1e4, finished=100), 0.5)
    next_one = demand.update(sample(running=5, tokens=10_100.0, finished=101), 0.5)
    assert 0.9 * high < next_one < high


def test_a_queue_of_unknown_size_asks_for_everything() -> None:
    assert DemandEstimator(2.0).update(sample(waiting=1), 0.5) == math.inf


def test_everything_is_forgotten_once_sizes_are_known() -> None:
    demand = DemandEstimator(2.0)
    demand.update(sample(waiting=1), 0.5)
    assert math.isfinite(demand.update(sample(tokens=100.0, finished=1), 0.5))


def test_long_requests_that_never_finish_count_by_what_they_get() -> None:
    demand = DemandEstimator(2.0, margin_ratio=0.0)
    for i in range(400):
        target = demand.update(sample(running=4, tokens=i * 50.0), 0.5)
    assert math.isclose(target, 100.0, rel_tol=0.01)


def test_counters_that_start_again_do_no_harm() -> None:
    demand = DemandEstimator(2.0)
    for i in range(100):
        demand.update(sample(running=5, tokens=i * 100.0, finished=i), 0.5)
    target = demand.update(sample(running=0, tokens=10.0, finished=0), 0.5)
    assert 0 <= target < 1e4
