"""Load, watch and agent for the tests of a real server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pals_grid.core.budget import Reason
from pals_grid.core.site import Slo
from pals_grid.node.lease import Lease
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule
from tests.vllm.server import MODEL
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.node.vllm.layout import StepTelemetry
    from tests.vllm.server import Request, Server

REPOSITORY = Path(__file__).parents[2]
CLIENTS = 20
LONGEST_STALL_S = 1.0
LATE = re.compile(r"^([0-9.]+) .*ticks skipped, late by ([0-9.]+) s", re.MULTILINE)


class Stall(NamedTuple):
    """A time in which nothing went on."""

    begin_s: float
    end_s: float

    @property
    def is_long(self) -> bool:
        return self.end_s - self.begin_s > LONGEST_STALL_S

    def touches(self, begin_s: float, end_s: float) -> bool:
        return self.begin_s < end_s and self.end_s > begin_s


class Sample(NamedTuple):
    """What the scheduler said, and when it was read."""

    at_s: float
    step: StepTelemetry


class Watch:
    """Reads the real telemetry every 20 ms, without a word to the engine."""

    def __init__(self, channel: Path) -> None:
        self._engine = VllmChannelEngine(channel, MODEL, Slo())
        self.samples: list[Sample] = []
        self.begun_s = self.ended_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.begun_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended_s = time.monotonic()
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for step in self._engine.telemetry().values():
                self.samples.append(Sample(time.monotonic(), step))

    def stalls(self) -> list[Stall]:
        """Times without a look, or without a step of an engine at work.

        The machine stood still, or left the engine without a core.
        """
        times = [self.begun_s, *(sample.at_s for sample in self.samples), self.ended_s]
        looks = (Stall(one_s, two_s) for one_s, two_s in pairwise(times))
        steps = (Stall(step.at_s, at_s) for at_s, step in self.samples if step.running)
        return [stall for stall in (*looks, *steps) if stall.is_long]

    def between(self, begin_s: float, end_s: float) -> list[StepTelemetry]:
        return [sample.step for sample in self.samples if begin_s <= sample.at_s < end_s]


class Agent:
    """The agent's process on a schedule of (seconds, watts), which begins as it is made."""

    def __init__(
        self, folder: Path, channel: Path, budgets: Sequence[tuple[float, float]], mode: str
    ) -> None:
        state = folder / f"agent-{time.monotonic_ns()}"
        state.mkdir()
        self.begun_s = time.monotonic()
        Lease(state / "schedule.json", 400.0).store(_schedule(budgets))
        self.log = state / "log"
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.vllm.agent_process"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, state, channel, MODEL, mode], cwd=REPOSITORY, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop it; where it does not end, say where each of its threads stands."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.process.poll() is not None, self.last_words)
        return self.process.wait()

    def text(self) -> str:
        """Return what it said."""
        return self.log.read_text()

    def has_begun(self) -> bool:
        """Whether it ticks, or is just about to: its spool is the last of what it opens."""
        return (self.log.parent / "spool.sqlite3").exists()

    def last_words(self) -> str:
        """End it; what it said, and where each of its threads stood."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGABRT)
        return f"ended with {self.process.wait(PATIENCE_S)}:\n{self.text()}"

    def stalls(self) -> list[Stall]:
        """Times for which a tick of its was overdue."""
        ahead_s = time.time() - time.monotonic()
        late = [(float(at_s) - ahead_s, float(by_s)) for at_s, by_s in LATE.findall(self.text())]
        return [Stall(at_s - by_s, at_s) for at_s, by_s in late if by_s > LONGEST_STALL_S]


def _schedule(budgets: Sequence[tuple[float, float]]) -> EnvelopeSchedule:
    begin_at = start_at = datetime.now(UTC)
    intervals = []
    for seconds, watts in budgets:
        end_at = start_at + timedelta(seconds=seconds)
        intervals.append(
            EnvelopeInterval(
                start_at=start_at,
                end_at=end_at,
                power_min_w=0.0,
                power_max_w=watts,
                target_tokens_per_s=0.0,
                reason=Reason.EVENT,
            )
        )
        start_at = end_at
    return EnvelopeSchedule(
        node_id=1, version=1, issued_at=begin_at, safe_power_w=400.0, intervals=intervals
    )


class Load:
    """Streaming clients that ask the same requests again and again until ``stop``."""

    def __init__(self, server: Server, wanted: Sequence[Request], expected: Sequence[str]) -> None:
        self._pairs = list(zip(wanted, expected, strict=True))
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._futures = [self._pool.submit(self._client, number) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _client(self, number: int) -> tuple[int, list[str]]:
        done, wrong = 0, []
        while not self._stop.is_set():
            request, expected = self._pairs[(number + done * CLIENTS) % len(self._pairs)]
            if self._server.complete(request) != expected:
                wrong.append(request.prompt)
            done += 1
        return done, wrong

    def stop(self) -> int:
        """Let every client end its request; all answers have to be right. Returns how many."""
        self._stop.set()
        results = [future.result() for future in self._futures]
        assert [prompt for _, wrong in results for prompt in wrong] == []
        return sum(done for done, _ in results)
