"""The whole agent as a process: signals, a dead parent, a crash, a service that is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import ConfigurationError, LinkRejected
from pals_grid.node import agent
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.lease import Lease
from pals_grid.node.link import HttpLink
from pals_grid.node.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pals_grid.wire.messages import EnvelopeSchedule, RegisterReply, RegisterRequest
    from tests.unit.node.conftest import Rig

PROGRAM = """
import sys
from pathlib import Path
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.powermodel.overhead import NodeOverhead

state, limit_file, parent_fd = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class LoggedGpu(FakeGpu):
    def apply_power_limit(self, power_limit_w):
        with limit_file.with_suffix(".log").open("a") as log:
            log.write(f"{power_limit_w:g} ")
        return super().apply_power_limit(power_limit_w)

def build(config, clock):
    gpu = LoggedGpu(path=limit_file, demand_w=150.0)
    points = (
        OperatingPoint(150.0, 8, 100.0, 140.0, 0.1, 0.02),
        OperatingPoint(300.0, 64, 120.0, 280.0, 0.1, 0.05),
    )
    table = FrontierTable("Fake GPU", 1, "fake-model", 5.0, Origin.SIMULATED, points)
    overhead = NodeOverhead(50.0, 0.1)
    unit = EngineUnit("e", FakeEngine(), (gpu,), table, Origin.SIMULATED)
    return NodeHardware("fake", Origin.SIMULATED, (unit,), LinearNodeMeter(overhead), overhead)

config = AgentConfig(
    url="http://127.0.0.1:9", enrolment_token="t", name="n", state_dir=state, hardware="sim",
    parent_fd=parent_fd if parent_fd >= 0 else None, period_s=0.05, safe_power_w=900.0,
)
sys.exit(run_agent(config, build_units=build))
"""


class Agents:
    """Starts agents on one state directory and one GPU whose limit outlives them."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.limit_file = folder / "limit"
        self.limit_file.write_text("400.0")
        self.originals = self.state / "original-limits.json"
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def limit_w(self) -> float:
        return float(self.limit_file.read_text() or "nan")

    def start(self, parent_fd: int = -1) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.state, self.limit_file, str(parent_fd)],
            pass_fds=[parent_fd] if parent_fd >= 0 else [],
        )
        self.running.append(process)
        return process

    def wait_for(self, limit_w: float) -> None:
        end_s = time.monotonic() + 20.0
        while self.limit_w != limit_w:
            assert time.monotonic() < end_s, f"limit stays at {self.limit_w}"
            time.sleep(0.02)

    @property
    def writes(self) -> list[str]:
        log = self.limit_file.with_suffix(".log")
        return log.read_text().split() if log.exists() else []

    def wait_for_writes(self, count: int) -> None:
        end_s = time.monotonic() + 20.0
        while len(self.writes) < count:
            assert time.monotonic() < end_s, f"only {self.writes}"
            time.sleep(0.02)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(tmp_path)
    yield agents
    for process in agents.running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_stop_signal_restores_limits_and_keeps_rows(agents: Agents, name: str) -> None:
    process = agents.start()
    agents.wait_for(150.0)
    assert json.loads(agents.originals.read_bytes())["power_limit_w"] == {"GPU-fake-0": 400.0}
    time.sleep(0.2)
    begun_s = time.monotonic()
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=5) == 0
    assert time.monotonic() - begun_s < 3.0
    assert agents.limit_w == 400.0
    assert not agents.originals.exists()
    spool = Spool(agents.state / "spool.sqlite3")
    batch = spool.next_batch()
    spool.close()
    assert batch is not None
    assert batch.engine_rows[-1].ticks > 0


def test_after_a_kill_the_next_start_restores_the_first_original(agents: Agents) -> None:
    for writes in (1, 3):  # 150; then 400 and 150
        process = agents.start()
        agents.wait_for_writes(writes)
        agents.wait_for(150.0)
        process.kill()
        process.wait()
        assert agents.limit_w == 150.0
        assert agents.originals.exists()
    process = agents.start()
    agents.wait_for_writes(5)
    process.terminate()
    assert process.wait(timeout=5) == 0
    assert agents.writes == ["150", "400", "150", "400", "150", "400"]
    assert agents.limit_w == 400.0
    assert not agents.originals.exists()


def test_the_end_of_the_parent_ends_the_agent(agents: Agents) -> None:
    read_end, write_end = os.pipe()
    process = agents.start(read_end)
    os.close(read_end)
    agents.wait_for(150.0)
    os.close(write_end)
    assert process.wait(timeout=5) == 0
    assert agents.limit_w == 400.0


def test_with_a_schedule_on_disk_it_controls_at_once_without_the_service(
    agents: Agents, schedule_of: Callable[..., EnvelopeSchedule]
) -> None:
    agents.state.mkdir()
    Lease(agents.state / "schedule.json", 0.0).store(schedule_of())  # all past: safe at 900 W
    agents.start()
    agents.wait_for(150.0)


def test_two_agents_cannot_share_a_state_directory(agents: Agents) -> None:
    agents.start()
    agents.wait_for(150.0)
    config = AgentConfig("http://127.0.0.1:9", "t", "n", agents.state, hardware="sim")
    with pytest.raises(ConfigurationError, match="in use by another agent"):
        run_agent(config)


def test_hardware_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = AgentConfig("http://127.0.0.1:9", "t", "n", tmp_path, hardware="toaster")
    with pytest.raises(ConfigurationError, match="auto, nvml or sim, got 'toaster'"):
        run_agent(config, stop=threading.Event())


def test_a_refused_token_without_a_schedule_ends_the_agent_with_limits_restored(
    tmp_path: Path, rig_of: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(HttpLink):
        def register(self, request: RegisterRequest) -> RegisterReply:
            raise LinkRejected(f"HTTP 401: {request.name} has a wrong token")

    monkeypatch.setattr(agent, "HttpLink", Refusing)
    rig = rig_of()
    config = AgentConfig(
        "http://127.0.0.1:9", "t", "n", tmp_path, hardware="sim", period_s=0.02, safe_power_w=500.0
    )
    assert run_agent(config, build_units=lambda *_: rig.hardware) == agent.EXIT_REFUSED
    assert [gpu.limit_w for gpu in rig.gpus] == [400.0, 400.0]
    assert not (tmp_path / "original-limits.json").exists()
