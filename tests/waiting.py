"""Waiting for what another thread or process does, and ports that stay ours until it binds them.

The waits are long: only a failure takes all of one.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 300.0
"""Longer than any process, thread or disk takes, also on a machine that stands still for minutes."""
_POLL_S = 0.01


def wait_until(
    holds: Callable[[], bool], what: Callable[[], str] = str, *, within_s: float = PATIENCE_S
) -> None:
    """Return when ``holds()``; else fail after ``within_s``, with what ``what()`` says then."""
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, f"not within {within_s:g} s: {what()}"
        time.sleep(_POLL_S)


def hold_port() -> socket.socket:
    """Bind a free port of the loopback and keep it from everybody but a server.

    It never listens: a server that reuses addresses binds the same port beside it, again and
    again, while the kernel gives it to nobody else.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
