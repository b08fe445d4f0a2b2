"""A real vLLM server under the real agent. The GPU's power is SIMULATED from real telemetry."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.site import Slo
from pals_grid.node.vllm.engine import VllmChannelEngine
from tests.vllm.agent_process import power_w
from tests.vllm.harness import CLIENTS, Agent, Load, Stall, Watch
from tests.vllm.server import MAX_NUM_SEQS, MODEL, Server, make_requests
from tests.vllm.tiny_model import write_moe
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vllm.server import Request

BATCHES = (16, 4, 10, 2)
MARGIN_W = 5.0
RUNS = 3
START_S = 10.0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory: a busy disk can hold up an agent, which waits for its writes, for a minute."""
    with tempfile.TemporaryDirectory(prefix="pals-grid-", dir="/dev/shm") as name:
        folder = Path(name)
        write_moe(folder / "model")
        yield folder


@pytest.fixture(scope="module")
def wanted() -> list[Request]:
    return make_requests(90, seed=11)


@pytest.fixture(scope="module")
def uncontrolled(folder: Path, wanted: list[Request]) -> list[str]:
    """What vLLM answers by itself, without our scheduler."""
    server = Server(folder / "model", folder / "none", folder / "plain.log", controlled=False)
    try:
        server.start()
        return server.complete_all(wanted, MAX_NUM_SEQS)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(folder: Path, uncontrolled: list[str]) -> Iterator[Server]:
    assert uncontrolled  # one server at a time
    server = Server(folder / "model", folder / "channel", folder / "server.log")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def engine(server: Server) -> Iterator[VllmChannelEngine]:
    engine = VllmChannelEngine(server.channel, MODEL, Slo(ttft_s=0.001, itl_s=0.001))
    yield engine
    engine.close()


def running(engine: VllmChannelEngine) -> int:
    return engine.telemetry()["rank-0"].running


@pytest.mark.parametrize(("mode", "hold_s", "settle_s"), [
    ("park", 6.0, 2.0),
    ("preempt", 6.0, 2.0),
    ("drain", 12.0, 9.0),
])  # fmt: skip
def test_the_batch_follows_the_budget_and_no_answer_changes(  # noqa: PLR0917
    server: Server,
    engine: VllmChannelEngine,
    folder: Path,
    wanted: list[Request],
    uncontrolled: list[str],
    mode: str,
    hold_s: float,
    settle_s: float,
) -> None:
    before = engine.telemetry()["rank-0"]
    answers = 0
    seen: dict[int, list[int]] = {}
    for _ in range(RUNS):  # a budget in whose time the machine stood still tells nothing
        parked_s = engine.telemetry()["rank-0"].longest_park_s
        watts = [(hold_s, power_w(batch) + MARGIN_W) for batch in BATCHES]
        budgets = [(START_S, power_w(MAX_NUM_SEQS) + MARGIN_W), *watts]
        with Load(server, wanted, uncontrolled) as load:
            wait_until(lambda: running(engine) == MAX_NUM_SEQS, server.tail)
            with Agent(folder, server.channel, budgets, mode) as agent:
                wait_until(agent.has_begun, agent.last_words)
                with Watch(server.channel) as watch:
                    end_s = agent.begun_s + START_S + hold_s * len(BATCHES)
                    time.sleep(max(0.0, end_s - time.monotonic()))
                assert agent.stop() == 0, agent.text()
            answers += load.stop()
        last = engine.telemetry()["rank-0"]
        assert last.errors_total == 0
        stalls = [*watch.stalls(), *agent.stalls()]
        print(f"{mode}: stood still for {[round(s.end_s - s.begin_s, 1) for s in stalls]} s")
        if not stalls:
            assert last.longest_park_s <= max(2.0, parked_s)
        for index, batch in enumerate(BATCHES):
            begin_s = agent.begun_s + START_S + index * hold_s
            unseen = Stall(begin_s, watch.begun_s)
            if not any(one.touches(begin_s, begin_s + hold_s) for one in (unseen, *stalls)):
                steps = watch.between(begin_s + settle_s, begin_s + hold_s - 0.3)
                seen[batch] = [step.running for step in steps]
        if len(seen) == len(BATCHES):
            break
    for batch, running_then in seen.items():
        print(f"{mode}: budget for {batch}, running {statistics.mean(running_then):.2f}")
        assert max(running_then) == batch
        # A seat whose request has just ended is empty until the next step.
        assert statistics.mean(running_then) > 0.7 * batch
    print(f"{mode}: {answers} answers right; longest park so far {last.longest_park_s:.2f} s")
    assert (last.preemptions_total > before.preemptions_total) == (mode == "preempt")
    assert answers >= CLIENTS
    if len(seen) < len(BATCHES):
        pytest.skip(f"this machine stood still in each of {RUNS} runs; seen were {sorted(seen)}")


