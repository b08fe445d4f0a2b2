"""One side of the channel as a process of its own, under another user.

``python -m tests.unit.node.vllm.channel_process SIDE UID GID GROUPS DIRECTORY [RANK]``, started by
root. It imports first and then becomes that user for good, so the interpreter and the checkout
need not be readable by it. ``scheduler`` steps a fake scheduler until it is killed; ``agent``
answers a JSON list per line, ``[method, argument...]``, with a JSON object.
"""

from __future__ import annotations

import ctypes
import dataclasses
import encodings.ascii  # noqa: F401 - reading /proc needs it, and then it is too late
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pals_grid.core.errors import PalsGridError
from pals_grid.core.site import Slo
from pals_grid.node.vllm.attach import attach_scheduler
from pals_grid.node.vllm.channel import RankFile
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.node.vllm.layout import BatchMode
from tests.unit.node.vllm.fake_scheduler import FakeScheduler, requests, tokens

OWN_LIMIT = 8
_STEP_S = 0.002
_SET_DUMPABLE = 4


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be that user, as a program that it had started would be."""
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self stays root's


def say(line: str) -> None:
    """Write a line to whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def schedule(rank: int) -> None:
    """Step a scheduler whose requests never end; say ``ready``, or ``refused``."""
    scheduler = FakeScheduler(limit=OWN_LIMIT, rank=rank, waiting=requests(12))
    control = attach_scheduler(scheduler)
    say("refused" if control is None else "ready")
    while control is not None:
        control.before(scheduler)
        output = scheduler.schedule()
        control.after(scheduler, output)
        time.sleep(_STEP_S)
        control.updated(scheduler, output, tokens(output))


class Agent:
    """The agent's side, by remote call."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._engine = VllmChannelEngine(directory, "m", Slo(), mode=BatchMode.PARK)

    def observe(self) -> dict[str, Any]:
        return dataclasses.asdict(self._engine.observe())

    def apply(self, max_num_seqs: int) -> dict[str, Any]:
        return dataclasses.asdict(self._engine.apply_max_num_seqs(max_num_seqs))

    def telemetry(self) -> dict[str, Any]:
        return {name: told._asdict() for name, told in self._engine.telemetry().items()}

    def release(self) -> dict[str, Any]:
        self._engine.release()
        return {}

    def open_rank(self, rank: int) -> dict[str, Any]:
        with RankFile.open(self._directory / f"rank-{rank}", RankFile.SIZE) as file:
            return {"alive": file.is_alive(), "pid": file.maker.pid}


def answer(agent: Agent) -> None:
    """Answer each line of standard input."""
    say("ready")
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            found = getattr(agent, method)(*arguments)
        except (PalsGridError, OSError) as error:
            found = {"error": type(error).__name__, "why": str(error)}
        say(json.dumps(found))


def main() -> None:
    """Run one side."""
    side, uid, gid, groups, directory, *rest = sys.argv[1:]
    become(int(uid), int(gid), [int(group) for group in groups.split(",") if group])
    if side == "scheduler":
        schedule(int(rest[0]))
    else:
        answer(Agent(Path(directory)))


if __name__ == "__main__":
    main()
