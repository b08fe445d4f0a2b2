from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.jobs import DaemonThreads, Jobs
from pals_grid.service.feeds import list_due_feeds
from pals_grid.service.nodes import authenticate_node, record_status
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, load_envelopes
from tests.unit.service.world import T0, World, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.store.engine import Database


@pytest.fixture
def world(database: Database) -> World:
    made = World(database)
    made.make_site()
    return made


def triggers(world: World) -> list[str]:
    return [plan.trigger for plan in list_plans(world.context, "oslo", Page()).items]


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(world: World) -> dict[str, int]:
    query = text(
        "SELECT job_id, count(*) AS times FROM job_run WHERE finished_at IS NOT NULL GROUP BY 1"
    )
    with world.database.read() as connection:
        return {row.job_id: row.times for row in connection.execute(query)}


def test_leader_does_everything_at_once_and_one_alone(world: World) -> None:
    world.make_feed()
    world.price.say(80)
    both = [Jobs(world.context, world.database.url) for _ in range(2)]
    for jobs in both:
        jobs.start()
    try:
        assert eventually(lambda: set(runs(world)) == {"tidy", "fetch", "replan:1"})
        assert [jobs.is_leader for jobs in both].count(True) == 1
    finally:
        for jobs in both:
            jobs.stop()
    assert list_due_feeds(world.context) == []
    assert "schedule" in triggers(world)
    assert not any(jobs.is_leader for jobs in both)


def test_each_site_is_planned_once_per_slot(world: World) -> None:
    world.make_site("bergen", slot_s=900.0)
    jobs = Jobs(world.context, world.database.url)
    for _ in range(3):
        jobs.replan_due()
        world.clock.advance(901)
    assert triggers(world) == ["schedule", "schedule"]
    assert len(list_plans(world.context, "bergen", Page()).items) == 3


def test_node_that_goes_offline_is_planned_without_at_once(world: World) -> None:
    nodes = [authenticate_node(world.context, world.register(n).node_token) for n in "abc"]
    jobs = Jobs(world.context, world.database.url)
    jobs.replan_due()
    made = len(triggers(world))
    for _ in range(3):
        world.clock.advance(20)
        record_status(world.context, nodes[1], status())
        jobs.replan_due()
    assert triggers(world)[:-made] == ["offline: a, c"]
    targets = {e.node_id: e.target_tokens_per_s for e in load_envelopes(world.context, "oslo")}
    assert targets == {node.id: 100 * (node is nodes[1]) for node in nodes}
    for node in nodes:
        record_status(world.context, node, status())
    world.clock.advance(15)
    jobs.replan_due()
    assert triggers(world)[:-made] == ["node c is back", "node a is back", "offline: a, c"]


def test_nodes_are_not_given_up_before_a_new_leader_could_hear_them(world: World) -> None:
    world.register("a")
    Jobs(world.context, world.database.url).replan_due()
    made = len(triggers(world))
    world.clock.advance(120)
    jobs = Jobs(world.context, world.database.url)
    jobs.start()
    try:
        assert eventually(lambda: jobs.is_leader and "tidy" in runs(world))
        jobs.replan_due()
        assert len(triggers(world)) == made
        world.clock.advance(60)
        jobs.replan_due()
        assert triggers(world)[:-made] == ["offline: a"]
    finally:
        jobs.stop()


def test_feed_removed_meanwhile_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = [world.make_feed(name=name) for name in "ab"]
    world.price.say(80)
    monkeypatch.setattr("pals_grid.jobs.list_due_feeds", lambda _: [99, *(f.id for f in feeds)])
    with pytest.raises(BaseExceptionGroup, match="fetches that failed") as caught:
        Jobs(world.context, world.database.url).fetch_due()
    assert [str(error) for error in caught.value.exceptions] == ["feed 99 does not exist"]
    assert list_due_feeds(world.context) == []
    assert world.clock.now() == T0


def test_slow_call_does_not_hold_up_the_end() -> None:
    threads, release = DaemonThreads("test"), threading.Event()
    slow = threads.submit(release.wait, 30)
    before = time.monotonic()
    threads.shutdown(wait=True)
    assert time.monotonic() - before < 3
    release.set()
    assert slow.result(timeout=5)


def test_error_of_a_call_is_in_its_future() -> None:
    future = DaemonThreads("test").submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result(timeout=5)
