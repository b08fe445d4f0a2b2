"""One leader among processes: who holds a session-level advisory lock.

The lock goes with its connection, so a leader that dies is followed within milliseconds, and one
whose host is unplugged once TCP notices (about 6 s with these keepalives, against 40 s and more).
A leader that hangs keeps the lock: what it does twice must be claimed in the database as well.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from pals_grid.store.engine import plain_url
from pals_grid.store.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.store.session import Session

_log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
RETRY_S = 0.5


class Leadership:
    """Waits for the lock in a thread of its own.

    ``on_elected`` and ``on_lost`` are called in that thread, in turns; ``on_lost`` is called
    after a loss and also when a leader stops, while it still holds the lock.
    """

    def __init__(
        self,
        url: str,
        *,
        on_elected: Callable[[], None],
        on_lost: Callable[[], None],
        name: str = "jobs",
    ) -> None:
        self._url = plain_url(url)
        self._name = name
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._leading = threading.Event()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"leadership-{name}", daemon=True)

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._leading.is_set()

    def start(self) -> None:
        """Begin to wait for the lock."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        """Give up the lock, or the wait for it; returns when that is done."""
        if self._loop is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._run_until_stopped())

    async def _run_until_stopped(self) -> None:
        campaign = asyncio.create_task(self._campaign())
        await self._stopping.wait()
        campaign.cancel()
        with suppress(asyncio.CancelledError):
            await campaign

    async def _campaign(self) -> None:
        while True:
            try:
                await self._lead_once()
            except (psycopg.Error, OSError) as error:
                _log.warning("leadership of %s: %s", self._name, error)
            except Exception:  # noqa: BLE001  # a callback's; the next leader may do better
                _log.exception("leadership of %s: a callback failed", self._name)
            await asyncio.sleep(RETRY_S)

    async def _lead_once(self) -> None:
        connection = await open_session(self._url, f"leader {self._name}")
        async with connection:
            await connection.execute(
                "SELECT pg_advisory_lock(hashtextextended(%s, 0))",
                (f"pals_grid.leader:{self._name}",),
            )
            _log.info("leadership of %s: won", self._name)
            self._leading.set()
            try:
                self._on_elected()
                await _until_lost(connection)
            finally:
                self._leading.clear()
                _log.info("leadership of %s: over", self._name)
                self._on_lost()


async def _until_lost(connection: Session) -> None:
    """Return by raising OperationalError, at once when the server closes the connection."""
    while True:
        async for _ in connection.notifies(timeout=HEARTBEAT_S):
            pass
        await connection.execute("SELECT 1")
