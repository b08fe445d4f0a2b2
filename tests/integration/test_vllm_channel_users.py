"""The channel between real processes of different users, and of two data-parallel ranks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.node.vllm.channel import DIRECTORY_VARIABLE, GROUP_VARIABLE
from tests.unit.node.vllm.channel_process import OWN_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
GROUP = 61000
VLLM, AGENT, STRANGER, OTHER_AGENT = 61001, 61002, 61003, 61004
HIDDEN_PROC = 'mount --make-rprivate / && mount -t proc -o hidepid=2 proc /proc && exec "$@"'


@pytest.fixture(scope="module", autouse=True)
def _users() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of several users")
    try:
        subprocess.run(["/bin/true"], user=VLLM, group=VLLM, extra_groups=[GROUP], check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        pytest.skip(f"root cannot become another user here: {error}")


class Side:
    """A process that is one side of the channel."""

    def __init__(self, side: str, directory: Path, uid: int, *, rank: int = 0, **how: Any) -> None:  # noqa: ANN401
        groups = how.get("groups", (GROUP,))
        program = [sys.executable, "-m", "tests.unit.node.vllm.channel_process"]
        who = [side, uid, uid, ",".join(map(str, groups)), directory, rank]
        self.process = subprocess.Popen(
            [*how.get("inside", ()), *program, *map(str, who)],
            cwd=ROOT,
            env={**os.environ, DIRECTORY_VARIABLE: str(directory), GROUP_VARIABLE: str(GROUP)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ready(self) -> Side:
        line = self.line()
        assert line == "ready", (line, self.kill())
        return self

    def ask(self, *call: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON takes
        assert self.process.stdin is not None
        print(json.dumps(call), file=self.process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self.line())
        return found

    def kill(self) -> str:
        """End it by SIGKILL; return what it logged."""
        if self.process.returncode is not None:
            return ""
        self.process.kill()
        return self.process.communicate(timeout=60)[1]


@pytest.fixture
def directory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pals-grid-test-", dir="/dev/shm"))
    folder.chmod(0o1777)  # as /dev/shm itself
    yield folder / "channel"
    shutil.rmtree(folder)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Side]]:
    sides: list[Side] = []

    def start(side: str, uid: int, **how: Any) -> Side:  # noqa: ANN401
        sides.append(Side(side, directory, uid, **how))
        return sides[-1]

    yield start
    for side in sides:
        side.kill()


def until(true: Callable[[], bool], within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s, "not in time"
        time.sleep(0.01)


def apply(agent: Side, max_num_seqs: int) -> dict[str, Any]:
    """Apply until every rank steps and has taken it; a call waits for 0.15 s at most."""
    end_s = time.monotonic() + 60.0
    done = agent.ask("apply", max_num_seqs)
    while done["outcome"] in {"partial", "clamped"} and time.monotonic() < end_s:
        done = agent.ask("apply", max_num_seqs)
    return done


def owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


def test_two_users_of_a_group_share_the_channel_and_no_one_else(
    start: Callable[..., Side], directory: Path
) -> None:
    vllm, agent = start("scheduler", VLLM), start("agent", AGENT)
    stranger = start("agent", STRANGER, groups=())
    vllm.ready()
    assert owner(directory) == (VLLM, GROUP, 0o2770)
    assert owner(directory / "rank-0") == (VLLM, GROUP, 0o660)

    agent.ready()
    assert agent.ask("open_rank", 0) == {"alive": True, "pid": vllm.process.pid}
    until(lambda: agent.ask("observe")["requests_running"] == OWN_LIMIT)
    done = apply(agent, 3)
    assert (done["outcome"], done["read_back"]) == ("applied", 3.0)
    until(lambda: agent.ask("observe")["requests_running"] == 3)
    assert agent.ask("observe")["max_num_seqs"] == 3
    told = agent.ask("telemetry")["rank-0"]
    assert (told["running"], told["parked"], told["waiting"]) == (3, 5, 4)
    assert told["tokens_out_total"] > 0
    assert told["errors_total"] == 0

    stranger.ready()
    refused = stranger.ask("open_rank", 0)
    assert refused["error"] == "DevicePermission"
    refused = stranger.ask("observe")
    assert refused["error"] == "DevicePermission"
    assert (
        f"to a group of this user that may write, got user {VLLM}, group {GROUP}"
        in (refused["why"])
    )
    refused = stranger.ask("apply", 1)
    assert refused["outcome"] == "refused"
    assert f"got user {VLLM}, group {GROUP}" in refused["detail"]
    assert agent.ask("telemetry")["rank-0"]["max_num_seqs"] == 3


def test_one_agent_writes_whatever_its_user_and_the_next_may_be_another(
    start: Callable[..., Side], directory: Path
) -> None:
    vllm = start("scheduler", VLLM)
    first, second = start("agent", AGENT), start("agent", OTHER_AGENT)
    vllm.ready()
    first.ready()
    second.ready()
    assert apply(first, 4)["outcome"] == "applied"
    refused = second.ask("apply", 2)
    assert refused["outcome"] == "refused"
    assert "another agent" in refused["detail"]
    first.kill()
    done = apply(second, 2)
    assert (done["outcome"], done["read_back"]) == ("applied", 2.0)
    assert (directory / "agent.lock").stat().st_uid == AGENT


def test_a_directory_that_a_third_user_left_is_refused_by_both_sides(
    start: Callable[..., Side], directory: Path
) -> None:
    directory.mkdir(mode=0o755)
    os.chown(directory, STRANGER, STRANGER)
    vllm, agent = start("scheduler", VLLM), start("agent", AGENT)
    assert vllm.line() == "refused"
    assert "must belong to this user, to root, or to a group" in (log := vllm.kill())
    assert f"got user {STRANGER}, group {STRANGER}" in log
    agent.ready()
    assert agent.ask("observe")["error"] == "DevicePermission"
    assert list(directory.iterdir()) == []


def test_vllm_that_was_killed_is_seen_and_its_successor_takes_over(
    start: Callable[..., Side],
) -> None:
    vllm, agent = start("scheduler", VLLM).ready(), start("agent", AGENT).ready()
    assert apply(agent, 3)["outcome"] == "applied"
    second = start("scheduler", VLLM)
    assert second.line() == "refused"
    assert f"process {vllm.process.pid} uses it already" in second.kill()
    vllm.kill()
    assert agent.ask("observe")["error"] == "DeviceLost"
    again = start("scheduler", VLLM).ready()
    assert agent.ask("open_rank", 0) == {"alive": True, "pid": again.process.pid}
    until(lambda: agent.ask("observe")["requests_running"] == 3)


def test_a_file_that_somebody_removed_comes_back(
    start: Callable[..., Side], directory: Path
) -> None:
    start("scheduler", VLLM).ready()
    agent = start("agent", AGENT).ready()
    assert apply(agent, 3)["outcome"] == "applied"
    gone = directory.rename(directory.with_name("gone"))  # at once, or vLLM makes some of it anew
    shutil.rmtree(gone)
    # It may be back already.
    assert agent.ask("observe").get("error", "DeviceLost") == "DeviceLost"
    until(lambda: agent.ask("observe").get("requests_running") == 3)
    assert owner(directory / "rank-0") == (VLLM, GROUP, 0o660)
    assert agent.ask("telemetry")["rank-0"]["errors_total"] == 0


def test_an_agent_that_cannot_see_the_processes_of_others_sees_vllm_live_and_die(
    start: Callable[..., Side],
) -> None:
    inside = ("unshare", "--mount", "sh", "-c", HIDDEN_PROC, "sh")
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace with a /proc of its own can be made here")
    vllm, agent = start("scheduler", VLLM), start("agent", AGENT, inside=inside)
    vllm.ready()
    agent.ready()
    done = apply(agent, 3)
    assert (done["outcome"], done["read_back"]) == ("applied", 3.0), done
    vllm.kill()
    assert agent.ask("observe")["error"] == "DeviceLost"


def test_of_two_ranks_that_share_a_target_one_dies_and_returns(
    start: Callable[..., Side],
) -> None:
    ranks = [start("scheduler", VLLM, rank=rank) for rank in (0, 1)]
    agent = start("agent", AGENT)
    for side in (*ranks, agent):
        side.ready()

    def running() -> dict[str, int]:
        agent.ask("observe")  # as each tick does
        return {name: told["running"] for name, told in agent.ask("telemetry").items()}

    until(lambda: running() == {"rank-0": OWN_LIMIT, "rank-1": OWN_LIMIT})
    done = apply(agent, 7)
    assert (done["outcome"], done["read_back"]) == ("applied", 7.0)
    until(lambda: running() == {"rank-0": 4, "rank-1": 3})
    ranks[0].kill()
    until(lambda: running() == {"rank-1": 7})
    assert agent.ask("observe")["max_num_seqs"] == 7
    start("scheduler", VLLM, rank=0).ready()
    until(lambda: sorted(running().values()) == [3, 4])
    assert agent.ask("observe")["max_num_seqs"] == 7
