"""GET over HTTP, bounded in time and size, with no secret in any message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import FeedRejected, FeedUnavailable
from pals_grid.core.ports import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.ports import Clock

USER_AGENT = f"pals-grid/{version('pals-grid')}"
CHUNK_BYTES = 65_536
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_SECRET_PARAMETER = re.compile(
    r"(?i)\b((?:security|access|auth)?[-_]?token|api[-_]?key|subscription[-_]?key|key|secret"
    r"|password|pwd|sig|signature)=([^&\s'\")]+)"
)
_USER_INFO = re.compile(r"//[^/@\s]+@")


def redact(text: str) -> str:
    """Blank the values of secret-like parameters, and user and password before a host."""
    return _USER_INFO.sub("//***@", _SECRET_PARAMETER.sub(r"\1=***", text))


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one GET may cost. ``deadline_s`` covers redirects and the whole body.

    The deadline is looked at between two reads, so that it may be passed by one ``read_s``.
    """

    connect_s: float = 5.0
    read_s: float = 20.0
    deadline_s: float = 60.0
    max_bytes: int = 32 * 1024 * 1024
    max_redirects: int = 3


class RequestsHttp:
    """``core.ports.HttpClient`` by requests; a session per call, so that threads may share it."""

    def __init__(self, limits: HttpLimits | None = None, clock: Clock | None = None) -> None:
        self._limits = limits or HttpLimits()
        self._clock = clock or SystemClock()

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url``; redirects stay within its scheme, and other hosts get no ``headers``.

        Raises:
            FeedUnavailable: when there is no answer in time, or it is too large.
            FeedRejected: for a URL that is not HTTP, or redirects that lead nowhere good.
        """
        _require_http(url)
        try:
            with requests.Session() as session:
                return self._get(session, url, params, dict(headers or {}))
        except requests.exceptions.InvalidURL:
            raise FeedRejected(redact(f"url: cannot be asked for, got {url}")) from None
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            reason = redact(f"{type(error).__name__}: {_cause(error)}")[:200]
            raise FeedUnavailable(f"no answer from {redact(url)}: {reason}") from None

    def _get(
        self,
        session: requests.Session,
        url: str,
        params: Mapping[str, str] | None,
        headers: dict[str, str],
    ) -> HttpResponse:
        limits = self._limits
        deadline_s = self._clock.monotonic_s() + limits.deadline_s
        for _ in range(limits.max_redirects + 1):
            with session.get(
                url,
                params=params,
                headers={"User-Agent": USER_AGENT, **headers},
                timeout=(limits.connect_s, limits.read_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                target = answer.headers.get("Location")
                if answer.status_code not in REDIRECT_STATUSES or target is None:
                    return self._read(answer, deadline_s)
            url, params, headers = _follow(answer.url, target, headers)
        raise FeedRejected(f"more than {limits.max_redirects} redirects, last to {redact(url)}")

    def _read(self, answer: requests.Response, deadline_s: float) -> HttpResponse:
        url = redact(answer.url)
        body = bytearray()
        # read1 returns what has arrived, so that a slow trickle cannot outlive the deadline.
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > self._limits.max_bytes:
                raise FeedUnavailable(f"{url} answers more than {self._limits.max_bytes} bytes")
            if self._clock.monotonic_s() > deadline_s:
                raise FeedUnavailable(f"{url} did not finish within {self._limits.deadline_s:g} s")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return HttpResponse(url, answer.status_code, headers, bytes(body))


def _cause(error: BaseException) -> str:
    """Return the innermost reason: a user reads "Connection refused", not the layers around it."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        inner = reason if reason is not error else None
    return str(error).rpartition(": ")[2] or str(error)


def _require_http(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise FeedRejected(
            f"url: must begin with http:// or https:// and a host, got {redact(url)}"
        )


def _follow(
    origin: str, target: str, headers: dict[str, str]
) -> tuple[str, Mapping[str, str] | None, dict[str, str]]:
    url = urljoin(origin, target)
    _require_http(url)
    before, after = urlsplit(origin), urlsplit(url)
    if before.scheme != after.scheme:
        raise FeedRejected(f"{redact(origin)} redirects to another scheme: {redact(url)}")
    # A header may hold a key, which is meant for the first host alone.
    return url, None, headers if before.netloc == after.netloc else {}
