from __future__ import annotations

import subprocess
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from pals_grid.store.leadership import Leadership

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.store.engine import Database

WAIT_S = 10.0
STEAL = """
import sys, time
from pals_grid.store.leadership import Leadership
Leadership(sys.argv[1], on_elected=lambda: print("elected", flush=True), on_lost=int).start()
time.sleep(60)
"""


class Candidate:
    """A leadership whose calls can be waited for."""

    def __init__(self, url: str, name: str = "jobs") -> None:
        self.calls: SimpleQueue[str] = SimpleQueue()
        self.leadership = Leadership(
            url,
            on_elected=lambda: self.calls.put("elected"),
            on_lost=lambda: self.calls.put("lost"),
            name=name,
        )
        self.leadership.start()

    def next_call(self, timeout_s: float = WAIT_S) -> str:
        return self.calls.get(timeout=timeout_s)


@pytest.fixture
def candidates(database: Database) -> Iterator[tuple[Candidate, Candidate]]:
    first = Candidate(database.url)
    assert first.next_call() == "elected"
    second = Candidate(database.url)
    yield first, second
    first.leadership.stop()
    second.leadership.stop()


def test_one_leads_and_the_other_follows_when_it_stops(
    candidates: tuple[Candidate, Candidate],
) -> None:
    first, second = candidates
    with pytest.raises(Empty):
        second.next_call(timeout_s=0.1)
    assert (first.leadership.is_leader, second.leadership.is_leader) == (True, False)
    first.leadership.stop()
    assert first.next_call() == "lost"
    assert second.next_call() == "elected"
    assert (first.leadership.is_leader, second.leadership.is_leader) == (False, True)


def test_leader_that_is_cut_off_hears_of_it_and_stands_again(
    database: Database, candidates: tuple[Candidate, Candidate]
) -> None:
    first, second = candidates
    _await_candidates(database, 2)
    with database.begin() as connection:
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert connection.execute(text(query)).scalars().all() == [True]
    assert first.next_call() == "lost"
    assert second.next_call() == "elected"
    assert not first.leadership.is_leader
    second.leadership.stop()
    assert first.next_call() == "elected"


def test_stop_ends_the_wait_at_once(
    database: Database, candidates: tuple[Candidate, Candidate]
) -> None:
    _, second = candidates
    _await_candidates(database, 2)
    began = time.monotonic()
    second.leadership.stop()
    assert time.monotonic() - began < 1.0
    assert second.calls.empty()
    _await_candidates(database, 1)


def test_killed_leader_is_followed(database: Database) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STEAL, database.url], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "elected\n"
        candidate = Candidate(database.url)
        with pytest.raises(Empty):
            candidate.next_call(timeout_s=0.1)
        other.kill()
        assert candidate.next_call() == "elected"
    candidate.leadership.stop()


def test_names_are_led_apart(database: Database) -> None:
    candidates = [Candidate(database.url, name) for name in ("jobs", "replay")]
    assert [candidate.next_call() for candidate in candidates] == ["elected", "elected"]
    for candidate in candidates:
        candidate.leadership.stop()


def test_stop_while_nothing_answers_is_prompt() -> None:
    candidate = Candidate("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(Empty):
        candidate.next_call(timeout_s=0.1)
    candidate.leadership.stop()
    candidate.leadership.stop()
    assert not candidate.leadership.is_leader


def test_stop_without_start_is_nothing() -> None:
    never = Leadership("postgresql://h/d", on_elected=lambda: None, on_lost=lambda: None)
    never.stop()
    assert not never.is_leader


def test_callback_that_fails_gives_the_lock_to_another(database: Database) -> None:
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ZeroDivisionError

    broken = Leadership(database.url, on_elected=fail, on_lost=lambda: None)
    broken.start()
    assert failed.wait(WAIT_S)
    candidate = Candidate(database.url)
    assert candidate.next_call() == "elected"
    broken.stop()
    candidate.leadership.stop()


def _await_candidates(database: Database, count: int) -> None:
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    deadline = time.monotonic() + WAIT_S
    while True:
        with database.begin() as connection:
            found = connection.execute(query).scalar_one()
        if found == count:
            return
        assert time.monotonic() < deadline, f"{found} candidates instead of {count}"
        time.sleep(0.02)
