from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pals_grid.core.clock import SystemClock
from pals_grid.core.site import LiveGrants
from pals_grid.granting import GrantLoop
from pals_grid.service.live.allocating import LiveAllocator
from pals_grid.service.live.views import load_live
from tests.unit.service.live.live_world import QUIET_S
from tests.unit.service.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.store.engine import Database

REPLICA = """
import sys
from pals_grid.core.clock import SystemClock
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.granting import GrantLoop
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.store.engine import Database

context = Context(
    Database(sys.argv[1]), SystemClock(), ConnectorRegistry({}), RecordedHttp({}), plan_power_budget
)
GrantLoop(context, every_s=0.2).start()
sys.stdin.read()
"""


@pytest.fixture
def world(database: Database) -> World:
    made = World(database)
    made.context = replace(made.context, clock=SystemClock())
    made.make_site(live_grants=LiveGrants.ON.value)
    made.register("a")
    return made


def eventually(holds: Callable[[], bool], within_s: float = 180.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def epoch(world: World) -> int:
    last = load_live(world.context, "oslo").last
    return last.epoch if last is not None else 0


def test_a_replica_that_is_killed_is_followed_and_the_next_one_is_quiet(world: World) -> None:
    command = [sys.executable, "-c", REPLICA, world.database.url]
    heir = GrantLoop(world.context, every_s=0.2)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as killed:
        try:
            assert eventually(lambda: epoch(world) > 0)
            first = epoch(world)
            begun_s = time.monotonic()
            heir.start()
        finally:
            os.kill(killed.pid, signal.SIGKILL)
    try:
        # The lease has to run out: 15 s of the database's own clock.
        assert eventually(lambda: epoch(world) > first)
        made = load_live(world.context, "oslo").last
        assert made is not None
        assert made.record.quiet_for_s > QUIET_S - (time.monotonic() - begun_s)
    finally:
        heir.stop()


def test_it_goes_on_after_a_round_that_failed_and_lets_its_sites_go(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [OperationalError("SELECT 1", {}, OSError("away")), ValueError("x")]
    round_once = LiveAllocator.round

    def failing(own: LiveAllocator) -> object:
        if errors:
            raise errors.pop(0)
        return round_once(own)

    monkeypatch.setattr(LiveAllocator, "round", failing)
    loop = GrantLoop(world.context, every_s=0.05)
    loop.start()
    try:
        assert eventually(lambda: epoch(world) > 0)
    finally:
        loop.stop()
    assert "no round" in caplog.text
    assert "a round failed" in caplog.text

    def holders() -> list[object]:
        with world.database.read() as connection:
            return list(connection.execute(text("SELECT holder FROM site_lease")).scalars())

    assert eventually(lambda: holders() == [None])
