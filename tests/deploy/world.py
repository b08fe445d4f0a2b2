"""A node of real processes that a test kills, and what must be true of it at all times."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.node.files import write_durably
from pals_grid.node.helper.leases import LeaseFile
from pals_grid.wire.messages import (
    EnvelopeInterval,
    EnvelopeSchedule,
    NodeStatus,
    decode,
    encode,
)
from tests.deploy.processes import OVERHEAD, UUIDS
from tests.waiting import PATIENCE_S, hold_port

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

ORIGINALS = {"GPU-a": 350.0, "GPU-b": 300.0}
ROOT = Path(__file__).parents[2]


class Mother:
    """The process that all others are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.processes"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def fork(self, part: str, folder: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps([part, str(folder)]) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class Broken(AssertionError):
    """Something that must always be true was not."""


class Node:
    """Processes of one node in ``folder``; ``watch`` looks at limits and journal all the time."""

    def __init__(self, mother: Mother, folder: Path) -> None:
        self._mother = mother
        self.folder = folder
        folder.mkdir(parents=True)
        self._pids: dict[str, int] = {}
        self._version = 0
        self._sequence = 0
        self.event_end_at: datetime | None = None
        self.ceiling_w: float | None = None
        self.problems: list[str] = []
        self.kills = 0
        for uuid, limit_w in ORIGINALS.items():
            (folder / f"{uuid}.limit").write_text(repr(limit_w))
        (folder / "boot_id").write_text("0")
        self.order([])
        # A killed part comes back to the port it had: nobody else may have it meanwhile.
        self._ports = {part: hold_port() for part in ("page", "service")}
        for part, held in self._ports.items():
            (folder / f"{part}.port").write_text(str(held.getsockname()[1]))
            self.start(part)
            self.until(f"{part} listens", partial(_listens, held.getsockname()))

    # --- processes ---

    def start(self, part: str) -> None:
        if part not in self._pids:
            self._pids[part] = self._mother.fork(part, self.folder)

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        pid = self._pids.pop(part, None)
        if pid is not None:
            self.kills += number == signal.SIGKILL
            os.kill(pid, number)
            self.until(f"{part} is gone", lambda: not _is_alive(pid))

    def reboot(self) -> None:
        """Lose every process and the driver's limits; nothing is started yet."""
        for part in list(self._pids):
            self.kill(part)
        for uuid in ORIGINALS:
            (self.folder / f"{uuid}.limit").write_text("400.0")
        boot_id = self.folder / "boot_id"
        boot_id.write_text(f"{boot_id.read_text()}+")

    def end(self) -> None:
        for part in ("agent", "stalling", "dry-run", "helper"):
            with contextlib.suppress(ProcessLookupError):
                self.kill(part, signal.SIGTERM)
        for part, held in self._ports.items():
            with contextlib.suppress(ProcessLookupError):
                self.kill(part)
            held.close()

    # --- what it is told ---

    def order(self, intervals: Sequence[EnvelopeInterval]) -> None:
        self._version += 1
        schedule = EnvelopeSchedule(
            node_id=1,
            version=self._version,
            issued_at=datetime.now(UTC),
            safe_power_w=OVERHEAD.node_power_w(2 * 250.0),
            intervals=list(intervals),
        )
        write_durably(self.folder / "schedule.json", encode(schedule))

    def order_event(self, seconds: float, limit_w: float) -> None:
        """An event that is active now: ``limit_w`` for each GPU."""
        now = datetime.now(UTC)
        self.event_end_at = now + timedelta(seconds=seconds)
        event = _interval(now, self.event_end_at, limit_w, Reason.EVENT, event_id=7)
        later = _interval(
            self.event_end_at, self.event_end_at + timedelta(hours=1), 250.0, Reason.DEMAND
        )
        self.order([event, later])

    def order_demand(self, limit_w: float) -> None:
        now = datetime.now(UTC)
        self.event_end_at = None
        self.order([_interval(now, now + timedelta(hours=1), limit_w, Reason.DEMAND)])

    def order_grant(self, limit_w: float, lease_s: float) -> None:
        """Lend the node ``limit_w`` for each GPU."""
        self._sequence += 1
        told = {
            "sequence": self._sequence,
            "power_w": OVERHEAD.node_power_w(2 * limit_w),
            "until_s": time.monotonic() + lease_s,
        }
        write_durably(self.folder / "grant-order.json", json.dumps(told).encode())

    # --- what is seen ---

    @property
    def status(self) -> NodeStatus:
        """The newest that the service got."""
        return decode((self.folder / "status.json").read_bytes(), NodeStatus)

    @property
    def is_acknowledged(self) -> bool:
        """Whether the node says that it has the newest grant."""
        is_told = (self.folder / "status.json").exists()
        return is_told and self.status.grant_sequence == self._sequence

    @property
    def limits_w(self) -> dict[str, float]:
        return {uuid: float((self.folder / f"{uuid}.limit").read_text()) for uuid in UUIDS}

    @property
    def journal(self) -> dict[str, float]:
        try:
            text = (self.folder / "helper" / "original-limits.json").read_bytes()
        except FileNotFoundError:
            return {}
        found: dict[str, float] = json.loads(text)["power_limit_w"]
        return found

    @property
    def is_told(self) -> bool:
        """Whether the helper has the event on its disk."""
        record = LeaseFile(self.folder / "helper" / "leases.json").record
        return record is not None and any(hold.end_at == self.event_end_at for hold in record.holds)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def look(self) -> None:
        """Check what must always be true.

        The limit is read before the journal that has to know of it, and again after it.
        """
        before_w, journal, after_w = self.limits_w, self.journal, self.limits_w
        for uuid, original_w in ORIGINALS.items():
            if journal.get(uuid, original_w) != original_w:
                self.problems.append(f"the journal says {journal} of {ORIGINALS}")
            changed = original_w not in (before_w[uuid], after_w[uuid])
            if changed and uuid not in journal and uuid not in self.journal:
                self.problems.append(f"{uuid} at {after_w[uuid]} W, no original in the journal")
        ceiling_w, end_at = self.ceiling_w, self.event_end_at
        if ceiling_w is not None and end_at is not None and datetime.now(UTC) < end_at:
            over = [one for one in before_w.values() if one > ceiling_w + 0.5]
            if over:
                self.problems.append(f"{over} W in an event of {ceiling_w} W")

    def until(self, what: str, is_so: Callable[[], bool], seconds: float = 120.0) -> None:
        end_s = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end_s:
                raise Broken(f"not in {seconds:g} s: {what}; {self.limits_w}, {self.journal}")
            time.sleep(0.01)

    def pause(self, seconds: float) -> None:
        """Let time pass, looking all the while."""
        end_s = time.monotonic() + seconds
        while True:
            self.look()
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(0.005, left_s))


