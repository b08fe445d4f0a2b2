"""The whole agent as a process: signals, a dead parent, a crash, a service that is away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.errors import ConfigurationError, InvalidValue, LinkRejected
from pals_grid.core.site import Slo
from pals_grid.node import agent
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.lease import Lease
from pals_grid.node.link import HttpLink
from pals_grid.node.spool import Spool
from pals_grid.node.strategies.registry import make_strategy
from pals_grid.powermodel.frontier_file import Provenance, write_frontier
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule
from tests.unit.node.conftest import START_AT, make_table
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.strategy import Strategy
    from pals_grid.wire.messages import RegisterReply, RegisterRequest
    from tests.unit.node.conftest import Rig

PROGRAM = """
import signal, sys
from pathlib import Path
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.commands import NodeCommand
from pals_grid.node import agent
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.decision import Decision
from pals_grid.node.fake import FakeClockGpu, FakeEngine
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.powermodel.overhead import NodeOverhead

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
state, limit_file, parent_fd = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
locking = sys.argv[4] == "locking"

def note(text):
    with limit_file.with_suffix(".log").open("a") as log:
        log.write(f"{text} ")

class LoggedGpu(FakeClockGpu):
    def apply_power_limit(self, power_limit_w):
        note(f"{power_limit_w:g}")
        return super().apply_power_limit(power_limit_w)

    def apply_clock_limit(self, sm_clock_mhz):
        done = super().apply_clock_limit(sm_clock_mhz)
        note("release" if sm_clock_mhz is None else f"lock{sm_clock_mhz:g}")
        return done

class CountingEngine(FakeEngine):
    def observe(self):
        with limit_file.with_suffix(".looks").open("a") as looks:
            looks.write(".")
        return super().observe()

class Locking:
    def decide(self, *_):
        return [Decision(0.0, NodeCommand(150.0, 8, "test", sm_clock_mhz=900.0))]
    def set_slo(self, slo): pass
    def hold_batch(self, *_, refused): pass

if locking:
    agent.make_strategy = lambda *_, **__: Locking()

def build(config, clock):
    gpu = LoggedGpu(path=limit_file)
    gpu.demand_w = 150.0
    gpu.refuses = sys.argv[4] == "refusing"
    points = (
        OperatingPoint(150.0, 8, 100.0, 140.0, 0.1, 0.02),
        OperatingPoint(300.0, 64, 120.0, 280.0, 0.1, 0.05),
    )
    table = FrontierTable("Fake GPU", 1, "fake-model", 5.0, Origin.SIMULATED, points)
    overhead = NodeOverhead(50.0, 0.1)
    unit = EngineUnit("e", CountingEngine(), (gpu,), table, Origin.SIMULATED)
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

    def start(
        self, parent_fd: int = -1, *, locking: bool = False, refusing: bool = False
    ) -> subprocess.Popen[bytes]:
        how = "locking" if locking else "refusing" if refusing else "limiting"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.state, self.limit_file, str(parent_fd), how],
            pass_fds=[parent_fd] if parent_fd >= 0 else [],
        )
        self.running.append(process)
        return process

    def wait_for(self, limit_w: float) -> None:
        wait_until(lambda: self.limit_w == limit_w, lambda: f"limit stays at {self.limit_w}")

    @property
    def writes(self) -> list[str]:
        log = self.limit_file.with_suffix(".log")
        return log.read_text().split() if log.exists() else []

    def wait_for_writes(self, count: int) -> None:
        wait_until(lambda: len(self.writes) >= count, lambda: f"only {self.writes}")

    def wait_for_ticks(self, count: int) -> None:
        """Wait for so many whole ticks: each begins with a look at the engine."""
        looks = self.limit_file.with_suffix(".looks")
        wait_until(lambda: looks.exists() and looks.stat().st_size > count)


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
    agents.wait_for_ticks(2)  # the first alone makes no row
    process.send_signal(getattr(signal, name))
    assert process.wait(PATIENCE_S) == 0
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
    assert process.wait(PATIENCE_S) == 0
    assert agents.writes == ["150", "400", "150", "400", "150", "400"]
    assert agents.limit_w == 400.0
    assert not agents.originals.exists()


def test_after_a_kill_the_next_start_releases_the_clocks(agents: Agents) -> None:
    lock_file = agents.limit_file.with_suffix(".clock")
    process = agents.start(locking=True)
    agents.wait_for_writes(2)
    process.kill()
    process.wait()
    assert json.loads(agents.originals.read_bytes())["clocks_locked"] == ["GPU-fake-0"]
    assert float(lock_file.read_text()) == 900.0
    process = agents.start()  # asks for no clock itself
    agents.wait_for_writes(5)
    assert not lock_file.exists()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert agents.writes == ["150", "lock900", "release", "400", "150", "400"]
    assert not agents.originals.exists()


def test_a_stop_signal_releases_the_clocks(agents: Agents) -> None:
    process = agents.start(locking=True)
    agents.wait_for_writes(2)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert agents.writes == ["150", "lock900", "release", "400"]
    assert not agents.limit_file.with_suffix(".clock").exists()


def test_the_end_of_the_parent_ends_the_agent(agents: Agents) -> None:
    read_end, write_end = os.pipe()
    process = agents.start(read_end)
    os.close(read_end)
    agents.wait_for(150.0)
    os.close(write_end)
    assert process.wait(PATIENCE_S) == 0
    assert agents.limit_w == 400.0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_agent_takes_less_than_100_mb(agents: Agents) -> None:
    process = agents.start()
    agents.wait_for(150.0)
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    assert int(found.group(1)) * 1024 < 100e6


