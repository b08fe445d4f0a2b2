"""One vLLM version's schedulers under random targets, against the tokens that the model gives.

vLLM's own scheduler, without ours, is held to the same tokens first.

``python -m tests.vllm.scheduler_run CHANGES SEED`` prints one line of JSON with what was
seen; an assertion, of ours or of vLLM's, ends it. The interpreter's path decides the version.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from pals_grid.node.vllm.channel import DIRECTORY_VARIABLE, RankFile
from pals_grid.node.vllm.layout import BatchMode, Control
from tests.vllm.fake_engine import (
    BLOCK,
    VOCABULARY,
    FakeEngine,
    Requests,
    expected,
    make_scheduler,
)

STEP_S = 0.02
LEASE_S = 3.0
SEQS = 16
PALS = "pals_grid.node.vllm.PalsScheduler"
VLLM = "vllm.v1.core.sched.async_scheduler.AsyncScheduler"


class Bench:
    """A scheduler, its channel, its clock, and the requests that it was given."""

    def __init__(
        self,
        folder: Path,
        *,
        cls: str,
        caching: bool,
        depth: int,
        blocks: int = 400,
        asynchronous: bool | None = None,
    ) -> None:
        os.environ[DIRECTORY_VARIABLE] = str(folder / "channel")
        self.scheduler = make_scheduler(
            folder,
            max_num_seqs=SEQS,
            blocks=blocks,
            caching=caching,
            asynchronous=depth > 1 if asynchronous is None else asynchronous,
            cls=cls,
        )
        self.blocks = blocks
        self.engine = FakeEngine(self.scheduler, depth)
        self.requests = Requests(caching)
        self.given: dict[str, tuple[list[int], int]] = {}
        self.aborted: set[str] = set()
        self.now_s = 1000.0
        self.generation = 0
        self.channel: RankFile | None = None
        if cls == PALS:
            assert self.scheduler.pals_control is not None
            self.scheduler.pals_control.monotonic_s = lambda: self.now_s
            self.channel = RankFile.open(folder / "channel" / "rank-0", RankFile.SIZE)

    def add(self, prompt: list[int], max_tokens: int) -> None:
        name = f"r{len(self.given)}"
        self.given[name] = prompt, max_tokens
        self.scheduler.add_request(self.requests.make(name, prompt, max_tokens))

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus  # noqa: PLC0415

        self.aborted.add(name)
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def tell(self, target: int, mode: BatchMode, lease_s: float = LEASE_S) -> None:
        assert self.channel is not None
        self.generation += 1
        self.channel.control.write(Control(self.generation, target, mode, self.now_s + lease_s))

    def step(self) -> Any:
        output = self.engine.step()
        self.now_s += STEP_S
        return output

    def drain(self) -> None:
        for _ in range(200_000):
            if not self.engine.has_work:
                return
            self.step()
        raise AssertionError("requests did not end")

    def check(self) -> int:
        """All requests gave the model's tokens, all blocks are free; returns the tokens."""
        count = 0
        for name, (prompt, max_tokens) in self.given.items():
            got = self.engine.tokens.get(name, [])
            want = expected(prompt, max_tokens)
            if name in self.aborted:
                want = want[: len(got)]
            else:
                assert name in self.engine.finished, f"{name} did not finish"
            assert got == want, f"{name}: tokens differ"
            count += len(got)
        pool = self.scheduler.kv_cache_manager.block_pool
        assert pool.get_num_free_blocks() == self.blocks - 1, "KV blocks leaked"
        assert not self.scheduler.requests, "requests leaked"
        if self.channel is not None:
            told = self.channel.telemetry.read()
            assert told is not None
            assert told.errors_total == 0, "faults of ours"
        return count


def prompt_of(rng: random.Random) -> list[int]:
    shared = list(range(100, 100 + BLOCK * rng.choice([0, 0, 1, 2])))
    return shared + [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 60))]


class Case(NamedTuple):
    """A kind of engine. With 60 KV blocks vLLM itself has to preempt, with 400 it never does."""

    caching: bool
    depth: int
    asynchronous: bool
    blocks: int


def run_random(folder: Path, changes: int, seed: int, case: Case) -> int:
    """Random targets, modes, lapses, arrivals and aborts."""
    rng = random.Random(seed)
    bench = Bench(folder, cls=PALS, **case._asdict())
    told = 0
    while told < changes:
        if rng.random() < 0.3 and len(bench.given) - len(bench.engine.finished) < 40:
            for _ in range(rng.randint(1, 6)):
                bench.add(prompt_of(rng), rng.randint(1, 60))
        if rng.random() < 0.02 and bench.scheduler.requests:
            bench.abort(rng.choice(list(bench.scheduler.requests)))
        if rng.random() < 0.5:
            told += 1
            lease_s = LEASE_S if rng.random() < 0.95 else rng.choice([-1.0, 0.03, 100.0])
            bench.tell(
                rng.choice([0, 1, 2, 3, 5, 8, 12, 16, 99]), rng.choice(list(BatchMode)), lease_s
            )
        for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
            bench.step()
    bench.drain()
    bench.check()
    return told


def run_uncontrolled(folder: Path, seed: int) -> None:
    """vLLM by itself gives the model's tokens: the yardstick of all that follows."""
    rng = random.Random(seed)
    bench = Bench(folder, cls=VLLM, caching=True, depth=2)
    for _ in range(60):
        bench.add(prompt_of(rng), rng.randint(1, 60))
    bench.drain()
    bench.check()


