from __future__ import annotations

import math

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import Slo
from pals_grid.sim.arrivals import Request
from pals_grid.sim.engine import Rates, SimEngine

RATES = Rates(prefill_tokens_per_s=1000.0, decode_tokens_per_s=20.0)


class _Bench:
    """An engine at constant rates."""

    def __init__(self, max_num_seqs: int = 2, slo: Slo | None = None) -> None:
        self.now_s = 0.0
        self.engine = SimEngine("m", slo or Slo(), max_num_seqs, lambda: self.now_s)

    def submit(self, *requests: Request) -> None:
        for request in requests:
            self.engine.submit(request)

    def run(self, seconds: float, rates: Rates = RATES) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            step_s = min(end_s - self.now_s, self.engine.next_event_s(rates))
            self.engine.progress(step_s, rates)
            self.now_s = end_s if step_s >= end_s - self.now_s else self.now_s + step_s
            self.engine.settle(self.now_s)


def test_a_request_takes_its_prefill_then_its_tokens() -> None:
    bench = _Bench()
    bench.submit(Request(0.0, 500, 11))
    bench.run(0.49)
    assert bench.engine.observe().tokens_out_total == 0
    bench.run(0.02)
    assert bench.engine.observe().tokens_out_total == pytest.approx(1.2)
    bench.run(0.5)
    sample = bench.engine.observe()
    assert sample.requests_finished_total == 1
    assert sample.tokens_out_total == pytest.approx(11)
    assert sample.tokens_in_total == pytest.approx(500)
    assert (sample.ttft_misses_total, sample.itl_misses_total) == (0, 0)


def test_interactive_requests_go_first_and_others_keep_their_order() -> None:
    bench = _Bench(max_num_seqs=1)
    bench.submit(
        Request(0.0, 100, 1),
        Request(0.0, 10_000, 1, deferrable=True),
        Request(0.0, 100, 1),
        Request(0.0, 100, 1),
    )
    bench.run(0.31)
    sample = bench.engine.observe()
    assert sample.requests_finished_total == 3
    assert sample.tokens_in_total < 350


def test_a_smaller_batch_drains_and_drops_nothing() -> None:
    bench = _Bench(max_num_seqs=8)
    bench.submit(*(Request(0.0, 10, 201) for _ in range(8)))
    bench.run(1.0)
    result = bench.engine.apply_max_num_seqs(2)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 2)
    assert bench.engine.observe().requests_running == 8
    bench.submit(*(Request(1.0, 10, 201) for _ in range(4)))
    assert bench.engine.observe().requests_waiting == 4
    bench.run(9.5)
    sample = bench.engine.observe()
    assert (sample.requests_running, sample.requests_waiting) == (2, 2)
    bench.run(30.0)
    assert bench.engine.observe().requests_finished_total == 12


def test_a_larger_batch_lets_waiting_requests_in_at_once() -> None:
    bench = _Bench(max_num_seqs=8)
    bench.engine.apply_max_num_seqs(1)
    bench.submit(*(Request(0.0, 10, 201) for _ in range(4)))
    assert bench.engine.observe().requests_waiting == 3
    bench.engine.apply_max_num_seqs(8)
    assert bench.engine.observe().requests_waiting == 0


@pytest.mark.parametrize(("asked", "held"), [(0, 1), (-3, 1), (99, 8)])
def test_a_batch_outside_the_range_is_clamped(asked: int, held: int) -> None:
    bench = _Bench(max_num_seqs=8)
    result = bench.engine.apply_max_num_seqs(asked)
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, held)
    assert bench.engine.observe().max_num_seqs == held


def test_late_first_tokens_and_slow_tokens_are_misses() -> None:
    bench = _Bench(max_num_seqs=1, slo=Slo(ttft_s=0.2, itl_s=0.04))
    bench.submit(Request(0.0, 300, 3), Request(0.0, 300, 3, deferrable=True))
    bench.run(5.0)
    sample = bench.engine.observe()
    assert sample.requests_finished_total == 2
    assert sample.ttft_misses_total == 1
    assert sample.itl_misses_total == 2


def test_without_work_there_is_no_event() -> None:
    assert _Bench().engine.next_event_s(RATES) == math.inf


def test_an_engine_without_room_is_refused() -> None:
    with pytest.raises(InvalidValue, match="max_num_seqs"):
        _Bench(max_num_seqs=0)


def test_deferrable_requests_wait_for_a_slot_of_theirs() -> None:
    bench = _Bench(max_num_seqs=8)
    bench.engine.apply_deferrable_seqs(0)
    bench.submit(*(Request(0.0, 10, 21, deferrable=True) for _ in range(4)), Request(0.0, 10, 21))
    bench.run(1.0)
    sample = bench.engine.observe()
    assert (sample.requests_running, sample.requests_running_deferrable) == (1, 0)
    assert (sample.requests_waiting, sample.requests_deferred) == (0, 4)
    bench.engine.apply_deferrable_seqs(3)
    sample = bench.engine.observe()
    assert (sample.requests_running_deferrable, sample.requests_deferred) == (3, 1)
    bench.run(10.0)
    sample = bench.engine.observe()
    assert sample.requests_finished_total == 5
    assert (sample.requests_running_deferrable, sample.requests_deferred) == (0, 0)


def test_a_deferrable_request_waits_no_longer_than_its_deferral() -> None:
    bench = _Bench()
    bench.engine = SimEngine("m", Slo(), 2, lambda: bench.now_s, deferral_s=60.0)
    bench.engine.apply_deferrable_seqs(0)
    bench.submit(Request(0.0, 10, 1, deferrable=True))
    bench.now_s = 59.0
    bench.engine.apply_deferrable_seqs(0)
    assert bench.engine.observe().requests_deferred == 1
    bench.now_s = 60.0
    bench.engine.apply_deferrable_seqs(0)
    bench.run(1.0)
    assert bench.engine.observe().requests_finished_total == 1
