"""What every request passes first: known host, no foreign page's write, a bounded body."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from pals_grid.api.problems import problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16 * 1024 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def host_of(header: str) -> str | None:
    """Return the host of a Host header in lower case, without port and brackets."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


class RequestGuard:
    """Refuses hosts that are not ours (DNS rebinding) and writes from other sites' pages.

    A browser names the page that a write comes from by ``Sec-Fetch-Site`` and ``Origin``;
    programs send neither. ``hosts`` are the names that the service answers to; an address
    (0.0.0.0, ::) that stands for every interface admits every literal address.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = _LOOPBACK | {host.strip("[]").lower() for host in hosts}
        self._any_address = any(_is_unspecified(host) for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal is not None:
                status, detail = refusal
                await problem(status, detail=detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        given = headers.get("host", "")
        if not self._knows(host_of(given)):
            return 421, f"Host: must be a name of this service, got {given[:80]!r}"
        if method in _SAFE_METHODS:
            return None
        site = headers.get("sec-fetch-site")
        if site is not None and site not in {"same-origin", "none"}:
            return 403, f"Sec-Fetch-Site: a write must come from this site, got {site[:40]!r}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != given.lower():
            return 403, f"Origin: a write must come from {given!r}, got {origin[:80]!r}"
        return None

    def _knows(self, host: str | None) -> bool:
        if host is None:
            return False
        return host in self._hosts or (self._any_address and _is_address(host))


class BodyLimit:
    """Refuses bodies over ``limit_bytes`` with 413, announced or not."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the body while it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit_bytes:
            await problem(413, detail=self._detail)(scope, receive, send)
            return
        seen_bytes = 0

        async def counted() -> Message:
            nonlocal seen_bytes
            message = await receive()
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > self._limit_bytes:
                raise HTTPException(413, self._detail)
            return message

        await self._app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return f"body: must be at most {self._limit_bytes} bytes"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_unspecified(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified
