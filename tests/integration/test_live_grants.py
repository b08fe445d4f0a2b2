"""Real nodes' parts under live grants, with all that goes wrong, against the allocator's book.

Loop, schedule, grants on the disk, status, beats and the helper are the production's; GPUs are
fakes whose limits are what is commanded. Time is simulated, clocks drift, messages and processes
get lost. Whatever happens, the nodes together may draw no more than the site's budget.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.outlook import SiteBudget
from pals_grid.core.budget import Reason
from pals_grid.core.commands import NodeCommand
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.site import Slo
from pals_grid.node import grants as grants_module
from pals_grid.node.course import Course
from pals_grid.node.decision import Decision
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.files import write_durably
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.helper.client import HelperOriginals, use_helper
from pals_grid.node.helper.keeper import Keeper, KeeperOptions
from pals_grid.node.helper.leases import LeaseFile
from pals_grid.node.holds import BeatMaker
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.node.status import StatusBoard
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.grant import Grant
    from pals_grid.core.ports import NodePower
    from pals_grid.node.helper.client import HelperClient
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.wire.messages import NodeStatus

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
STEP_S = 0.25
SCHEDULED_W = 640.0
MOST_W = 980.0
OVERHEAD = NodeOverhead(100.0, 0.1)
UNWRITTEN_W = 2.5
"""A limit that has to fall by less than 1 W is not written."""


class Killed(BaseException):
    """The agent is killed at this very line."""


class Wrong:
    """How much goes wrong: by message, by stored grant, and by node and second."""

    def __init__(self, lost: float, late: float, disk: float, deaths: float) -> None:
        self.lost, self.late, self.disk, self.deaths = lost, late, disk, deaths


class Obedient:
    """All GPUs at the limit that fills the envelope."""

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        del node_power, dt_s
        limit_w = min(400.0, max(100.0, OVERHEAD.gpu_power_w(envelope.power_max_w) / 2))
        return [Decision(0.0, NodeCommand(limit_w, 8, "obedient")) for _ in seen]

    def set_slo(self, slo: Slo) -> None:
        pass

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        pass


class DirectHelper:
    """The helper's client without a socket between."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def set_power_limit(self, uuid: str, power_limit_w: float) -> ActuationResult:
        return self._node.keeper.set_power_limit(uuid, power_limit_w)

    def release(self) -> tuple[str, ...]:
        return self._node.keeper.release()