def fill(bench: Bench, count: int, tokens: int) -> None:
    rng = random.Random(5)
    for _ in range(count):
        bench.add([rng.randrange(VOCABULARY) for _ in range(20)], tokens)
    for _ in range(12):
        bench.step()


def steps_to_effect(folder: Path, mode: BatchMode, depth: int) -> int:
    """Schedules from a target of 4 until at most 4 of 16 are in the step."""
    bench = Bench(folder, cls=PALS, caching=True, depth=depth)
    fill(bench, 24, 120)
    bench.tell(4, mode)
    steps = 1
    while len(bench.step().num_scheduled_tokens) > 4:
        steps += 1
        assert steps < 20, "the target has no effect"
    for _ in range(10):
        output = bench.step()
        assert output is None or len(output.num_scheduled_tokens) <= 4, "the target was left"
        bench.tell(4, mode)
    bench.tell(0, mode)
    bench.drain()
    bench.check()
    return steps


def longest_park(folder: Path, target: int, depth: int) -> tuple[float, float]:
    """16 streams of 400 tokens at ``target``: longest gap in s without a step, and as we tell."""
    bench = Bench(folder, cls=PALS, caching=True, depth=depth, blocks=600)
    for index in range(SEQS):
        bench.add([index] * 20, 400)
    for _ in range(8):
        bench.step()
    assert len(bench.scheduler.running) == SEQS
    last_s: dict[str, float] = {}
    longest_s = 0.0
    while bench.engine.has_work:
        bench.tell(target, BatchMode.PARK)
        output = bench.step()
        for name in output.num_scheduled_tokens if output else ():
            longest_s = max(longest_s, bench.now_s - last_s.get(name, bench.now_s))
            last_s[name] = bench.now_s
    bench.check()
    assert bench.channel is not None
    told = bench.channel.telemetry.read()
    assert told is not None
    return longest_s, told.longest_park_s


def lapse(folder: Path, depth: int) -> float:
    """Seconds from the agent's last word until vLLM's own limit holds again."""
    bench = Bench(folder, cls=PALS, caching=True, depth=depth)
    fill(bench, 24, 400)
    bench.tell(4, BatchMode.PREEMPT)
    spoken_s = bench.now_s
    for _ in range(2):
        bench.step()
    while len(bench.scheduler.running) < SEQS:
        bench.step()
        assert bench.now_s < spoken_s + 60, "vLLM did not come back"
    back_s = bench.now_s - spoken_s
    bench.drain()
    bench.check()
    return back_s


def overhead(folder: Path, depth: int) -> dict[str, float]:
    """Microseconds a step: our own code, and the whole scheduler with and without it."""
    found: dict[str, float] = {}
    for kind, cls in (("plain", VLLM), ("pals", PALS)):
        bench = Bench(folder, cls=cls, caching=False, depth=depth, blocks=1500)
        fill(bench, SEQS, 900)
        spent: list[float] = []
        own: list[float] = []
        scheduler = bench.scheduler
        gc.collect()
        gc.disable()
        for index in range(800):
            if cls == PALS and index % 25 == 0:
                bench.tell(SEQS - 2 * (index // 25 % 2), BatchMode.PARK)
            before_s = scheduler.pals_control.spent_s_total if cls == PALS else 0.0
            begun_s = time.perf_counter()
            output = scheduler.schedule()
            middle_s = time.perf_counter()
            result = bench.engine.runner.execute(output)
            again_s = time.perf_counter()
            scheduler.update_from_output(output, result)
            spent.append(time.perf_counter() - again_s + middle_s - begun_s)
            if cls == PALS:
                own.append(scheduler.pals_control.spent_s_total - before_s)
            bench.now_s += STEP_S
        gc.enable()
        found[f"{kind}_us"] = round(statistics.median(spent) * 1e6, 1)
    found["own_us"] = round(statistics.median(own) * 1e6, 1)
    found["own_p99_us"] = round(statistics.quantiles(own, n=100)[98] * 1e6, 1)
    return found


def can_go_deeper() -> bool:
    """Whether more than two steps may be under way; older async schedulers fail by themselves."""
    from vllm.v1.core.sched import scheduler  # noqa: PLC0415

    return "num_stale_output_tokens" in inspect.getsource(scheduler)


def main(changes: int, seed: int) -> None:
    import vllm  # noqa: PLC0415

    found: dict[str, Any] = {"version": vllm.__version__, "changes": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_uncontrolled(folder, seed)
        cases = [
            Case(caching=True, depth=1, asynchronous=False, blocks=60),
            Case(caching=True, depth=1, asynchronous=True, blocks=60),
            Case(caching=True, depth=2, asynchronous=True, blocks=60),
            Case(caching=False, depth=3 if can_go_deeper() else 2, asynchronous=True, blocks=60),
            # As with three pipeline stages.
            Case(caching=True, depth=3, asynchronous=False, blocks=400),
        ]
        for index, case in enumerate(cases):
            found["changes"] += run_random(folder, -(-changes // len(cases)), seed + index, case)
        for mode in (BatchMode.PARK, BatchMode.PREEMPT):
            found[f"steps_{mode.name.lower()}"] = max(
                steps_to_effect(folder, mode, depth) for depth in (1, 2)
            )
        waits = [longest_park(folder, 8, depth) for depth in (1, 2)]
        found["park_half_s"] = max(wait for wait, _ in waits)
        found["park_half_told_s"] = max(told for _, told in waits)
        found["park_quarter_s"] = longest_park(folder, 4, 2)[0]
        found["lapse_s"] = max(lapse(folder, depth) for depth in (1, 2))
        found["overhead"] = overhead(folder, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
