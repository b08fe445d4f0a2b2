"""``pals-grid up`` as a real process: starts, stops, is killed, comes back with its rows."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

START_S = 240.0
STOP_S = 5.0
GONE_S = 60.0


class Service:
    """One run of ``pals-grid up`` on a data directory."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PALS_GRID_")}
        environ |= {"PALS_GRID_DATA_DIR": str(data_dir), "PALS_GRID_PORT": str(port)}
        self.log = (data_dir / "output.txt").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pals_grid.cli.main", "up"],
            env=environ,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        return requests.get(f"{self.url}{path}", timeout=60).json()

    def wait_online(self) -> dict[str, Any]:
        """The demo's node, once it is online."""

        def found() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.output()
            if requests.get(f"{self.url}/readyz", timeout=60).status_code != 200:
                return None
            nodes = self.get("/api/v1/nodes")["items"]
            online: list[dict[str, Any]] = [node for node in nodes if node["online"]]
            return online[0] if online else None

        return until(found, START_S, self.output)

    def wait_tokens(self, more_than: float = 0.0) -> float:
        """Output tokens in the database, once there are more than so many."""

        def found() -> float | None:
            total: float = self.get("/api/v1/reports/energy")["total"]["tokens_out"]
            return total if total > more_than else None

        return until(found, START_S, self.output)

    def children(self) -> list[int]:
        """All processes below this one."""
        return descendants(self.process.pid)


def until(found: Callable[[], T | None], within_s: float, tell: Callable[[], str]) -> T:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        with suppress(requests.ConnectionError, requests.Timeout):
            value = found()
            if value is not None:
                return value
        time.sleep(0.1)
    raise AssertionError(f"nothing within {within_s} s:\n{tell()}")


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found[1:]


def is_alive(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_gone(pids: list[int], within_s: float) -> list[int]:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s and any(map(is_alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if is_alive(pid)]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not pytest's own folder: root's is closed to the unprivileged user that runs the server.
    folder = Path(tempfile.mkdtemp(prefix="pals-grid-up-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def start(data_dir: Path, free_port: int) -> Iterator[Callable[[], Service]]:
    started: list[Service] = []

    def begin() -> Service:
        started.append(Service(data_dir, free_port))
        return started[-1]

    yield begin
    for service in started:
        children = service.children() if service.process.poll() is None else []
        service.process.kill()
        service.process.wait()
        service.log.close()
        wait_gone(children, GONE_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_and_stops(
    start: Callable[[], Service], data_dir: Path, number: signal.Signals
) -> None:
    token = data_dir / "node-token"
    originals = data_dir / "node" / "original-limits.json"
    stop_s: list[float] = []
    kills = 0
    while min(stop_s, default=STOP_S) >= STOP_S and len(stop_s) < 4:  # the machine may be busy
        service = start()
        node = service.wait_online()
        assert node["origin"] in {"simulated", "measured"}
        assert token.stat().st_mode & 0o777 == 0o600
        until(lambda: originals.exists() or None, START_S, service.output)
        children = service.children()
        assert len(children) >= 2
        began_s = time.monotonic()
        service.process.send_signal(number)
        assert service.process.wait(GONE_S) == 0, service.output()
        stop_s.append(time.monotonic() - began_s)
        assert wait_gone(children, GONE_S) == []
        output = service.output()
        assert service.url in output
        assert "Traceback" not in output
        assert token.read_text().strip() not in output
        if output.count("and is killed") > kills:  # the agent had no time; its next start restores
            kills += 1
            stop_s[-1] = STOP_S
    assert min(stop_s) < STOP_S, service.output()
    assert not originals.exists()  # it goes when every limit is back


def test_a_kill_leaves_no_orphan_and_loses_no_row(start: Callable[[], Service]) -> None:
    service = start()
    service.wait_online()
    tokens = service.wait_tokens()
    children = service.children()
    service.process.kill()
    service.process.wait()
    assert wait_gone(children, GONE_S) == []
    again = start()
    again.wait_online()
    assert again.get("/api/v1/reports/energy")["total"]["tokens_out"] >= tokens
    assert again.wait_tokens(tokens) > tokens


def test_an_agent_that_dies_is_started_again(start: Callable[[], Service]) -> None:
    service = start()
    service.wait_online()
    first = agent_of(service)
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def another() -> int | None:
        now = agent_of(service)
        return now if now != first else None

    assert until(another, START_S, service.output) != first
    assert "agent ended with status -9" in service.output()


def agent_of(service: Service) -> int | None:
    for pid in service.children():
        shown = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        if "pals_grid.cli.main agent" in shown.stdout:
            return pid
    return None


def test_a_taken_port_is_named(start: Callable[[], Service], free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        service = start()
        assert service.process.wait(START_S) == 3
    (line,) = service.output().splitlines()
    assert line.startswith("error: PALS_GRID_PORT: must be a free port")
    assert str(free_port) in line
    assert service.children() == []
