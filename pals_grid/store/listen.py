"""LISTEN for asyncio: what ``store.engine.notify`` sends, to everyone who subscribed.

A subscriber that is slow finds one notification for each key that changed meanwhile, however
often it did; after a lost connection it finds one with key None, since some may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pals_grid.store.engine import NOTIFY_CHANNEL, plain_url
from pals_grid.store.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

_log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Notification:
    """Something of ``topic`` changed; key None: anything of it may have, read it all again."""

    topic: str
    key: str | None


class Subscription:
    """What one subscriber has yet to see, oldest first, each key once."""

    def __init__(self, topics: Collection[str], key: str | None = None) -> None:
        self.topics = frozenset(topics)
        self.key = key
        self._waiting: dict[Notification, None] = {}
        self._arrived = asyncio.Event()

    async def get(self, timeout_s: float) -> Notification | None:
        """Return the oldest notification; None when none came in time."""
        if not self._waiting:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except TimeoutError:
                return None
        notification = next(iter(self._waiting))
        del self._waiting[notification]
        return notification

    def offer(self, notification: Notification) -> None:
        """Take it if its topic is subscribed to."""
        if notification.topic in self.topics:
            self._waiting[notification] = None
            self._arrived.set()

    def offer_all(self) -> None:
        """Say of every topic that anything may have changed."""
        for topic in self.topics:
            self.offer(Notification(topic, None))


class Notifications:
    """One listening connection for a whole process."""

    def __init__(self, url: str) -> None:
        self._url = plain_url(url)
        # By key, so that one site's news does not go through the nodes of all others.
        self._subscriptions: dict[str | None, set[Subscription]] = {}
        self._connected = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled, connecting again after every loss."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                if self._connected.is_set():
                    retry_s = FIRST_RETRY_S
                _log.warning("notifications: %s; again in %.1f s", error, retry_s)
            finally:
                self._connected.clear()
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    async def wait_connected(self) -> None:
        """Return once notifications arrive; what changed before has to be read."""
        await self._connected.wait()

    @property
    def is_connected(self) -> bool:
        """Whether notifications arrive."""
        return self._connected.is_set()

    @asynccontextmanager
    async def subscribe(
        self, topics: Collection[str], key: str | None = None
    ) -> AsyncIterator[Subscription]:
        """Receive what is announced on ``topics`` from now on; of ``key`` alone, if it is given."""
        subscription = Subscription(topics, key)
        alike = self._subscriptions.setdefault(key, set())
        alike.add(subscription)
        try:
            yield subscription
        finally:
            alike.discard(subscription)
            if not alike and self._subscriptions.get(key) is alike:
                del self._subscriptions[key]

    def wake_all(self) -> None:
        """Have every subscriber look again, as after a lost connection."""
        for alike in self._subscriptions.values():
            for subscription in alike:
                subscription.offer_all()

    async def _listen(self) -> None:
        connection = await open_session(self._url, "listen")
        async with connection:
            await connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
            self._connected.set()
            self.wake_all()
            async for raw in connection.notifies():
                self._publish(raw.payload)

    def _publish(self, payload: str) -> None:
        topic, _, key = payload.partition(":")
        notification = Notification(topic, key)
        for wanted in (None, key):
            for subscription in self._subscriptions.get(wanted, ()):
                subscription.offer(notification)
