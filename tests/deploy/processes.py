"""The programs of a node as processes of their own, over simulated GPUs whose limits are files.

One mother process has everything imported and forks them, so that a kill costs no start-up time.
It reads a line of JSON for each start, ``["part", "folder"]``, and answers with the process id.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import requests  # noqa: F401 - imported here once for all children

from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.site import Slo
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.fake import FakeClockGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.helper.daemon import HelperConfig, run_helper
from pals_grid.node.helper.server import Allowed
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.wire.messages import (
    EnvelopeSchedule,
    PowerGrant,
    RegisterReply,
    StatusReply,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.ports import Clock

UUIDS = ("GPU-a", "GPU-b")
MODEL = "fake-model"
GRACE_S = 0.4
OVERHEAD = NodeOverhead(100.0, 0.0)
METRICS = """vllm:num_requests_running{{model_name="fake-model"}} 8
vllm:num_requests_waiting{{model_name="fake-model"}} 4
vllm:prompt_tokens_total{{model_name="fake-model"}} {tokens}
vllm:generation_tokens_total{{model_name="fake-model"}} {tokens}
vllm:e2e_request_latency_seconds_count{{model_name="fake-model"}} 2
"""


def make_gpus(folder: Path) -> list[FakeClockGpu]:
    """Simulated GPUs; they draw what they may, so that only the limit holds the node."""
    gpus = [FakeClockGpu(uuid, path=folder / f"{uuid}.limit") for uuid in UUIDS]
    for gpu in gpus:
        gpu.demand_w = 400.0
    return gpus


def run_the_helper(folder: Path) -> int:
    """Run the privileged helper."""
    config = HelperConfig(
        Allowed(frozenset({os.getuid()})),
        state_dir=folder / "helper",
        socket_path=folder / "helper.sock",
        grace_s=GRACE_S,
        boot_id_file=folder / "boot_id",
    )
    return run_helper(config, open_gpus=lambda: make_gpus(folder), environment={})


def run_the_agent(folder: Path, *, dry_run: bool = False) -> int:
    """Run the agent, unprivileged but for the helper."""
    config = AgentConfig(
        url=f"http://127.0.0.1:{(folder / 'service.port').read_text()}",
        enrolment_token="t",
        name="n",
        state_dir=folder / "agent",
        hardware="sim",
        period_s=0.1,
        safe_power_w=900.0,
        helper_socket=folder / "helper.sock",
        dry_run=dry_run,
    )
    return run_agent(config, build_units=partial(_hardware, folder))


def run_an_agent_that_stalls(folder: Path) -> int:
    """Run the agent; it stops for good in the midst of storing a grant, and leaves a mark."""

    def stall(path: Path, content: bytes) -> None:
        path.with_name(f"{path.name}.{os.getpid()}.tmp").write_bytes(content[: len(content) // 2])
        (folder / "stalled").touch()
        time.sleep(600)

    with mock.patch("pals_grid.node.grants.write_durably", stall):
        return run_the_agent(folder)


def _hardware(folder: Path, config: AgentConfig, clock: Clock) -> NodeHardware:
    del config, clock
    points = tuple(
        OperatingPoint(limit_w, 64, 10.0 * limit_w, 2 * limit_w, 0.1, 0.02)
        for limit_w in range(100, 401, 10)
    )
    table = FrontierTable("Fake GPU", 2, MODEL, 5.0, Origin.SIMULATED, points)
    engine = VllmMetricsEngine(
        f"http://127.0.0.1:{(folder / 'page.port').read_text()}", MODEL, Slo()
    )
    engine.start()
    unit = EngineUnit("vllm", engine, tuple(make_gpus(folder)), table, Origin.SIMULATED)
    return NodeHardware("simulated", Origin.SIMULATED, (unit,), LinearNodeMeter(OVERHEAD), OVERHEAD)


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Page(_Quiet):
    """A vLLM server's /metrics; its counters rise by the wall clock, whoever serves them."""

    def do_GET(self) -> None:
        self.answer(METRICS.format(tokens=int(time.time() * 1000) % 10**9).encode())


class _Service(_Quiet):
    """The service of one node: gives out the schedule in ``schedule.json`` at once when new."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path.endswith("/register"):
            reply = RegisterReply(
                node_id=1, node_token="n", site="s", ttft_slo_s=2.0, itl_slo_s=0.1
            )
            self.answer(encode(reply))
        elif self.path.endswith("/status"):
            grant = self._grant()
            _replace(self.folder / "status.json", body)
            self.answer(encode(StatusReply(grant=grant)))
        else:
            self.answer(b"{}")

    def _grant(self) -> PowerGrant | None:
        """Return what ``grant-order.json`` says, with the lease that is left."""
        try:
            told = json.loads((self.folder / "grant-order.json").read_bytes())
        except FileNotFoundError:
            return None
        left_s = told.pop("until_s") - time.monotonic()
        return PowerGrant(epoch=1, lease_s=left_s, **told) if left_s > 0 else None

    def do_GET(self) -> None:
        after = int(self.path.partition("after_version=")[2].partition("&")[0])
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            text = (self.folder / "schedule.json").read_bytes()
            if json.loads(text)["version"] > after:
                self.answer(text)
                return
            time.sleep(0.02)
        self.answer(b"", 204)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)


def serve_http(kind: type[_Quiet], name: str, folder: Path) -> int:
    """Serve on the port in ``NAME.port``, which is held for it."""
    port = int((folder / f"{name}.port").read_text())
    handler = type("Handler", (kind,), {"folder": folder})
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.serve_forever(poll_interval=0.05)
    return 0


PARTS: dict[str, Callable[[Path], int]] = {
    "helper": run_the_helper,
    "agent": run_the_agent,
    "stalling": run_an_agent_that_stalls,
    "dry-run": partial(run_the_agent, dry_run=True),
    "page": partial(serve_http, _Page, "page"),
    "service": partial(serve_http, _Service, "service"),
}


def empty_schedule() -> EnvelopeSchedule:
    """Return a schedule that holds nothing."""
    return EnvelopeSchedule(
        node_id=1, version=1, issued_at=datetime.now(UTC), safe_power_w=900.0, intervals=[]
    )


def main() -> None:
    """Fork a process for each line."""
    assert threading.active_count() == 1  # else a fork could inherit a held lock
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave at once
    for line in sys.stdin:
        part, folder = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(part, Path(folder))
        print(child, flush=True)  # noqa: T201


def _become(part: str, folder: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = PARTS[part](folder)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