class Node:
    """A machine with an agent and a helper; its own clock."""

    def __init__(self, index: int, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self.index = index
        self._rate = 1 + world.dice.uniform(-1, 1) * 9e-4
        self._offset_s = world.dice.uniform(0, 1e6)
        self.gpus = [FakeGpu(f"GPU-{index}-{i}") for i in range(2)]
        self.boots = 0
        self.off_until_s = self.hung_until_s = self.dead_until_s = 0.0
        self.is_up = True
        self.life = 0
        Lease(folder / "schedule.json", 0.0).store(_schedule())
        self._boot()
        self._start_agent()

    def now(self) -> datetime:
        return START_AT + timedelta(seconds=self._world.now_s)

    def monotonic_s(self) -> float:
        return self._offset_s + self._rate * self._world.now_s

    @property
    def commanded_w(self) -> float:
        if self.is_off:
            return 0.0
        return OVERHEAD.node_power_w(sum(gpu.limit_w for gpu in self.gpus))

    def turn(self) -> None:
        """What its processes do in a step, but for the network."""
        now_s = self._world.now_s
        if self.is_off and now_s < self.off_until_s:
            return
        if self.is_off:
            self._boot()
        if not self.is_up and now_s >= self.dead_until_s:
            self._start_agent()
        if self.is_up and now_s >= self.hung_until_s and self._is_due():
            self._tick()
        if self.keeper.is_silent():
            self.keeper.lose()
        self.keeper.look()

    def die(self, dead_s: float, *, in_order: bool = False) -> None:
        if self.is_up:
            self.is_up, self.dead_until_s = False, self._world.now_s + dead_s
            if in_order:
                assert self.loop.restore() == ()
            self.keeper.lose()

    def reboot(self, off_s: float) -> None:
        self.is_up, self.is_off, self.hung_until_s = False, True, 0.0
        self.boots += 1
        self.off_until_s = self._world.now_s + off_s
        self.dead_until_s = self.off_until_s + self._world.dice.uniform(1, 60)
        for gpu in self.gpus:
            gpu.limit_w = 400.0  # what the driver forgot

    def hear(self, grant: Grant, asked_s: float, life: int) -> None:
        if not self.is_up or life != self.life:
            return  # the connection died with the agent that asked
        try:
            taken = self.grants.take(grant, asked_s)
            self._world.counts["taken" if taken else "not taken"] += 1
        except Killed:
            self._world.counts["killed while storing"] += 1
            self.die(self._world.dice.uniform(0.5, 40))

    def _boot(self) -> None:
        """Start the helper, before any engine."""
        self.is_off = False
        self.keeper = Keeper(
            self.gpus,
            RestoreFile(self._folder / "original-limits.json"),
            LeaseFile(self._folder / "leases.json"),
            self,
            KeeperOptions(str(self.boots)),
        )
        self.keeper.look()

    def _start_agent(self) -> None:
        self.is_up = True
        self.life += 1
        points = (OperatingPoint(100.0, 8, 100.0, 200.0, 0.1, 0.02),)
        table = FrontierTable("Fake GPU", 2, "fake-model", 5.0, Origin.SIMULATED, points)
        unit = EngineUnit("e", FakeEngine(), tuple(self.gpus), table, Origin.SIMULATED)
        meter = LinearNodeMeter(OVERHEAD)
        client = cast("HelperClient", DirectHelper(self))
        hardware = use_helper(
            NodeHardware("fakes", Origin.SIMULATED, (unit,), meter, OVERHEAD), client
        )
        self.lease = Lease(self._folder / "schedule.json", 0.0)
        self.grants = LiveGrants(GrantFile(self._folder / "grant.json"), self)
        self.beats = BeatMaker(hardware)
        self.board = StatusBoard(takes_grants=True)
        self.loop = ControlLoop(
            hardware,
            Course(self.lease, self, self.grants, MOST_W),
            self,
            Slo(),
            HelperOriginals(client),
            strategy=Obedient(),
            announce=self._tell_helper,
        )
        self.tick_at_s = self._world.now_s
        self.status: NodeStatus | None = None

    def _is_due(self) -> bool:
        return self._world.now_s >= self.tick_at_s

    def _tick(self) -> None:
        self.tick_at_s = self._world.now_s + 0.5
        self.status = self.board.add(self.loop.tick())
        assert self.status.power_envelope_w <= MOST_W

    def _tell_helper(self, envelope: ActiveEnvelope, at: datetime) -> None:
        if self.keeper.holder is None:
            self.keeper.take("agent")
        self.keeper.hear()
        self.keeper.beat(
            self.beats.beat_at(self.lease.schedule, at, envelope.held, self.monotonic_s())
        )


class World:
    """A site of nodes, the network, and the book of a leader that may be replaced."""

    def __init__(self, count: int, seed: int, wrong: Wrong, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.wrong = wrong
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.budget_w = count * SCHEDULED_W
        self.worst_w = -1e9
        self.highest_w = 0.0
        self._mail: list[tuple[float, Callable[[], None]]] = []
        self._heard_s = [-1e9] * count
        self._newest_at = [START_AT] * count
        self.nodes = []
        for index in range(count):
            (folder / str(index)).mkdir()
            self.nodes.append(Node(index, self, folder / str(index)))
        self.book = self._new_book(1)
        self.run(1.0)
        self.worst_w = -1e9  # nobody had ticked before
        self.book.quiet_until_s = 0.0

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.now_s += STEP_S
            self._deliver()
            for node in self.dice.sample(self.nodes, len(self.nodes)):
                node.turn()
                self._look()
                self._break(node)
                self._look()
            if self.now_s % 1.0 == 0:
                for node in self.nodes:
                    self._speak(node)
            if self.now_s % 5.0 == 0:
                self._round()

    def store(self, path: Path, content: bytes) -> None:
        """Write a grant as the node would, or not, or half of the way."""
        kind = self.dice.random()
        if kind < self.wrong.disk:
            how = self.dice.randrange(4)
            if how % 2:
                write_durably(path, content)
            raise (Killed() if how < 2 else OSError("the disk fails"))
        write_durably(path, content)

    def _new_book(self, epoch: int) -> GrantBook:
        book = GrantBook(epoch, self.now_s)
        for node in self.nodes:
            book.join(node.index, SCHEDULED_W, MOST_W)
        return book

    def _look(self) -> None:
        limits_w = [node.commanded_w for node in self.nodes]
        self.worst_w = max(self.worst_w, sum(limits_w) - self.budget_w)
        self.highest_w = max(self.highest_w, *limits_w)

    def _break(self, node: Node) -> None:
        dice = self.dice
        if self.now_s < 1.5 or dice.random() >= self.wrong.deaths * STEP_S:
            return
        what = dice.choice(["kill", "stop", "hang", "reboot"])
        self.counts[what] += 1
        if what == "hang":
            node.hung_until_s = self.now_s + dice.uniform(1, 30)
        elif what == "reboot":
            node.reboot(dice.uniform(5, 60))
        else:
            node.die(dice.choice([2.0, dice.uniform(1, 120)]), in_order=what == "stop")

    def _speak(self, node: Node) -> None:
        status, node.status = node.status, None
        if status is None or not node.is_up:
            return
        asked_s, life = node.monotonic_s(), node.life
        self._send(lambda: self._hear(node, status, asked_s, life))

    def _hear(self, node: Node, status: NodeStatus, asked_s: float, life: int) -> None:
        assert status.takes_grants
        if status.at < self._newest_at[node.index]:
            return  # overtaken by a later one: what it says is no longer so
        self._newest_at[node.index] = status.at
        self.book.acknowledge(node.index, status.grant_epoch, status.grant_sequence)
        self._heard_s[node.index] = self.now_s
        grant = self.book.grant_for(node.index, self.now_s)
        if grant is not None:
            self._send(lambda: node.hear(grant, asked_s, life))

    def _round(self) -> None:
        if self.dice.random() < self.wrong.deaths:
            self.counts["takeover"] += 1
            self.book = self._new_book(self.book.epoch + 1)
        heard = [i for i, at_s in enumerate(self._heard_s) if self.now_s - at_s < 8.0]
        weights = [self.dice.choice([0.5, 1.0, 1.5]) for _ in heard]
        total_w = len(heard) * SCHEDULED_W
        targets_w = {
            i: min(MOST_W, max(330.0, total_w * w / sum(weights)))
            for i, w in zip(heard, weights, strict=True)
        }
        done = self.book.decide(self.now_s, SiteBudget(self.budget_w), targets_w)
        self.counts["raises"] += done.raises

    def _send(self, deliver: Callable[[], None]) -> None:
        dice = self.dice
        if dice.random() < self.wrong.lost:
            return
        for _ in range(1 + (dice.random() < 0.05)):
            delay_s = dice.uniform(0, 12) if dice.random() < self.wrong.late else 0.02
            self._mail.append((self.now_s + delay_s, deliver))

    def _deliver(self) -> None:
        due = [act for at_s, act in self._mail if at_s <= self.now_s]
        self._mail = [item for item in self._mail if item[0] > self.now_s]
        for act in due:
            act()


def _schedule() -> EnvelopeSchedule:
    """An event, so that the helper holds it without an agent."""
    event = EnvelopeInterval(
        start_at=START_AT - timedelta(hours=1),
        end_at=START_AT + timedelta(hours=9),
        power_min_w=0.0,
        power_max_w=SCHEDULED_W,
        target_tokens_per_s=0.0,
        reason=Reason.EVENT,
        event_id=7,
    )
    return EnvelopeSchedule(
        node_id=1, version=1, issued_at=START_AT, safe_power_w=SCHEDULED_W, intervals=[event]
    )


@pytest.fixture
def play(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, int, Wrong, float], World]:
    # No test machine loses its power here; what a process left is whole without waiting for disks.
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def run(count: int, seed: int, wrong: Wrong, seconds: float) -> World:
        folder = tmp_path_factory.mktemp("site")
        world = World.__new__(World)
        monkeypatch.setattr(grants_module, "write_durably", world.store)
        world.__init__(count, seed, wrong, folder)  # type: ignore[misc]
        world.run(seconds)
        return world

    return run


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    count=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    lost=st.floats(0, 0.4),
    late=st.floats(0, 0.4),
    disk=st.floats(0, 0.3),
    deaths=st.floats(0, 0.03),
)
def test_whatever_goes_wrong_the_nodes_together_stay_inside_the_budget(
    play: Callable[[int, int, Wrong, float], World],
    count: int,
    seed: int,
    lost: float,
    late: float,
    disk: float,
    deaths: float,
) -> None:
    world = play(count, seed, Wrong(lost, late, disk, deaths), 300.0)
    assert world.worst_w <= count * UNWRITTEN_W


def test_power_moves_between_real_nodes(play: Callable[[int, int, Wrong, float], World]) -> None:
    world = play(3, 1, Wrong(0.05, 0.05, 0.02, 0.002), 600.0)
    assert world.highest_w > SCHEDULED_W + 100.0
    assert world.worst_w <= 3 * UNWRITTEN_W
    assert world.worst_w > -50.0  # the budget is used
    assert world.counts["raises"] > 20
    assert world.counts["not taken"] > 0
    assert world.counts["killed while storing"] + world.counts["kill"] > 0
