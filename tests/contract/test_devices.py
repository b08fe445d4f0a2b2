"""One suite over every GPU and engine behind the node's ports: real, simulated, fake, null."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.site import Slo
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.null_engine import NullEngine
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import demo_node

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(params=["simulated", "nvml", "fake"])
def gpu(request: pytest.FixtureRequest, clock: SimClock) -> Gpu:
    if request.param == "simulated":
        return demo_node(clock).gpus[0]
    if request.param == "fake":
        return FakeGpu()
    request.getfixturevalue("shim")
    nvml = pytest.importorskip("pals_grid.node.nvml")
    first: Gpu = nvml.open_gpus()[0]
    return first


@pytest.fixture
def metrics_url() -> Iterator[str]:
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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["simulated", "vllm metrics", "null", "fake"])
def engine(request: pytest.FixtureRequest, clock: SimClock) -> Iterator[Engine]:
    if request.param == "simulated":
        yield demo_node(clock).engine
    elif request.param == "null":
        yield NullEngine()
    elif request.param == "fake":
        yield FakeEngine()
    else:
        scraped = VllmMetricsEngine(request.getfixturevalue("metrics_url"), "m", Slo())
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
