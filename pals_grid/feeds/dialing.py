"""Sockets of one call: each goes to an address that was checked, and ends with the call's time."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, Protocol, Self

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pals_grid.feeds.addresses import look_up_within

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool

    from pals_grid.feeds.addresses import AddressRule, Lookup


class Dial(Protocol):
    """Opens a socket to a host by name."""

    def __call__(self, host: str, port: int) -> socket.socket:
        """Connect; raises OSError or FeedRejected."""
        ...


class CallTime:
    """The time of one call: when it is up every socket of it is shut, whatever it waits for.

    A socket's own time-out begins anew with each byte, so that a provider which sends one byte a
    second would be listened to for ever.
    """

    def __init__(self, duration_s: float) -> None:
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._timer = Timer(duration_s, self._end)
        self._timer.daemon = True
        self.is_up = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for held in self._sockets:
                held.close()
            self._sockets.clear()

    def watch(self, opened: socket.socket) -> None:
        """Shut ``opened`` too when the time is up; TLS may wrap it meanwhile."""
        with self._lock:
            self._sockets.append(opened.dup())
            if self.is_up:
                self._shut()

    def _end(self) -> None:
        with self._lock:
            self.is_up = True
            self._shut()

    def _shut(self) -> None:
        for held in self._sockets:
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)


class Dialer:
    """Opens sockets to addresses that ``rule`` permits, each name looked up once a socket."""

    def __init__(
        self, rule: AddressRule, lookup: Lookup, connect_s: float, call_time: CallTime
    ) -> None:
        self._rule = rule
        self._lookup = lookup
        self._connect_s = connect_s
        self._call_time = call_time

    def __call__(self, host: str, port: int) -> socket.socket:
        """Connect to the first permitted address of ``host`` that takes the connection.

        Raises:
            FeedRejected: when no address of it is permitted.
            OSError: when it has none, or none answers in time.
        """
        found = look_up_within(self._lookup, host, port, self._connect_s)
        problem: OSError = OSError(f"{host} has no address")
        for address in self._rule.require(host, found):
            try:
                opened = socket.create_connection((address, port), self._connect_s)
            except OSError as error:
                problem = error
            else:
                self._call_time.watch(opened)
                return opened
        raise problem


class _Plain(HTTPConnection):
    """Connects by ``dial``; its ``host`` stays the name, for the Host header."""

    def __init__(self, dial: Dial, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        self._dial = dial
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


class _Secure(HTTPSConnection):
    """As ``_Plain``; the certificate is compared with the name, not with the address."""

    def __init__(self, dial: Dial, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        self._dial = dial
        super().__init__(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


class DialingAdapter(HTTPAdapter):
    """Requests' adapter over sockets that ``dial`` opens."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        super().__init__()

    def get_connection_with_tls_context(
        self,
        *arguments: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> HTTPConnectionPool:
        """Return the pool for a request, whose connections are ours."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        made = _Secure if pool.scheme == "https" else _Plain
        pool.ConnectionCls = partial(made, self._dial)
        return pool  # type: ignore[no-any-return]
