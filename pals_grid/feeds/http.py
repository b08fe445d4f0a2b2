"""HTTP bounded in time and size, to public addresses alone, with no secret in any message.

Nothing of the environment is heeded: a proxy would look names up itself, behind our back, and a
``.netrc`` would send passwords that nobody named.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import FeedRejected, FeedUnavailable
from pals_grid.core.ports import HttpResponse
from pals_grid.feeds.addresses import AddressRule, look_up
from pals_grid.feeds.dialing import CallTime, Dialer, DialingAdapter
from pals_grid.feeds.unpacking import ACCEPTED, CHUNK_BYTES, Unpacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pals_grid.core.ports import Clock
    from pals_grid.feeds.addresses import Lookup

USER_AGENT = f"pals-grid/{version('pals-grid')}"
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
    """What one call may cost. ``deadline_s`` covers look-ups, redirects and the whole body.

    ``max_bytes`` is of the body, unpacked. Headers are at most 100, of 64 KiB each.
    """

    connect_s: float = 5.0
    read_s: float = 20.0
    deadline_s: float = 60.0
    max_bytes: int = 32 * 1024 * 1024
    max_redirects: int = 3


class RequestsHttp:
    """``core.ports.HttpClient`` by requests; a session per call, so that threads may share it.

    ``rule`` says which addresses may be asked, ``ca_file`` names the certificates to trust
    instead of the usual ones.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        clock: Clock | None = None,
        rule: AddressRule | None = None,
        *,
        lookup: Lookup = look_up,
        ca_file: Path | None = None,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._clock = clock or SystemClock()
        self._rule = rule or AddressRule()
        self._lookup = lookup
        self._ca_file = ca_file

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url``; redirects stay within its scheme, and other hosts get no ``headers``.

        Raises:
            FeedUnavailable: when there is no answer in time, or it is too large or cut short.
            FeedRejected: for a URL that is not HTTP, or that leads, itself or by a redirect, to
                an address that may not be asked.
        """
        with self._calling(url) as call:
            return self._follow(call, url, params, dict(headers or {}))

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Post a form to ``url``; a redirect is not followed, since it would carry the secret on.

        Raises:
            FeedUnavailable, FeedRejected: as ``get``.
        """
        with (
            self._calling(url) as call,
            call.ask("POST", url, dict(headers or {}), data=dict(form)) as answer,
        ):
            return call.read(answer)

    @contextmanager
    def _calling(self, url: str) -> Iterator[_Call]:
        """One call; the library's errors are turned into ours."""
        _require_http(url)
        limits = self._limits
        with CallTime(limits.deadline_s) as call_time, requests.Session() as session:
            adapter = DialingAdapter(Dialer(self._rule, self._lookup, limits.connect_s, call_time))
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            session.trust_env = False
            session.verify = str(self._ca_file) if self._ca_file else True
            try:
                yield _Call(session, limits, self._clock, call_time)
            except requests.exceptions.InvalidURL:
                raise FeedRejected(redact(f"url: cannot be asked for, got {url}")) from None
            except (requests.exceptions.RequestException, HTTPError, OSError) as error:
                if call_time.is_up:
                    raise _too_late(redact(url), limits) from None
                reason = redact(f"{type(error).__name__}: {_cause(error)}")[:200]
                raise FeedUnavailable(f"no answer from {redact(url)}: {reason}") from None

    def _follow(
        self,
        call: _Call,
        url: str,
        params: Mapping[str, str] | None,
        headers: dict[str, str],
    ) -> HttpResponse:
        limits = self._limits
        for _ in range(limits.max_redirects + 1):
            with call.ask("GET", url, headers, params=params) as answer:
                target = answer.headers.get("Location")
                if answer.status_code not in REDIRECT_STATUSES or target is None:
                    return call.read(answer)
            url, params, headers = _next_hop(answer.url, target, headers)
        raise FeedRejected(f"more than {limits.max_redirects} redirects, last to {redact(url)}")


class _Call:
    """The requests of one call, under one deadline."""

    def __init__(
        self, session: requests.Session, limits: HttpLimits, clock: Clock, call_time: CallTime
    ) -> None:
        self._session = session
        self._limits = limits
        self._clock = clock
        self._call_time = call_time
        self._deadline_s = clock.monotonic_s() + limits.deadline_s

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Ask for one answer, its body not read yet."""
        return self._session.request(
            method,
            url,
            params=params,
            data=data,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": ACCEPTED, **headers},
            timeout=(self._limits.connect_s, self._limits.read_s),
            allow_redirects=False,
            stream=True,
        )

    def read(self, answer: requests.Response) -> HttpResponse:
        """Read the body, no further than the bounds of time and size."""
        url, max_bytes = redact(answer.url), self._limits.max_bytes
        length = answer.headers.get("Content-Length", "")
        unpacking = Unpacking(url, answer.headers.get("Content-Encoding", ""))
        body = bytearray()
        if length.isdecimal() and len(length) < 20 and int(length) > max_bytes:
            raise _too_large(url, max_bytes)
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
            for part in unpacking.unpack(chunk):
                body += part
                if len(body) > max_bytes:
                    raise _too_large(url, max_bytes)
            if self._clock.monotonic_s() > self._deadline_s:
                raise _too_late(url, self._limits)
        if self._call_time.is_up:
            raise _too_late(url, self._limits)
        unpacking.finish()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return HttpResponse(url, answer.status_code, headers, bytes(body))


def _too_large(url: str, max_bytes: int) -> FeedUnavailable:
    return FeedUnavailable(f"{url} answers more than {max_bytes} bytes")


def _too_late(url: str, limits: HttpLimits) -> FeedUnavailable:
    return FeedUnavailable(f"{url} did not finish within {limits.deadline_s:g} s")


def _cause(error: BaseException) -> str:
    """Return the innermost reason: a user reads "Connection refused", not the layers around it."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        inner = reason if reason is not error else None
    said = str(error)
    # urllib3 keeps some causes only as text: NameResolutionError("...: Name or service not known")
    return re.sub(r"['\"]\)+$", "", said.rpartition(": ")[2] or said)


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


def _next_hop(
    origin: str, target: str, headers: dict[str, str]
) -> tuple[str, Mapping[str, str] | None, dict[str, str]]:
    url = urljoin(origin, target)
    _require_http(url)
    before, after = urlsplit(origin), urlsplit(url)
    if before.scheme != after.scheme:
        raise FeedRejected(f"{redact(origin)} redirects to another scheme: {redact(url)}")
    # A header may hold a key, which is meant for the first host alone.
    return url, None, headers if before.netloc == after.netloc else {}
