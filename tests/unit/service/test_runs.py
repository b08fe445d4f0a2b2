from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.service.runs import prune_runs, run_once

if TYPE_CHECKING:
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
