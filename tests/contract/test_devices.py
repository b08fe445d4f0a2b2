"""One suite over every GPU and engine behind the node's ports: real, simulated, fake, null."""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.ports import ClockLock
from pals_grid.core.site import Slo
from pals_grid.node import amd, intel
from pals_grid.node.fake import FakeClockGpu, FakeEngine, FakeGpu
from pals_grid.node.helper.client import HelperClient, write_through
from pals_grid.node.helper.daemon import HelperConfig, run_helper
from pals_grid.node.helper.server import Allowed
from pals_grid.node.null_engine import NullEngine
from pals_grid.node.vllm.batch_control import BatchControl
from pals_grid.node.vllm.channel import RankFile
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import demo_node
from tests.contract.fake_amdsmi import FakeAmdSmi
from tests.contract.nvml_plant import NvmlPlant
from tests.contract.xe_tree import XeTree
from tests.unit.node.vllm.fake_scheduler import FakeScheduler
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pals_grid.core.ports import Engine, Gpu

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 3.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:prompt_tokens_total{model_name="m"} 100.0
vllm:generation_tokens_total{model_name="m"} 50.0
vllm:e2e_request_latency_seconds_count{model_name="m"} 2.0
"""


@pytest.fixture
def clock() -> SimClock:
    return SimClock(START_AT, 100.0)


LOCKABLE = [
    "simulated",
    "nvml",
    "nvml over the plant",
    "fake with a clock lock",
    "through the helper",
]
each_lockable = pytest.mark.parametrize("gpu", LOCKABLE, indirect=True)


@pytest.fixture(params=[*LOCKABLE, "fake", "amd", "amd, older", "intel card", "intel package"])
def gpu(request: pytest.FixtureRequest, clock: SimClock, tmp_path: Path) -> Iterator[Gpu]:
    if request.param == "simulated":
        yield demo_node(clock).gpus[0]
    elif request.param == "fake":
        yield FakeGpu()
    elif request.param == "fake with a clock lock":
        yield FakeClockGpu()
    elif request.param == "through the helper":
        yield request.getfixturevalue("helper_gpu")
    elif request.param.startswith("amd"):
        smi = FakeAmdSmi(demo_node(clock).gpus)
        smi.generation = "mi200" if "older" in request.param else "mi300"
        yield amd.open_gpus(smi, monotonic_s=clock.monotonic_s)[0]
    elif request.param.startswith("intel"):
        tree = XeTree(tmp_path, demo_node(clock).gpus, channel=1 if "card" in request.param else 2)
        yield intel.open_gpus(tree, monotonic_s=clock.monotonic_s, wait=clock.advance)[0]
    else:
        shim = request.getfixturevalue("shim")
        nvml = pytest.importorskip("pals_grid.node.nvml")
        plant = NvmlPlant(shim, demo_node(clock).gpus) if "plant" in request.param else None
        yield nvml.open_gpus()[0]
        del plant  # the library called back into it until now


@pytest.fixture
def helper_gpu(tmp_path: Path) -> Iterator[Gpu]:
    """A fake GPU that a helper in another thread writes."""
    raw, stop = FakeClockGpu(), threading.Event()
    config = HelperConfig(
        Allowed(frozenset({os.getuid()})),
        tmp_path / "state",
        tmp_path / "helper.sock",
        silent_s=PATIENCE_S,
    )
    run = partial(run_helper, config, open_gpus=lambda: [raw], environment={}, stop=stop)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client = HelperClient(config.socket_path, "contract", answer_within_s=PATIENCE_S)

    def takes_writes() -> bool:
        return client.set_power_limit(raw.uuid, 400.0).outcome is not Outcome.REFUSED

    try:
        wait_until(takes_writes)
        yield write_through(raw, client)
    finally:
        client.close()
        stop.set()
        thread.join(PATIENCE_S)


@pytest.fixture
def lock(gpu: Gpu) -> ClockLock:
    assert isinstance(gpu, ClockLock)
    return gpu


@contextmanager
def serve_metrics() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def metrics_url() -> Iterator[str]:
    with serve_metrics() as url:
        yield url


@pytest.fixture(params=["simulated", "vllm channel", "vllm metrics", "null", "fake"])
def engine(request: pytest.FixtureRequest, clock: SimClock) -> Iterator[Engine]:
    if request.param == "vllm channel":
        directory = request.getfixturevalue("tmp_path") / "channel"
        with RankFile.create_rank(directory, 0) as rank:
            BatchControl(rank).announce(FakeScheduler(limit=64))
            channel = VllmChannelEngine(directory, "m", Slo())
            yield channel
            channel.close()
    elif request.param == "simulated":
        yield demo_node(clock).engine
    elif request.param == "null":
        yield NullEngine()
    elif request.param == "fake":
        yield FakeEngine()
    else:
        url = request.getfixturevalue("metrics_url")
        scraped = VllmMetricsEngine(url, "m", Slo(), timeout_s=PATIENCE_S, monotonic_s=lambda: 0.0)
        scraped.refresh()
        yield scraped
        scraped.close()


def test_a_gpu_describes_itself_the_same_each_time(gpu: Gpu) -> None:
    limits = gpu.limit_range
    assert gpu.uuid == gpu.uuid != ""
    assert gpu.model != ""
    assert 0 < limits.min_w <= limits.default_w <= limits.max_w


def test_a_gpu_reads_in_watts_and_joules_and_its_counter_never_falls(
    gpu: Gpu, clock: SimClock
) -> None:
    first = gpu.observe()
    clock.advance(5.0)
    second = gpu.observe()
    for sample in (first, second):
        assert 0 <= sample.power_draw_w <= gpu.limit_range.max_w * 1.2
        assert gpu.limit_range.min_w <= sample.power_limit_w <= gpu.limit_range.max_w
    assert second.energy_j >= first.energy_j


def test_a_limit_inside_the_range_is_applied_and_read_back(gpu: Gpu) -> None:
    wanted_w = math.floor((gpu.limit_range.min_w + gpu.limit_range.max_w) / 2)
    result = gpu.apply_power_limit(wanted_w)
    assert (result.outcome, result.requested) == (Outcome.APPLIED, wanted_w)
    assert result.read_back == pytest.approx(wanted_w, abs=0.5)
    assert gpu.observe().power_limit_w == pytest.approx(wanted_w, abs=0.5)


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_limit_outside_the_range_is_clamped(gpu: Gpu, end: str) -> None:
    bound_w = gpu.limit_range.min_w if end == "low" else gpu.limit_range.max_w
    gpu.apply_power_limit((gpu.limit_range.min_w + gpu.limit_range.max_w) / 2)
    result = gpu.apply_power_limit(bound_w / 2 if end == "low" else bound_w * 2)
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, bound_w)
    assert gpu.observe().power_limit_w == bound_w


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_limit_that_is_no_number_is_refused_and_changes_nothing(
    gpu: Gpu, nonsense: float
) -> None:
    before_w = gpu.observe().power_limit_w
    assert gpu.apply_power_limit(nonsense).outcome is Outcome.REFUSED
    assert gpu.observe().power_limit_w == before_w


def test_a_gpu_may_lack_the_lock() -> None:
    assert not isinstance(FakeGpu(), ClockLock)


@each_lockable
def test_a_clock_inside_the_range_is_held_and_read_back(
    gpu: Gpu, lock: ClockLock, clock: SimClock
) -> None:
    bounds = lock.clock_range
    assert 0 < bounds.min_mhz < bounds.max_mhz
    wanted_mhz = math.floor((bounds.min_mhz + bounds.max_mhz) / 2)
    result = lock.apply_clock_limit(wanted_mhz)
    assert (result.outcome, result.requested) == (Outcome.APPLIED, wanted_mhz)
    assert result.read_back == pytest.approx(wanted_mhz, abs=15.0)
    clock.advance(1.0)
    found_mhz = gpu.observe().sm_clock_mhz
    assert found_mhz is not None
    assert found_mhz <= wanted_mhz + 0.5


@each_lockable
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_clock_outside_the_range_is_clamped(lock: ClockLock, end: str) -> None:
    bounds = lock.clock_range
    bound_mhz = bounds.min_mhz if end == "low" else bounds.max_mhz
    result = lock.apply_clock_limit(bound_mhz / 2 if end == "low" else bound_mhz * 2)
    if result.outcome is Outcome.PARTIAL:  # the driver took it, the clock did not follow yet
        assert result.detail
    else:
        assert (result.outcome, result.read_back) == (Outcome.CLAMPED, bound_mhz)


@each_lockable
@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_clock_that_is_no_number_is_refused(lock: ClockLock, nonsense: float) -> None:
    assert lock.apply_clock_limit(nonsense).outcome is Outcome.REFUSED


@each_lockable
def test_a_released_clock_answers_with_its_highest(lock: ClockLock) -> None:
    highest_mhz = lock.clock_range.max_mhz
    lock.apply_clock_limit(lock.clock_range.min_mhz)
    for _ in range(2):  # released twice is no error
        result = lock.apply_clock_limit(None)
        assert (result.outcome, result.requested) == (Outcome.APPLIED, highest_mhz)
        assert result.read_back == highest_mhz


@each_lockable
def test_a_power_limit_leaves_a_clock_lock_as_it_is(gpu: Gpu, lock: ClockLock) -> None:
    wanted_mhz = lock.clock_range.min_mhz * 2
    lock.apply_clock_limit(wanted_mhz)
    gpu.apply_power_limit(gpu.limit_range.max_w)
    assert (gpu.observe().sm_clock_mhz or 0.0) <= wanted_mhz


def test_an_engine_counts_and_its_counters_never_fall(engine: Engine, clock: SimClock) -> None:
    first = engine.observe()
    clock.advance(30.0)
    second = engine.observe()
    assert engine.model != ""
    for name in (
        "tokens_in_total",
        "tokens_out_total",
        "requests_finished_total",
        "ttft_misses_total",
        "itl_misses_total",
    ):
        assert getattr(second, name) >= getattr(first, name) >= 0
    assert min(second.requests_running, second.requests_waiting) >= 0


def test_a_batch_size_is_applied_and_read_back_or_refused_with_a_reason(engine: Engine) -> None:
    before = engine.observe().max_num_seqs
    result = engine.apply_max_num_seqs(8)
    assert result.requested == 8
    if result.outcome is Outcome.REFUSED:
        assert result.detail
        assert engine.observe().max_num_seqs == before
    else:
        assert result.outcome is Outcome.APPLIED
        assert result.read_back == engine.observe().max_num_seqs == 8
