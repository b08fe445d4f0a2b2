from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from pals_grid.core.errors import ConfigurationError
from pals_grid.store.engine import Database, lock, notify


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_url_comes_back_as_libpq_reads_it(scheme: str) -> None:
    database = Database(f"{scheme}://u:secret@h:5433/d?sslmode=require")
    assert database.url == "postgresql://u:secret@h:5433/d?sslmode=require"


@pytest.mark.parametrize("url", ["mysql://h/d", "postgresql+asyncpg://h/d", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://"):
        Database(url)


def test_begin_commits_and_rolls_back(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE t AS SELECT 1 AS n"))
    with suppress(ZeroDivisionError), database.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
        raise ZeroDivisionError
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM t")).scalars().all() == [1]


def test_read_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only"), database.read() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))


def test_read_sees_one_state(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
    with database.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
        with database.begin() as writer:
            writer.execute(text("INSERT INTO t VALUES (1)"))
        assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == 0


def test_sessions_run_in_utc(database: Database) -> None:
    with database.begin() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"


def test_sessions_end_what_hangs_unless_the_url_says_otherwise(database: Database) -> None:
    own = Database(
        f"{database.url}{'&' if '?' in database.url else '?'}options=-cstatement_timeout%3D7s"
    )
    try:
        found = []
        for each in (database, own):
            with each.begin() as connection:
                names = ("statement_timeout", "idle_in_transaction_session_timeout")
                found.append([connection.execute(text(f"SHOW {n}")).scalar_one() for n in names])
    finally:
        own.dispose()
    assert found == [["1min", "1min"], ["7s", "1min"]]


def test_ping_answers_or_raises(database: Database) -> None:
    database.ping()
    with pytest.raises(OperationalError):
        Database("postgresql://nobody@127.0.0.1:1/nothing").ping()


def test_notification_comes_with_the_commit_only(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as listener:
        listener.execute("LISTEN pals_grid")
        with suppress(ZeroDivisionError), database.begin() as connection:
            notify(connection, "plan", 1)
            raise ZeroDivisionError
        with database.begin() as connection:
            notify(connection, "plan", 2)
        payloads = [n.payload for n in listener.notifies(timeout=120, stop_after=1)]
    assert payloads == ["plan:2"]


def _await_waiting(database: Database) -> None:
    """Return once somebody waits for an advisory lock of this database."""
    query = text(
        "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database())"
    )
    deadline_s = time.monotonic() + 120
    while True:
        with database.read() as connection:
            if connection.execute(query).scalar_one():
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_lock_admits_one_transaction_at_a_time(database: Database) -> None:
    steps: list[str] = []

    def follow() -> None:
        with database.begin() as connection:
            lock(connection, "site", 1)
            steps.append("second")

    with database.begin() as connection:
        lock(connection, "site", 1)
        thread = threading.Thread(target=follow)
        thread.start()
        _await_waiting(database)
        steps.append("first")
    thread.join()
    assert steps == ["first", "second"]