def test_the_agent_loads_nothing_heavy() -> None:
    code = "import sys, pals_grid.node.agent, pals_grid.cli.agent; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"numpy", "scipy", "lightgbm", "matplotlib", "sqlalchemy", "fastapi", "pandas"}
    ours = {
        "pals_grid.evaluate",
        "pals_grid.powermodel.train",
        "pals_grid.sim",
        "pals_grid.service",
    }
    assert "pals_grid.node.loop" in loaded
    assert not loaded & (heavy | ours)


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
    with pytest.raises(ConfigurationError, match="auto, nvml, amd, intel, sim, got 'toaster'"):
        run_agent(config, stop=threading.Event())


def test_an_agent_that_may_not_write_ends_well_where_it_changed_nothing(agents: Agents) -> None:
    process = agents.start(refusing=True)
    agents.wait_for_writes(1)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert agents.limit_w == 400.0
    assert not agents.originals.exists()


def test_an_agent_that_may_no_longer_write_ends_with_1_and_keeps_the_original(
    agents: Agents,
) -> None:
    agents.start()
    agents.wait_for(150.0)
    agents.running[0].kill()
    agents.running[0].wait()
    process = agents.start(refusing=True)
    agents.wait_for_writes(2)
    process.terminate()
    assert process.wait(PATIENCE_S) == 1
    assert agents.limit_w == 150.0
    assert "400" in agents.originals.read_text()


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "palms"}, r"strategy: must be one of pals.*, got 'palms'"),
        (
            {"strategy": "pals-grid", "strategy_options": {"foresight": "on"}},
            r"strategy option: must be one of .*forecast.*, got 'foresight'",
        ),
        ({"strategy_options": {"units": "3"}}, r"strategy option: must be one of"),
        ({"strategy_options": {"forecast": "maybe"}}, r"forecast: must be on or off, got 'maybe'"),
    ],
)
def test_a_strategy_that_does_not_exist_is_told(
    tmp_path: Path, rig_of: Callable[..., Rig], settings: dict[str, object], message: str
) -> None:
    config = AgentConfig(
        "http://127.0.0.1:9",
        "t",
        "n",
        tmp_path,
        hardware="sim",
        **settings,  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidValue, match=message):
        run_agent(config, build_units=lambda *_: rig_of().hardware, stop=threading.Event())


def test_strategy_table_and_tier_reach_the_controller(
    tmp_path: Path, rig_of: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rig_of()
    table = replace(make_table(), input_per_output=9.0)
    made: list[tuple[str, object, object, dict[str, object]]] = []

    def make(name: str, units: Sequence[EngineUnit], *_: object, **options: object) -> Strategy:
        made.append((name, units[0].table, units[0].max_loss_ratio, options))
        return make_strategy(name, units, rig.hardware.overhead, Slo(), **options)

    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(agent, "make_strategy", make)
    path = tmp_path / "table.json"
    provenance = Provenance(
        fitted_at=START_AT,
        predictor="test",
        rows=21,
        source_sha256="0" * 64,
        throughput_mape_ratio=0.01,
        power_mape_ratio=0.01,
    )
    write_frontier(path, table, provenance)
    config = AgentConfig(
        "http://127.0.0.1:9",
        "t",
        "n",
        tmp_path,
        hardware="sim",
        strategy_options={"forecast": "off"},
        frontier_table=path,
        max_loss_ratio=0.25,
    )
    assert run_agent(config, build_units=lambda *_: rig.hardware, stop=stop) == 0
    assert made == [("pals-grid", table, 0.25, {"forecast": "off"})]


def test_a_table_for_another_engine_or_none_at_all_ends_the_agent(
    tmp_path: Path, rig_of: Callable[..., Rig]
) -> None:
    path = tmp_path / "table.json"
    path.write_text("{}")
    config = AgentConfig(
        "http://127.0.0.1:9", "t", "n", tmp_path, hardware="sim", frontier_table=path
    )
    with pytest.raises(InvalidValue, match=r"table\.json"):
        run_agent(config, build_units=lambda *_: rig_of().hardware, stop=threading.Event())


def test_a_start_in_an_event_lifts_no_limit_before_its_end(agents: Agents) -> None:
    process = agents.start()
    agents.wait_for(150.0)
    process.kill()
    process.wait()
    now = datetime.now(UTC)
    end_at = now + timedelta(seconds=5)
    event = EnvelopeInterval(
        start_at=now - timedelta(minutes=1),
        end_at=end_at,
        power_min_w=0.0,
        power_max_w=900.0,
        target_tokens_per_s=0.0,
        reason=Reason.DEMAND,  # the event sets the limit, and is met without a cut
        event_id=1,
    )
    Lease(agents.state / "schedule.json", 0.0).store(
        EnvelopeSchedule(node_id=1, version=1, issued_at=now, safe_power_w=900.0, intervals=[event])
    )
    process = agents.start()
    agents.wait_for_writes(2)
    assert datetime.now(UTC) >= end_at
    agents.wait_for_writes(3)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert agents.writes == ["150", "400", "150", "400"]


def test_limits_of_a_run_without_helper_are_restored_before_one_with_it(
    tmp_path: Path, rig_of: Callable[..., Rig]
) -> None:
    path = tmp_path / "original-limits.json"
    path.write_text('{"version":1,"power_limit_w":{"a":350.0}}')
    config = AgentConfig(
        "http://127.0.0.1:9", "t", "n", tmp_path, hardware="sim", helper_socket=tmp_path / "none"
    )
    with pytest.raises(ConfigurationError, match="holds limits that a run without helper left"):
        run_agent(config, build_units=lambda *_: rig_of().hardware, stop=threading.Event())
    assert path.exists()
