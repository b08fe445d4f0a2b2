"""Stopping: the first signal ends the process in order, wherever it is."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from pals_grid.core.errors import PalsGridError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fastapi import FastAPI

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# An open event stream or long-poll would else hold the server for as long as it likes.
DRAIN_S = 1


class StopRequested(BaseException):
    """A signal came while there was no server yet to take it."""


class Stopper:
    """Takes SIGINT, SIGTERM and SIGHUP from the start of the process to its end."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._requested = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Own the signals; a stop that was asked for ends this block without an error."""
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        except StopRequested:
            pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def serve(
        self,
        app: FastAPI,
        listening: socket.socket,
        *,
        on_started: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        """Serve until a signal. ``on_stop`` runs while the service still answers.

        Raises:
            PalsGridError: when the server could not start.
        """
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
        self._server = _Server(config, app, on_started, on_stop)
        self._server.run(sockets=[listening])
        if not self._server.started and not self._server.asked:
            raise PalsGridError("the HTTP server did not start; the log above says why")

    def _take(self, number: int, frame: FrameType | None) -> None:
        """Stop; a second signal must not disturb what the first one began."""
        if self._server is not None:
            self._server.handle_exit(number, frame)
        elif not self._requested:
            self._requested = True
            raise StopRequested


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        on_started: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._app = app
        self._on_started = on_started
        self._on_stop = on_stop
        self.asked = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so when it is done."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if not self.should_exit:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        """Stop in order; uvicorn itself would force the exit at a second Ctrl-C."""
        if not self.asked:
            self.asked = True
            threading.Thread(target=self._wind_down, name="stop").start()

    def _wind_down(self) -> None:
        try:
            self._on_stop()
        finally:
            self._app.state.stopping = True
            self._loop.call_soon_threadsafe(self._app.state.notifications.wake_all)
            self.should_exit = True
