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
"""Longer than any process, thread or disk takes, also where a machine stands still for minutes."""
STALL_S = 0.5
_POLL_S = 0.01


def wait_until(
    holds: Callable[[], bool], what: Callable[[], str] = str, *, within_s: float = PATIENCE_S
) -> float:
    """Wait until ``holds()``; return the seconds that took. Else fail, with what ``what()`` says.

    A machine may stand still for seconds, and all that is waited for with it: of the time between
    two looks no more than ``STALL_S`` counts.
    """
    begun_s = last_s = time.monotonic()
    spent_s = 0.0
    while not holds():
        assert spent_s < within_s, f"not within {within_s:g} s: {what()}"
        time.sleep(_POLL_S)
        now_s = time.monotonic()
        spent_s += min(now_s - last_s, STALL_S)
        last_s = now_s
    return time.monotonic() - begun_s


def hold_port() -> socket.socket:
    """Bind a free port of the loopback and keep it from everybody but a server.

    It never listens: a server that reuses addresses binds the same port beside it, again and
    again, while the kernel gives it to nobody else.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
