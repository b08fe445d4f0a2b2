from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.jobs import Jobs
from pals_grid.service.feeds import claim_due_feed, list_due_feeds
from pals_grid.service.nodes import authenticate_node, record_status
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, load_envelopes
from pals_grid.service.runs import load_replicas
from tests.unit.service.world import World, status

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


def eventually(holds: Callable[[], bool], within_s: float = 180.0) -> bool:
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


def plan_all(jobs: Jobs) -> int:
    done = 0
    while jobs.plan_next():
        done += 1
    return done


def test_replicas_do_everything_between_them_and_nothing_twice(world: World) -> None:
    world.make_feed()
    world.price.say(80)
    for slug in ("bergen", "narvik", "voss"):
        world.make_site(slug)
    sites = {f"{job}:{number}" for job in ("replan", "prune", "forecast") for number in range(1, 5)}
    both = [Jobs(world.context) for _ in range(2)]
    for jobs in both:
        jobs.start()
    try:
        assert eventually(lambda: set(runs(world)) == {"tidy", "demand", *sites})
        assert eventually(lambda: world.price.windows != [])
    finally:
        for jobs in both:
            jobs.stop()
    assert list_due_feeds(world.context) == []
    assert triggers(world).count("schedule") == 1
    assert set(runs(world).values()) == {1}
    assert [lives for _, lives, _ in load_replicas(world.context)] == [False, False]


def test_each_site_is_planned_once_per_slot(world: World) -> None:
    world.make_site("bergen", slot_s=900.0)
    jobs = Jobs(world.context)
    planned = []
    for _ in range(3):
        planned.append(plan_all(jobs))
        world.clock.advance(901)
    assert planned == [2, 1, 2]
    assert triggers(world) == ["schedule", "schedule"]
    assert len(list_plans(world.context, "bergen", Page()).items) == 3


def test_site_whose_slot_ends_first_is_planned_first(world: World) -> None:
    world.make_site("bergen", slot_s=900.0)
    jobs = Jobs(world.context)
    assert jobs.plan_next()
    assert triggers(world) == []
    assert jobs.plan_next()
    assert triggers(world) == ["schedule"]


def test_node_that_goes_offline_is_planned_without_at_once(world: World) -> None:
    nodes = [authenticate_node(world.context, world.register(n).node_token) for n in "abc"]
    jobs = Jobs(world.context)
    plan_all(jobs)
    made = len(triggers(world))
    for _ in range(3):
        world.clock.advance(20)
        record_status(world.context, nodes[1], status())
        jobs.replan_newly_offline()
    assert triggers(world)[:-made] == ["offline: a, c"]
    targets = {e.node_id: e.target_tokens_per_s for e in load_envelopes(world.context, "oslo")}
    assert targets == {node.id: 100 * (node is nodes[1]) for node in nodes}
    for node in nodes:
        record_status(world.context, node, status())
    world.clock.advance(15)
    jobs.replan_newly_offline()
    assert triggers(world)[:-made] == ["node c is back", "node a is back", "offline: a, c"]


def test_nodes_are_not_given_up_before_a_new_replica_could_hear_them(world: World) -> None:
    world.register("a")
    plan_all(Jobs(world.context))
    made = len(triggers(world))
    world.clock.advance(120)
    jobs = Jobs(world.context)
    jobs.start()
    try:
        jobs.replan_newly_offline()
        assert len(triggers(world)) == made
        world.clock.advance(60)
        jobs.replan_newly_offline()
        assert triggers(world)[:-made] == ["offline: a"]
    finally:
        jobs.stop()


def test_each_due_feed_is_taken_by_one(world: World) -> None:
    feeds = [world.make_feed(name=name).id for name in "abc"]
    world.price.say(80)
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda _: claim_due_feed(world.context), range(6)))
    assert sorted(one for one in taken if one is not None) == feeds
    world.clock.advance(299)
    assert claim_due_feed(world.context) is None
    world.clock.advance(1)  # whoever took them is dead
    jobs = Jobs(world.context)
    assert [jobs.fetch_next() for _ in range(4)] == [True, True, True, False]
    assert len(world.price.windows) == 3
    assert list_due_feeds(world.context) == []


def test_a_piece_of_work_that_fails_stops_no_thread(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.make_feed()

    def fail(*_: object) -> None:
        raise ArithmeticError("as it may")

    monkeypatch.setattr("pals_grid.jobs.fetch_feed", fail)
    jobs = Jobs(world.context)
    jobs.start()
    try:
        assert eventually(
            lambda: "jobs-fetch-0 failed" in caplog.text or "as it may" in caplog.text
        )
        assert eventually(lambda: runs(world).get("replan:1") == 1)
    finally:
        jobs.stop()


def test_slow_fetch_does_not_hold_up_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        release.wait(300)
        ended.set()

    monkeypatch.setattr("pals_grid.jobs.fetch_feed", slow)
    world.make_feed()
    jobs = Jobs(world.context)
    jobs.start()
    try:
        assert begun.wait(180)
        jobs.stop()
        assert not ended.is_set()
    finally:
        release.set()
        assert ended.wait(180)
