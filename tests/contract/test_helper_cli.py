"""`pals-grid helper` as a program, over the real NVML binding and a board that does not exist."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.node.helper.client import HelperClient
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Iterator
    from pathlib import Path


PROGRAM = """
import ctypes
ctypes.CDLL("libnvidia-ml.so.1").shim_reset()
from pals_grid.cli.main import main
main()
"""


@pytest.fixture
def uuid(shim: ctypes.CDLL) -> str:
    del shim
    nvml = pytest.importorskip("pals_grid.node.nvml")
    found: str = nvml.open_gpus()[0].uuid
    return found


@pytest.fixture
def start(nvml_library: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def run(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "helper", *words],
            env={**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        with process:  # closes its pipes
            process.kill()


def test_it_writes_for_an_agent_and_restores_at_its_end(
    start: Callable[..., subprocess.Popen[str]], uuid: str, tmp_path: Path
) -> None:
    socket_path, audit = tmp_path / "helper.sock", tmp_path / "audit.log"
    words = ["--socket", socket_path, "--state-dir", tmp_path / "state", "--audit-file", audit]
    words += ["--allow-user", str(os.getuid()), "--gpu", uuid, "--max-power-w", "400"]
    process = start("run", *words)
    wait_until(socket_path.exists)
    client = HelperClient(socket_path, "test", answer_within_s=PATIENCE_S)
    results = [client.set_power_limit(uuid, 300.0)]

    def is_written() -> bool:  # the socket is there a moment before it listens
        if results[-1].outcome is Outcome.REFUSED:
            results.append(client.set_power_limit(uuid, 300.0))
        return results[-1].outcome is not Outcome.REFUSED

    wait_until(is_written, lambda: str(results[-1]))
    result = results[-1]
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 300.0)
    clamped = client.set_power_limit(uuid, 9000.0)
    assert (clamped.outcome, clamped.read_back) == (Outcome.CLAMPED, 400.0)
    assert (tmp_path / "state" / "original-limits.json").exists()
    process.terminate()
    output, errors = process.communicate(timeout=PATIENCE_S)
    client.close()
    assert process.returncode == 0, errors
    assert not (tmp_path / "state" / "original-limits.json").exists()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["requested"] for line in lines[:2]] == [300.0, 400.0]
    assert lines[-1]["cause"] == "stopped"
    assert audit.read_text() == output
    assert not socket_path.exists()


def test_restore_after_a_crash_is_left_to_the_next_start_and_done_after_a_stop(
    start: Callable[..., subprocess.Popen[str]], uuid: str, tmp_path: Path
) -> None:
    journal = tmp_path / "original-limits.json"
    record = {"version": 2, "power_limit_w": {uuid: 600.0}, "clocks_locked": []}
    journal.write_text(json.dumps(record))
    words = ["restore", "--after-stop", "--state-dir", tmp_path]
    crashed = start(*words, SERVICE_RESULT="signal")
    _, errors = crashed.communicate(timeout=PATIENCE_S)
    assert crashed.returncode == 0
    assert "is started again" in errors
    assert json.loads(journal.read_text()) == record
    stopped = start(*words, SERVICE_RESULT="success")
    output, errors = stopped.communicate(timeout=PATIENCE_S)
    assert stopped.returncode == 0, errors
    assert json.loads(output)["requested"] == 600.0
    assert not journal.exists()


def test_what_it_cannot_do_ends_it_with_a_line(
    start: Callable[..., subprocess.Popen[str]], uuid: str, tmp_path: Path
) -> None:
    for words, message in (
        (["--gpu", "GPU-none"], f"must be a GPU of this machine ({uuid}"),
        (["--allow-user", "nobody-of-that-name"], "allow-user: must exist"),
        (["--min-power-w", "300", "--max-power-w", "200"], "max_power_w: must be from"),
        (["--socket", tmp_path / ("x" * 200)], "socket: cannot listen"),
    ):
        process = start("run", "--state-dir", tmp_path / "state", *words)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 3, errors
        assert message in errors


def test_as_a_unit_it_takes_its_socket_from_systemd_and_says_that_it_is_ready(
    nvml_library: Path, uuid: str, tmp_path: Path
) -> None:
    socket_path, notify_path = tmp_path / "helper.sock", tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        listener.bind(str(socket_path))
        listener.listen(4)
        notified.bind(str(notify_path))
        notified.settimeout(PATIENCE_S)
        script = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null'
        words = ["helper", "run", "--state-dir", str(tmp_path / "state")]
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", sys.executable, "-c", PROGRAM, *words],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(nvml_library.parent),
                "NOTIFY_SOCKET": str(notify_path),
            },
            stdin=listener.fileno(),
            stdout=subprocess.DEVNULL,
        )
        try:
            assert notified.recv(100) == b"READY=1"
            client = HelperClient(socket_path, "test", answer_within_s=PATIENCE_S)
            if os.getuid() == 0:  # nobody else is allowed by these settings
                assert client.set_power_limit(uuid, 300.0).outcome is Outcome.APPLIED
            client.close()
            assert notified.recv(100) == b"WATCHDOG=1"
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
    assert socket_path.exists()  # systemd's to remove
