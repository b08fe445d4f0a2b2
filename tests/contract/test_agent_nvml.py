"""The agent as a process of its own, on the NVML shim, with a baseboard controller beside it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.fleet import Origin
from pals_grid.wire.messages import EngineRow
from tests.unit.node.meters.test_redfish import METRICS, Baseboard, serving
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the search path is Linux's")


@pytest.fixture
def board() -> Iterator[Baseboard]:
    board = Baseboard()
    board.chassis("1", EnvironmentMetrics=METRICS)
    with serving(board):
        yield board


def rows_of(state: Path) -> list[EngineRow]:
    """What the agent has spooled so far; nothing before it has made its spool."""
    try:
        spool = sqlite3.connect(
            f"file:{state / 'spool.sqlite3'}?mode=rw", uri=True, timeout=PATIENCE_S
        )
    except sqlite3.OperationalError:
        return []
    with contextlib.closing(spool):
        try:
            found = spool.execute("SELECT payload FROM spool_row WHERE kind = 'engine' ORDER BY id")
            return [msgspec.json.decode(payload, type=EngineRow) for (payload,) in found]
        except sqlite3.OperationalError:
            return []


def test_node_energy_is_measured_and_the_process_stays_small(
    nvml_library: Path, board: Baseboard, tmp_path: Path
) -> None:
    token, log, state = tmp_path / "token", tmp_path / "log", tmp_path / "state"
    token.write_text("abc")
    command = [sys.executable, "-m", "pals_grid.cli.main", "agent", "--url", "http://127.0.0.1:9"]
    command += ["--token-file", str(token), "--name", "n", "--state-dir", str(state)]
    command += ["--hardware", "nvml", "--log-file", str(log)]
    command += ["--node-meter", "redfish", "--node-meter-url", board.url]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent)}
    process = subprocess.Popen(command, env=environment)
    try:
        wait_until(
            lambda: log.exists() and "node power is read from redfish: 1234 W" in log.read_text(),
            lambda: log.read_text() if log.exists() else "no log",
        )
        wait_until(
            lambda: Origin.MEASURED in {row.node_energy_origin for row in rows_of(state)},
            lambda: f"no row with a measured node; {log.read_text()}",
        )
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None
        assert int(resident[1]) < 100_000
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    rows = rows_of(state)
    assert {row.engine[:16] for row in rows} == {"gpu-GPU-11111111", "gpu-GPU-22222222"}
    assert {row.energy_origin for row in rows} == {Origin.MEASURED}
