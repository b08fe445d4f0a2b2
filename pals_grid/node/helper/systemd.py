"""The two words of systemd that a service needs: here is your socket, I am ready and alive."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_FD = 3


def inherited_listener(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the socket that systemd opened for this process (sd_listen_fds(3)), or None."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=FIRST_FD)


class Notifier:
    """Tells systemd the service's state (sd_notify(3)); tells nobody where nobody asked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")

    def tell(self, state: str) -> None:
        """Send ``READY=1``, ``WATCHDOG=1`` or ``STOPPING=1``."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.connect(address)
                channel.sendall(state.encode())
            except OSError:
                return  # then systemd restarts what it takes to be hung
