"""Entity tags: weak ones from the body on every GET of the API, strong ones from a version."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ETags:
    """Gives each 200 answer to GET below ``prefix`` an ETag, and 304 to who has it already.

    The whole body is held to hash it, so streams must stay outside ``prefix``. A route that
    sets its own ETag keeps it.
    """

    def __init__(self, app: ASGIApp, prefix: str = "/api/v1") -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the answer back until its tag is known."""
        wanted = scope["type"] == "http" and scope["method"] == "GET"
        if not wanted or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def held(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_tagged(scope, start, b"".join(parts), send)

        await self._app(scope, receive, held)


async def _send_tagged(scope: Scope, start: Message, body: bytes, send: Send) -> None:
    if start["status"] == 200:
        headers = MutableHeaders(raw=list(start["headers"]))
        tag = headers.setdefault("etag", f'W/"{hashlib.sha256(body).hexdigest()[:32]}"')
        headers.setdefault("cache-control", "no-cache")
        start = {**start, "headers": headers.raw}
        if _is_held(Headers(scope=scope).get("if-none-match"), tag):
            kept = {b"etag", b"cache-control", b"vary", b"link"}
            slim = [pair for pair in headers.raw if pair[0] in kept]
            start, body = {**start, "status": 304, "headers": slim}, b""
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _is_held(if_none_match: str | None, tag: str) -> bool:
    """Weak comparison, as RFC 9110 wants for If-None-Match."""
    if if_none_match is None:
        return False
    given = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return "*" in given or tag.removeprefix("W/") in given


def version_tag(version: int) -> str:
    """Return the strong ETag of a resource's version."""
    return f'"{version}"'


def version_from(if_match: str | None) -> int | None:
    """Read If-Match: None when absent or ``*``.

    Raises:
        InvalidValue: when it is not one version in quotes.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip()
    if not re.fullmatch(r'"[0-9]{1,18}"', text):
        raise InvalidValue("If-Match", if_match[:80], 'must be one version in quotes, like "3"')
    return int(text[1:-1])
