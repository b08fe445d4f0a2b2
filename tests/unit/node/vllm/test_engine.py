from __future__ import annotations

import math
import threading
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceLost, InvalidValue
from pals_grid.core.ports import EngineSample
from pals_grid.core.site import Slo
from pals_grid.node.real import open_engine
from pals_grid.node.vllm.channel import FrontFile, RankFile, hold_agent_lock
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.node.vllm.latency import TTFT, bin_of
from pals_grid.node.vllm.layout import (
    BINS,
    BatchMode,
    LatencyTotals,
    StepTelemetry,
)
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from tests.unit.node.conftest import StepClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pals_grid.node.vllm.layout import (
        Control,
    )

IDLE = StepTelemetry(
    at_s=0.0,
    generation=0,
    max_num_seqs=16,
    own_max_num_seqs=16,
    steps_total=0,
    running=0,
    parked=0,
    waiting=0,
    prefill_tokens=0,
    decode_tokens=0,
    prompt_tokens_waiting=0.0,
    tokens_in_total=0,
    tokens_out_total=0,
    finished_total=0,
    preemptions_total=0,
    kv_usage_ratio=0.0,
    step_s=0.02,
    busy_s_total=0.0,
    longest_park_s=0.0,
    lapses_total=0,
    errors_total=0,
    expert_imbalance=-1.0,
)

SCRAPED = EngineSample(
    3, 1, 1000.0, 2000.0, 50, 5, 6, None, ttft_p99_s=0.7, itl_p99_s=0.07, prefills_total=50,
    prefill_s_total=9.0,
)  # fmt: skip


class Scraped:
    """The same server's /metrics."""

    model = "m"

    def __init__(self) -> None:
        self.sample: EngineSample | None = SCRAPED

    def observe(self) -> EngineSample:
        if self.sample is None:
            raise DeviceLost("silent")
        return self.sample

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        raise AssertionError(max_num_seqs)


class PassingClock(StepClock):
    """50 ms later at each look."""

    def monotonic_s(self) -> float:
        self.step(0.05)
        return super().monotonic_s()


