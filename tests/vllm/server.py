"""A real vLLM server in a process of its own, and clients of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from pals_grid.node.vllm.channel import DIRECTORY_VARIABLE
from tests.vllm.tiny_model import WORDS
from tests.waiting import PATIENCE_S, hold_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_S = 900.0
MAX_NUM_SEQS = 16
MODEL = "tiny-moe"


class Server:
    """``python -m vllm.entrypoints.openai.api_server`` on a free port of the loopback."""

    def __init__(self, model: Path, channel: Path, log: Path, *, controlled: bool = True) -> None:
        self.model = model
        self.channel = channel
        self.log = log
        self._controlled = controlled
        self._process: subprocess.Popen[bytes] | None = None
        self._held = hold_port()  # also while a killed server starts again
        self.port: int = self._held.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        # fmt: off
        command = [
            "nice", "-n", "10",  # who steers it and who asks it get a core when they want one
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.model), "--served-model-name", MODEL, "--load-format", "dummy",
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "bfloat16",
            "--max-model-len", "2048", "--max-num-seqs", str(MAX_NUM_SEQS),
            "--max-num-batched-tokens", "2048", "--enforce-eager", "--seed", "7",
            "--kv-cache-memory-bytes", "67108864",
        ]
        # fmt: on
        if self._controlled:
            command += ["--scheduler-cls", "pals_grid.node.vllm.PalsScheduler"]
        environment = {
            **os.environ,
            DIRECTORY_VARIABLE: str(self.channel),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "0",  # its idle threads spin
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise AssertionError(f"vLLM ended with {self._process.returncode}:\n{self.tail()}")
            try:
                if requests.get(self.url + "/health", timeout=PATIENCE_S).ok:
                    return
            except requests.RequestException:
                time.sleep(0.5)
        raise AssertionError(f"vLLM did not answer in {START_S:g} s:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """SIGKILL to it and its engine core, which share a process group."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        self._end(signal.SIGKILL)
        self._held.close()

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(PATIENCE_S)

    def complete(self, request: Request) -> str:
        """Stream one completion; it has to have all its tokens."""
        text, finish = "", None
        with requests.post(
            self.url + "/v1/completions", json=request.question, stream=True, timeout=900
        ) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if not line.startswith(b"data: ") or line == b"data: [DONE]":
                    continue
                choice: dict[str, Any] = json.loads(line[6:])["choices"][0]
                text += choice["text"]
                finish = choice["finish_reason"] or finish
        assert finish == "length", f"{finish}: {text!r}"
        assert len(text.split()) == request.tokens
        return text

    def complete_all(self, wanted: Sequence[Request], clients: int) -> list[str]:
        """Complete all, ``clients`` at a time; the texts are in order."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(self.complete, wanted))


@dataclass(frozen=True)
class Request:
    """A completion of exactly ``tokens`` tokens: greedy, or sampled with a seed of its own."""

    prompt: str
    tokens: int
    seed: int | None

    @property
    def question(self) -> dict[str, Any]:
        greedy = self.seed is None
        sampling = {"temperature": 0} if greedy else {"temperature": 1.0, "seed": self.seed}
        return {
            "model": MODEL,
            "prompt": self.prompt,
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "skip_special_tokens": False,
            "stream": True,
            **sampling,
        }


def make_requests(count: int, seed: int) -> list[Request]:
    """Make requests of 10 to 60 words and 48 to 96 tokens; every other one is sampled.

    Without trained weights greedy text soon repeats itself; sampled text does not, and shows a
    lost or a repeated token at once.
    """
    rng = random.Random(seed)
    return [
        Request(
            " ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randint(10, 60))),
            rng.randint(48, 96),
            index if index % 2 else None,
        )
        for index in range(count)
    ]