def test_vllms_own_bench_client_sees_no_failure(server: Server, folder: Path) -> None:
    budgets = [(3.0, power_w(batch) + MARGIN_W) for batch in (12, 3, 16) * 12]
    # fmt: off
    command = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve",
        "--backend", "openai", "--base-url", server.url, "--endpoint", "/v1/completions",
        "--model", MODEL, "--tokenizer", str(server.model), "--dataset-name", "random",
        "--random-input-len", "32", "--random-output-len", "64", "--num-prompts", "80",
        "--request-rate", "inf", "--max-concurrency", "24", "--ignore-eos",
        "--percentile-metrics", "ttft,itl", "--save-result",
        "--result-dir", str(folder), "--result-filename", "bench.json",
    ]
    # fmt: on
    with Agent(folder, server.channel, budgets, "park") as agent:
        done = subprocess.run(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert agent.stop() == 0, agent.text()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((folder / "bench.json").read_text())
    keys = ("completed", "output_throughput", "median_ttft_ms", "median_itl_ms", "p99_itl_ms")
    print({key: found.get(key) for key in keys})
    assert found["completed"] == 80
    assert found.get("failed", 0) == 0
    assert found["total_output_tokens"] == 80 * 64


def test_latencies_and_tokens_are_those_of_the_requests(
    server: Server, engine: VllmChannelEngine, wanted: list[Request]
) -> None:
    before = engine.observe()
    asked = wanted[:8]
    begun_s = time.monotonic()
    server.complete_all(asked, 8)
    took_s = time.monotonic() - begun_s

    sample = before

    def is_counted() -> bool:  # the front end tells of a request once it has answered it
        nonlocal sample
        sample = engine.observe()
        return sample.itl_misses_total - before.itl_misses_total >= 8

    wait_until(is_counted, lambda: f"eight requests counted: {sample}")
    assert sample.requests_finished_total - before.requests_finished_total == 8
    tokens = sum(request.tokens for request in asked)
    assert sample.tokens_out_total - before.tokens_out_total == tokens
    words = sum(len(request.prompt.split()) for request in asked)
    assert sample.tokens_in_total - before.tokens_in_total == words
    assert sample.ttft_p99_s is not None
    assert 0.001 < sample.ttft_p99_s < 2 * took_s
    assert sample.itl_p99_s is not None
    assert 0.001 < sample.itl_p99_s < took_s
    assert sample.ttft_misses_total - before.ttft_misses_total == 8  # the objective is 1 ms
    assert sample.itl_misses_total - before.itl_misses_total == 8


def test_without_its_agent_vllm_is_back_at_its_own_limit_within_5_s(
    server: Server,
    engine: VllmChannelEngine,
    folder: Path,
    wanted: list[Request],
    uncontrolled: list[str],
) -> None:
    def is_full() -> bool:
        return running(engine) == MAX_NUM_SEQS

    def is_held() -> bool:
        told = engine.telemetry()["rank-0"]
        return told.generation > 0 and told.running <= MAX_NUM_SEQS // 2

    budgets = [(1200.0, power_w(4) + MARGIN_W)]
    with Load(server, wanted, uncontrolled) as load:
        wait_until(is_full, server.tail)
        with Agent(folder, server.channel, budgets, "park") as agent:
            wait_until(is_held, lambda: f"{engine.telemetry()}\n{agent.last_words()}")
            lapses = engine.telemetry()["rank-0"].lapses_total
            agent.process.kill()
            took_s = wait_until(is_full, within_s=5)
        print(f"vLLM is back at its own limit {took_s:.2f} s after kill -9 of the agent")
        told = engine.telemetry()["rank-0"]
        assert told.generation == 0
        assert told.lapses_total > lapses
        load.stop()


def test_the_agent_survives_vllms_crash_and_sees_it_return(
    server: Server,
    engine: VllmChannelEngine,
    folder: Path,
    wanted: list[Request],
    uncontrolled: list[str],
) -> None:
    def asked_for_six() -> bool:  # an idle engine is asked for less
        server.complete_all(wanted[:CLIENTS], CLIENTS)
        return engine.telemetry()["rank-0"].max_num_seqs == 6

    budgets = [(1200.0, power_w(6) + MARGIN_W)]
    with Agent(folder, server.channel, budgets, "preempt") as agent:
        wait_until(asked_for_six, agent.last_words)
        server.kill()
        took_s = wait_until(lambda: "vllm is left out" in agent.text(), agent.text, within_s=20)
        print(f"the agent saw vLLM's end after {took_s:.2f} s")
        assert not engine.telemetry()
        server.start()
        took_s = wait_until(lambda: "vllm answers again" in agent.text(), agent.text, within_s=20)
        assert server.complete_all(wanted[:24], CLIENTS) == uncontrolled[:24]
        wait_until(asked_for_six, agent.last_words)
        assert engine.telemetry()["rank-0"].errors_total == 0
        assert agent.process.poll() is None
        assert agent.stop() == 0, agent.text()
