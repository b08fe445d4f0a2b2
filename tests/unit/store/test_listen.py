from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import text

from pals_grid.store.engine import notify
from pals_grid.store.listen import Notification, Notifications, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pals_grid.store.engine import Database

WAIT_S = 120.0


@asynccontextmanager
async def _listening(url: str) -> AsyncIterator[Notifications]:
    notifications = Notifications(url)
    task = asyncio.create_task(notifications.run())
    try:
        await asyncio.wait_for(notifications.wait_connected(), WAIT_S)
        yield notifications
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _announce(database: Database, *changes: tuple[str, int]) -> None:
    with database.begin() as connection:
        for topic, key in changes:
            notify(connection, topic, key)


def test_every_subscriber_hears_its_topics(database: Database) -> None:
    async def scenario() -> None:
        async with (
            _listening(database.url) as notifications,
            notifications.subscribe({"plan", "event"}) as both,
            notifications.subscribe({"event"}) as events,
        ):
            assert notifications.is_connected
            await asyncio.to_thread(_announce, database, ("plan", 1), ("event", 2))
            assert await both.get(WAIT_S) == Notification("plan", "1")
            assert await both.get(WAIT_S) == Notification("event", "2")
            assert await events.get(WAIT_S) == Notification("event", "2")
            assert await events.get(0.01) is None
        assert not notifications.is_connected

    asyncio.run(scenario())


def test_slow_subscriber_finds_each_key_once(database: Database) -> None:
    async def scenario() -> None:
        async with (
            _listening(database.url) as notifications,
            notifications.subscribe({"plan"}) as slow,
            notifications.subscribe({"event"}) as probe,
        ):
            for _ in range(20):
                await asyncio.to_thread(_announce, database, ("plan", 1), ("plan", 2))
            await asyncio.to_thread(_announce, database, ("event", 0))
            await probe.get(WAIT_S)
            heard = {await slow.get(WAIT_S), await slow.get(WAIT_S)}
            assert heard == {Notification("plan", "1"), Notification("plan", "2")}
            assert await slow.get(0.01) is None

    asyncio.run(scenario())


def test_subscriber_of_a_key_hears_that_alone_and_every_wake(database: Database) -> None:
    async def scenario() -> None:
        async with (
            _listening(database.url) as notifications,
            notifications.subscribe({"plan"}, "2") as second,
            notifications.subscribe({"plan"}) as all_keys,
        ):
            await asyncio.to_thread(_announce, database, ("plan", 1), ("plan", 2))
            assert await second.get(WAIT_S) == Notification("plan", "2")
            assert await second.get(0.01) is None
            assert await all_keys.get(WAIT_S) == Notification("plan", "1")
            notifications.wake_all()
            assert await second.get(WAIT_S) == Notification("plan", None)

    asyncio.run(scenario())


def test_lost_connection_is_made_again_and_told(database: Database) -> None:
    def cut_off() -> None:
        with database.begin() as connection:
            query = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'pals-grid listen' AND datname = current_database()"
            )
            assert connection.execute(text(query)).scalars().all() == [True]

    async def scenario() -> None:
        async with (
            _listening(database.url) as notifications,
            notifications.subscribe({"plan"}) as plans,
        ):
            await asyncio.to_thread(cut_off)
            assert await plans.get(WAIT_S) == Notification("plan", None)
            await asyncio.to_thread(_announce, database, ("plan", 3))
            assert await plans.get(WAIT_S) == Notification("plan", "3")

    asyncio.run(scenario())


def test_server_that_comes_up_later_is_found(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        name = connection.info.dbname
    late = database.url.replace(name, f"{name}_late")

    async def scenario() -> None:
        notifications = Notifications(late)
        task = asyncio.create_task(notifications.run())
        await asyncio.sleep(0.05)
        assert not notifications.is_connected
        await asyncio.to_thread(_make, f"CREATE DATABASE {name}_late TEMPLATE template0")
        await asyncio.wait_for(notifications.wait_connected(), WAIT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(_make, f"DROP DATABASE {name}_late WITH (FORCE)")

    def _make(statement: str) -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(statement)

    asyncio.run(scenario())


def test_subscription_waits_no_longer_than_asked() -> None:
    async def scenario() -> None:
        subscription = Subscription({"plan"})
        assert await subscription.get(0.0) is None
        subscription.offer(Notification("plan", "1"))
        assert await subscription.get(0.0) == Notification("plan", "1")

    asyncio.run(scenario())
