from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import Slo
from pals_grid.sim.arrivals import Request, saturating
from pals_grid.sim.engine import SimEngine
from pals_grid.sim.histogram import latency_bin
from pals_grid.sim.work import Draw, Phases

if TYPE_CHECKING:
    from pals_grid.sim.engine import RequestRecord

#: 1000 prompt tokens and 20 steps a second, each beside the other.
PHASES = Phases(
    prefill_token_s=0.001,
    decode_step_s=0.05,
    decode_bin=latency_bin(0.05),
    clock_mhz=1000.0,
    prefill=Draw(100.0, 200.0, 100.0, 200.0),
    decode=Draw(100.0, 100.0, 100.0, 100.0),
)


class _AnyBatch(dict[tuple[int, int], Phases]):
    """Steps take the same time whatever the batch."""

    def __missing__(self, key: tuple[int, int]) -> Phases:
        return PHASES


_ANY_BATCH = _AnyBatch()


class _Bench:
    """An engine at constant rates."""

    def __init__(self, max_num_seqs: int = 2, slo: Slo | None = None) -> None:
        self.now_s = 0.0
        self.engine = SimEngine("m", slo or Slo(), max_num_seqs, lambda: self.now_s)

    def submit(self, *requests: Request) -> None:
        for request in requests:
            self.engine.submit(request)

    def run(self, seconds: float) -> None:
        self.engine.run(self.now_s, self.now_s + seconds, _ANY_BATCH)
        self.now_s += seconds


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


def test_each_request_leaves_a_record_of_its_life() -> None:
    records: list[RequestRecord] = []
    bench = _Bench()
    bench.engine = SimEngine("m", Slo(), 1, lambda: bench.now_s, record=records.append)
    bench.submit(Request(0.0, 500, 11), Request(0.0, 100, 1, deferrable=True))
    bench.run(5.0)
    assert [tuple(record[4:]) for record in records] == [(500, 11, False), (100, 1, True)]
    assert records[0][:4] == pytest.approx((0.0, 0.0, 0.5, 1.0))
    assert records[1][:4] == pytest.approx((0.0, 1.0, 1.1, 1.1))


def test_tokens_beside_a_chunk_wait_for_the_chunk_and_the_step() -> None:
    bench = _Bench()
    bench.submit(Request(0.0, 100, 1000))
    bench.run(10.1)
    assert bench.engine.itl_histogram.share_above(0.06) == pytest.approx(0.0)
    bench.submit(Request(10.1, 400, 1))
    before = bench.engine.observe().tokens_out_total
    bench.run(0.4501)  # 400 tokens at 1 ms and one step of 50 ms
    assert bench.engine.observe().tokens_out_total - before == pytest.approx(2.0, abs=0.01)
    histogram = bench.engine.itl_histogram
    assert histogram.share_above(0.40) * histogram.total == pytest.approx(1.0, rel=1e-6)
    assert histogram.quantile(0.9999) == pytest.approx(0.45, rel=0.1)


def test_short_prompts_share_a_chunk_and_a_long_one_takes_several() -> None:
    bench = _Bench(max_num_seqs=8)
    bench.submit(*(Request(0.0, 200, 1) for _ in range(4)))
    bench.run(0.79)
    assert bench.engine.observe().requests_finished_total == 0
    bench.run(0.02)
    assert bench.engine.observe().requests_finished_total == 4
    bench.submit(Request(bench.now_s, 5000, 1))
    bench.run(2.1)
    assert bench.engine.observe().tokens_in_total == pytest.approx(800 + 2100, abs=11)
    bench.run(2.95)
    assert bench.engine.observe().requests_finished_total == 5


def test_the_sample_tells_prompts_in_wait_and_late_latencies() -> None:
    bench = _Bench(max_num_seqs=1)
    fresh = bench.engine.observe()
    assert (fresh.prompt_tokens_waiting, fresh.ttft_p99_s, fresh.itl_p99_s) == (0, None, None)
    bench.submit(Request(0.0, 1000, 41), Request(0.0, 300, 41))
    bench.run(0.4)
    assert bench.engine.observe().prompt_tokens_waiting == pytest.approx(900.0)
    bench.run(2.6)
    sample = bench.engine.observe()
    assert sample.prompt_tokens_waiting == pytest.approx(300.0)
    assert sample.ttft_p99_s == pytest.approx(1.0, rel=0.03)
    assert sample.itl_p99_s == pytest.approx(0.05, rel=0.1)


def test_a_closed_loop_keeps_the_queue_filled_and_no_fuller() -> None:
    bench = _Bench()
    bench.engine = SimEngine(
        "m", Slo(), 8, lambda: bench.now_s, arrivals=saturating(100, 11, seed=2, waiting=3)
    )
    for _ in range(50):
        bench.run(0.37)
        sample = bench.engine.observe()
        assert (sample.requests_running, sample.requests_waiting) in [(8, 3), (8, 2)]
    assert sample.requests_finished_total > 100
