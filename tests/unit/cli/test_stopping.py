from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pals_grid.cli.agent_process import AgentProcess
from pals_grid.cli.port import take_port
from pals_grid.cli.stopping import Stopper
from pals_grid.cli.up import agent_command, write_secret
from pals_grid.core.errors import ConfigurationError
from pals_grid.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Sleeps until the pipe closes or SIGTERM comes; a file says that it lives.
SLEEPER = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).open("a").write("x")
os.read(int(sys.argv[-1]), 1)
"""


def until(found: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def starts(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def test_a_signal_before_the_server_runs_ends_in_order() -> None:
    steps: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with Stopper().installed():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("not reached")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the second changes nothing
            steps.append("tidied")
    assert steps == ["tidied"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_agent_that_ends_is_started_again_and_one_that_is_stopped_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "starts"
    agent = AgentProcess([sys.executable, "-c", SLEEPER, str(path)], first_retry_s=0.01)
    agent.start()
    until(lambda: starts(path) == 1)
    pid = agent.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: starts(path) == 2)
    agent.stop(120)
    agent.stop(120)
    assert agent.pid is None
    assert starts(path) == 2


def test_an_agent_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "starts"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SLEEPER
    agent = AgentProcess([sys.executable, "-c", deaf, str(path)])
    agent.start()
    until(lambda: starts(path) == 1)
    agent.stop(0.1)  # it would wait for ever
    assert agent.pid is None


def test_a_stop_before_the_start_is_fine() -> None:
    AgentProcess(["never"]).stop(0.1)


def test_a_taken_port_and_a_foreign_address_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"PALS_GRID_PORT: .* got {port}"):
            take_port(Settings(tmp_path, port=port))
    with pytest.raises(ConfigurationError, match=r"PALS_GRID_HOST: .* got '192.0.2.1'"):
        take_port(Settings(tmp_path, host="192.0.2.1"))


def test_the_token_is_for_this_user_alone_and_never_on_a_command_line(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    settings.token_file.write_text("older, readable by all")
    settings.token_file.chmod(0o644)
    write_secret(settings, "s3cret")
    assert settings.token_file.read_text() == "s3cret\n"
    assert settings.token_file.stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in " ".join(agent_command(settings))


def test_gpus_are_only_observed_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    assert "--observe-gpus" in agent_command(Settings(tmp_path))
    assert "--observe-gpus" not in agent_command(Settings(tmp_path, demo_actuate=True))
