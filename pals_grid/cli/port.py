"""The service's address, taken before anything else is started."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pals_grid.settings import Settings

_BACKLOG = 2048


def take_port(settings: Settings) -> socket.socket:
    """Listen on the service's address; who connects early waits.

    Raises:
        ConfigurationError: names the port or the host, and the variable that sets it.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        message = f"PALS_GRID_HOST: must be a name or address of this machine, got {host!r}"
        raise ConfigurationError(message) from error
    family, kind, protocol, _, address = found[0]
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(_BACKLOG)
    except OSError as error:
        taken.close()
        raise ConfigurationError(_explain(error, host, port)) from error
    return taken


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"PALS_GRID_PORT: must be a free port, got {port}, which another program on {host} "
            f"uses; stop that program or choose another port: PALS_GRID_PORT={port % 65_535 + 1}"
        )
    if error.errno == errno.EACCES:
        return f"PALS_GRID_PORT: must be a port that this user may open, got {port}"
    return f"PALS_GRID_HOST: must be an address of this machine, got {host!r}: {error.strerror}"