def play_round(node: Node, order: Sequence[str], dice: random.Random) -> None:
    """One round: a node under control, kill -9 in ``order``, then what has to be true.

    The helper is started again each time, as systemd does; the others by chance, in any order.
    Half of the rounds have an event.
    """
    in_event = dice.random() < 0.5
    node.ceiling_w = None
    for part in ("page", "service", "helper"):
        node.start(part)
    wanted_w = float(dice.randrange(120, 201, 10))
    if in_event:
        node.order_event(60.0, wanted_w)
    else:
        node.order_demand(wanted_w)
    node.start("agent")
    node.until("steered", lambda: max(node.limits_w.values()) <= wanted_w + 0.5)
    if in_event:
        node.until("told of the event", lambda: node.is_told)
        node.ceiling_w = wanted_w
        shorten_event(node, 0.7 + dice.random() * 0.6, wanted_w)
    for part in order:
        node.pause(dice.random() * 0.12)
        node.kill(part)
        if part == "helper" or dice.random() < 0.5:
            node.pause(dice.random() * 0.08)
            node.start(part)
    agent_lives = "agent" in node._pids
    if in_event:
        assert node.event_end_at is not None
        left_s = (node.event_end_at - datetime.now(UTC)).total_seconds()
        node.pause(max(0.0, left_s))
    node.ceiling_w = None
    if agent_lives:  # it may have come back to a dead service: then it has its schedule
        node.start("page")
        node.until("in control", lambda: set(node.journal) == set(ORIGINALS))
        node.kill("agent", dice.choice([signal.SIGTERM, signal.SIGKILL]))
    node.until("restored", lambda: node.limits_w == ORIGINALS and node.journal == {})
    node.look()


def shorten_event(node: Node, seconds: float, limit_w: float) -> None:
    """Let the event end soon, and the helper know of it in time; later where the machine is slow.

    Until the helper knows, the longer event holds.
    """
    for attempt in range(8):
        node.order_event(seconds * 2**attempt, limit_w)
        while node.event_end_at is not None and datetime.now(UTC) < node.event_end_at:
            if node.is_told and max(node.limits_w.values()) <= limit_w + 0.5:
                return
            time.sleep(0.01)
    raise Broken("the helper is never told in time")


def _interval(
    start_at: datetime,
    end_at: datetime,
    limit_w: float,
    reason: Reason,
    event_id: int | None = None,
) -> EnvelopeInterval:
    return EnvelopeInterval(
        start_at=start_at,
        end_at=end_at,
        power_min_w=0.0,
        power_max_w=OVERHEAD.node_power_w(2 * limit_w),
        target_tokens_per_s=0.0,
        reason=reason,
        event_id=event_id,
    )


def _listens(address: tuple[str, int]) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address, PATIENCE_S):
        return True
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
