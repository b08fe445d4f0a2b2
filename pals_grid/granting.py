"""The thread in which a replica makes its live rounds, every few seconds."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from pals_grid.service.live.allocating import LiveAllocator

if TYPE_CHECKING:
    from pals_grid.service.context import Context

ROUND_S = 5.0
STOP_WAIT_S = 1.0

_log = logging.getLogger(__name__)


class GrantLoop:
    """Rounds at even distances until it is stopped; every replica has one.

    Which sites each decides about is a matter of leases in the database.
    """

    def __init__(self, context: Context, every_s: float = ROUND_S) -> None:
        # Not the process alone: after a restart nothing of what it knew is left.
        holder = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._clock = context.clock
        self._allocator = LiveAllocator(context, holder)
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-grants", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that runs, waiting up to a second for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        while True:
            begun_s = self._clock.monotonic_s()
            self._round()
            left_s = begun_s + self._every_s - self._clock.monotonic_s()
            if self._stopping.wait(max(0.0, left_s)):
                break
        try:
            self._allocator.stop()
        except SQLAlchemyError as error:
            _log.warning("live grants: leases run out by themselves: %s", error)

    def _round(self) -> None:
        try:
            done = self._allocator.round()
        except SQLAlchemyError as error:
            _log.warning("live grants: no round: %s", error)
        except Exception:  # noqa: BLE001 - the next round may do better
            _log.exception("live grants: a round failed")
        else:
            if done.took_s > self._every_s:
                _log.warning(
                    "live grants: a round of %d nodes took %.1f s", done.nodes, done.took_s
                )
