from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, replan_run
from pals_grid.service.runs import (
    load_progress,
    prune_runs,
    run_next_site,
    run_once,
    say_alive,
    say_gone,
)

if TYPE_CHECKING:
    from pals_grid.store.jobs import Claim
    from tests.unit.service.world import World

SLOT = timedelta(minutes=30)


def rows(world: World) -> list[tuple[object, ...]]:
    with world.database.read() as connection:
        found = connection.execute(
            text("SELECT job_id, claimed_by, finished_at IS NOT NULL, error FROM job_run"
                 " ORDER BY scheduled_for")
        )  # fmt: skip
        return [tuple(row) for row in found]


def test_work_is_done_once_per_slot(world: World) -> None:
    done: list[int] = []
    for minute in (0, 10, 29, 31):
        world.clock.advance(60 * minute - world.clock.monotonic_s())
        run_once(world.context, "j", SLOT, "me", lambda at=minute: done.append(at))  # type: ignore[misc]
    assert done == [0, 31]
    assert rows(world) == [("j", "me", True, None)] * 2


def test_one_of_many_claims(world: World) -> None:
    done: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        claims = [
            pool.submit(run_once, world.context, "j", SLOT, f"p{i}", lambda: done.append(1))
            for i in range(4)
        ]
    assert sorted(claim.result() for claim in claims) == [False, False, False, True]
    assert done == [1]


def test_error_is_kept_and_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("disk full")

    assert run_once(world.context, "j", SLOT, "me", fail)
    assert rows(world) == [("j", "me", True, "RuntimeError: disk full")]
    assert "job j failed" in caplog.text


def test_failed_run_is_done_again_after_a_minute(world: World) -> None:
    errors = [RuntimeError("database is away")]

    def work() -> None:
        if errors:
            raise errors.pop()

    claims = []
    for _ in range(4):
        claims.append(run_once(world.context, "j", SLOT, "me", work))
        world.clock.advance(30)
    assert claims == [True, False, True, False]
    assert rows(world) == [("j", "me", True, None)]


def test_run_that_nobody_finished_is_done_again_after_ten_minutes(world: World) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(world.context, "j", SLOT, "me", die)
    world.clock.advance(599)
    assert not run_once(world.context, "j", SLOT, "you", lambda: None)
    world.clock.advance(1)
    assert run_once(world.context, "j", SLOT, "you", lambda: None)
    assert rows(world) == [("j", "you", True, None)]


def test_old_runs_are_pruned(world: World) -> None:
    run_once(world.context, "j", SLOT, "me", lambda: None)
    world.clock.advance(3 * 86_400)
    run_once(world.context, "j", SLOT, "me", lambda: None)
    assert prune_runs(world.context) == 1
    assert len(rows(world)) == 1


def age_replica(world: World, name: str, seconds: float) -> None:
    with world.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replica SET seen_at = seen_at - make_interval(secs => :s) WHERE name = :n"
            ),
            {"s": seconds, "n": name},
        )


def die() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("silent_s", "is_taken"), [(10, False), (25, True)])
def test_run_of_a_dead_process_is_free_at_once(
    world: World, silent_s: float, *, is_taken: bool
) -> None:
    say_alive(world.context, "me")
    with pytest.raises(KeyboardInterrupt):
        run_once(world.context, "j", SLOT, "me", die)
    age_replica(world, "me", silent_s)
    assert run_once(world.context, "j", SLOT, "you", lambda: None) is is_taken


def test_run_of_a_process_that_left_is_free_at_once(world: World) -> None:
    say_alive(world.context, "me")
    with pytest.raises(KeyboardInterrupt):
        run_once(world.context, "j", SLOT, "me", die)
    say_gone(world.context, "me")
    assert run_once(world.context, "j", SLOT, "you", lambda: None)


def test_sites_are_taken_by_many_and_each_once_in_its_slot(world: World) -> None:
    ids = [world.make_site(f"site-{i}", slot_s=600.0).id for i in range(8)]
    done: list[int] = []

    def take(name: str) -> None:
        def work(site_id: int, _: Claim) -> None:
            done.append(site_id)

        while run_next_site(world.context, "j", None, name, work):
            pass

    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(take, "abcd"))
        world.clock.advance(600)
    assert sorted(done) == sorted(ids * 2)


def test_plan_of_a_run_that_was_given_up_is_not_stored(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.make_site()
    say_alive(world.context, "slow")

    def while_another_takes_over(site_id: int, claim: Claim) -> None:
        age_replica(world, "slow", 25)
        assert run_next_site(world.context, "replan", None, "fast", plan)
        plan(site_id, claim)

    def plan(site_id: int, claim: Claim) -> None:
        replan_run(world.context, site_id, claim.claimed_by, claim)

    assert run_next_site(world.context, "replan", None, "slow", while_another_takes_over)
    plans = list_plans(world.context, "oslo", Page()).items
    assert [one.trigger for one in plans] == ["fast"]
    assert rows(world) == [("replan:1", "fast", True, None)]
    assert "was taken over from slow" in caplog.text


def test_progress_counts_sites_done_in_their_slot_and_the_oldest_wait(world: World) -> None:
    for i in range(3):
        world.make_site(f"site-{i}", slot_s=600.0)
    world.clock.advance(90)
    assert run_next_site(world.context, "replan", None, "me", lambda *_: None)
    found = load_progress(world.context, "replan")
    assert (found.sites, found.done, found.lag_s) == (3, 1, 90.0)
    for _ in range(2):
        run_next_site(world.context, "replan", None, "me", lambda *_: None)
    found = load_progress(world.context, "replan")
    assert (found.sites, found.done, found.lag_s) == (3, 3, 0.0)