class Server:
    """vLLM's side: a scheduler per rank that can answer while it is busy."""

    def __init__(self, directory: Path, clock: StepClock, ranks: int = 1) -> None:
        self.clock = clock
        self.files = [RankFile.create_rank(directory, rank) for rank in range(ranks)]
        self.told = [IDLE] * ranks
        self.stop = threading.Event()
        for rank in range(ranks):
            self.tell(rank)

    def tell(self, rank: int = 0, **fields: Any) -> None:  # noqa: ANN401 - of StepTelemetry
        self.told[rank] = self.told[rank]._replace(at_s=self.clock.monotonic_s(), **fields)
        self.files[rank].telemetry.write(self.told[rank])

    def control(self, rank: int = 0) -> Control | None:
        return self.files[rank].control.read()

    def serve(self) -> threading.Thread:
        """Step every few ms until ``stop``."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        return thread

    def _serve(self) -> None:
        while not self.stop.wait(0.005):
            for rank in range(len(self.files)):
                control = self.control(rank)
                if control is not None:
                    size = min(control.max_num_seqs or 16, 16)
                    self.tell(rank, generation=control.generation, max_num_seqs=size)

    def close(self) -> None:
        for file in self.files:
            file.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "channel"


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def server(directory: Path, clock: StepClock) -> Iterator[Server]:
    server = Server(directory, clock)
    yield server
    server.close()


@pytest.fixture
def engine(directory: Path, clock: StepClock) -> Iterator[VllmChannelEngine]:
    engine = VllmChannelEngine(
        directory, "m", Slo(), mode=BatchMode.PARK, monotonic_s=clock.monotonic_s
    )
    yield engine
    engine.close()


def test_without_a_scheduler_the_engine_is_lost_and_says_what_to_do(
    engine: VllmChannelEngine, directory: Path
) -> None:
    with pytest.raises(DeviceLost, match=str(directory)):
        engine.observe()
    result = engine.apply_max_num_seqs(4)
    assert result.outcome is Outcome.REFUSED
    assert "--scheduler-cls" in result.detail


def test_an_idle_engine_takes_a_target_for_its_next_step(
    engine: VllmChannelEngine, server: Server, clock: StepClock
) -> None:
    assert engine.observe().max_num_seqs == 16
    assert engine.apply_max_num_seqs(4) == ActuationResult(Outcome.APPLIED, 4, 4.0)
    control = server.control()
    assert control is not None
    assert (control.max_num_seqs, control.mode) == (4, BatchMode.PARK)
    assert control.deadline_s == clock.seconds + 3.0
    assert engine.observe().max_num_seqs == 4


def test_a_busy_engine_answers_with_what_it_follows(
    engine: VllmChannelEngine, server: Server
) -> None:
    server.tell(running=8)
    thread = server.serve()  # however late it is: the engine's time stands still
    try:
        assert engine.apply_max_num_seqs(4) == ActuationResult(Outcome.APPLIED, 4, 4.0)
    finally:
        server.stop.set()
        thread.join()
    assert engine.observe().max_num_seqs == 4


def test_a_busy_engine_that_does_not_answer_in_time_has_partly_done_it(
    directory: Path, server: Server
) -> None:
    server.tell(running=8)
    engine = VllmChannelEngine(directory, "m", Slo(), monotonic_s=PassingClock().monotonic_s)
    result = engine.apply_max_num_seqs(4)
    assert (result.outcome, result.detail) == (Outcome.PARTIAL, "no answer yet from rank-0")
    assert engine.observe().max_num_seqs == 16
    engine.close()


@pytest.mark.parametrize("nonsense", [0, -3, 2**40, math.nan, math.inf])
def test_what_is_no_batch_size_is_refused(
    engine: VllmChannelEngine, server: Server, nonsense: int
) -> None:
    result = engine.apply_max_num_seqs(nonsense)
    assert result.outcome is Outcome.REFUSED
    assert str(nonsense) in result.detail
    assert server.control() is None


def test_more_than_vllms_own_limit_is_clamped(engine: VllmChannelEngine, server: Server) -> None:
    assert server.told[0].own_max_num_seqs == 16
    result = engine.apply_max_num_seqs(64)
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, 16.0)
    assert "1 to 16" in result.detail


def test_each_look_renews_the_lease_and_nothing_is_written_without_a_target(
    engine: VllmChannelEngine, server: Server, clock: StepClock
) -> None:
    engine.observe()
    assert server.control() is None
    engine.apply_max_num_seqs(4)
    before = server.control()
    clock.step(0.5)
    engine.observe()
    after = server.control()
    assert before is not None
    assert after is not None
    assert after.deadline_s == before.deadline_s + 0.5
    assert after.generation == before.generation


def test_released_vllm_has_its_own_limit_at_once_and_another_agent_may_write(
    engine: VllmChannelEngine, server: Server, directory: Path
) -> None:
    engine.apply_max_num_seqs(4)
    engine.release()
    control = server.control()
    assert control is not None
    assert control.max_num_seqs == 0
    with hold_agent_lock(directory):
        result = engine.apply_max_num_seqs(4)
    assert (result.outcome, "another agent" in result.detail) == (Outcome.REFUSED, True)


def test_a_server_that_starts_again_gets_its_target_and_counts_on(
    engine: VllmChannelEngine, server: Server, directory: Path, clock: StepClock
) -> None:
    engine.observe()
    server.tell(tokens_out_total=100, finished_total=2)
    assert engine.observe().tokens_out_total == 100
    engine.apply_max_num_seqs(4)
    server.close()
    with pytest.raises(DeviceLost):
        engine.observe()
    again = Server(directory, clock)
    again.tell(tokens_out_total=7)
    assert engine.observe().tokens_out_total == 100
    again.tell(tokens_out_total=9)
    assert engine.observe().tokens_out_total == 102
    control = again.control()
    assert control is not None
    assert control.max_num_seqs == 4
    again.close()


def test_ranks_share_a_target_and_add_up(directory: Path) -> None:
    clock = PassingClock()
    server = Server(directory, clock, 3)
    engine = VllmChannelEngine(directory, "m", Slo(), monotonic_s=clock.monotonic_s)
    engine.observe()
    assert engine.apply_max_num_seqs(8) == ActuationResult(Outcome.APPLIED, 8, 8.0)
    shares = [control.max_num_seqs for r in range(3) if (control := server.control(r)) is not None]
    assert shares == [3, 3, 2]
    for rank in range(3):
        server.tell(rank, running=2, parked=1, waiting=4, tokens_out_total=10, max_num_seqs=3)
    sample = engine.observe()
    assert (sample.requests_running, sample.requests_waiting) == (6, 15)
    assert (sample.tokens_out_total, sample.max_num_seqs) == (30, 9)
    result = engine.apply_max_num_seqs(2)  # each rank needs one
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, 3.0)
    engine.close()
    server.close()


def test_a_long_silence_means_idle_not_lost(
    engine: VllmChannelEngine, server: Server, clock: StepClock
) -> None:
    server.tell(running=5, waiting=9)
    assert engine.observe().requests_running == 5
    clock.step(6.0)
    sample = engine.observe()
    assert (sample.requests_running, sample.requests_waiting) == (0, 0)


def test_prompt_tokens_are_unknown_where_a_rank_does_not_tell(
    engine: VllmChannelEngine, server: Server
) -> None:
    server.tell(prompt_tokens_waiting=40.0)
    assert engine.observe().prompt_tokens_waiting == 40.0
    server.tell(prompt_tokens_waiting=-1.0)
    assert engine.observe().prompt_tokens_waiting is None


def test_latencies_come_from_the_stat_logger_else_from_metrics_else_are_unknown(
    directory: Path, server: Server
) -> None:
    assert server.told
    bare = VllmChannelEngine(directory, "m", Slo())
    assert (bare.observe().ttft_p99_s, bare.observe().prefills_total) == (None, None)
    scraped = Scraped()
    engine = VllmChannelEngine(directory, "m", Slo(), metrics=scraped)
    sample = engine.observe()
    assert (sample.ttft_p99_s, sample.itl_p99_s, sample.ttft_misses_total) == (0.7, 0.07, 0)
    scraped.sample = replace(SCRAPED, ttft_misses_total=8)
    assert engine.observe().ttft_misses_total == 3
    with FrontFile.create_front(directory, 0) as front:
        for count in (1, 3):
            bins = array("Q", bytes(3 * BINS * 8))
            bins[TTFT + bin_of(4.0)] = count
            front.latency.write(LatencyTotals(0.0, count, count * 0.5, bins.tobytes()))
            sample = engine.observe()
    assert sample.ttft_misses_total == 3 + 2
    assert sample.ttft_p99_s == pytest.approx(4.0, rel=0.12)
    assert sample.prefill_s_total == 1.0
    engine.close()
    bare.close()


def test_without_a_channel_metrics_stand_in_for_all_but_the_batch(
    directory: Path, clock: StepClock
) -> None:
    scraped = Scraped()
    engine = VllmChannelEngine(directory, "m", Slo(), metrics=scraped)
    assert engine.observe().requests_running == 3
    scraped.sample = replace(SCRAPED, tokens_out_total=2100.0)
    sample = engine.observe()
    assert (sample.tokens_out_total, sample.max_num_seqs) == (100.0, None)
    assert engine.apply_max_num_seqs(4).outcome is Outcome.REFUSED
    server = Server(directory, clock)
    server.tell(tokens_out_total=5000)
    assert engine.observe().tokens_out_total == 100.0
    server.close()
    scraped.sample = None
    with pytest.raises(DeviceLost, match="channel"):
        engine.observe()


def test_the_agents_settings_choose_the_engine(directory: Path) -> None:
    engine = open_engine(None, "m", Slo(), directory, "preempt")
    assert isinstance(engine, VllmChannelEngine)
    both = open_engine("http://127.0.0.1:9", "m", Slo(), directory)
    assert isinstance(both, VllmChannelEngine)
    assert isinstance(open_engine("http://127.0.0.1:9", "m", Slo(), None), VllmMetricsEngine)
    with pytest.raises(InvalidValue, match="drain, park, preempt"):
        open_engine(None, "m", Slo(), directory, "fast")
