"""A connector's way to its provider: in its pace, held back while it is down, watched."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pals_grid.core.connecting import read_retry_after_s
from pals_grid.core.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.ports import Clock, HttpClient, HttpResponse, Pace

# A tenth more than the provider asks for: what leaves us evenly may arrive less so.
PACE_MARGIN = 1.1
CREDIT_HEADERS = (
    "x-ratelimit-remaining",
    "ratelimit-remaining",
    "x-rate-limit-remaining",
    "x-ratelimit-requests-remaining",
    "x-credits-remaining",
    "ratelimit",
)
_NUMBER = re.compile(
    r"(?:^|;\s*(?:r|remaining)\s*=\s*|,\s*remaining\s*=\s*)(\d{1,12})(?:\s*[;,]|$)"
)


class Gate(Protocol):
    """What all replicas know of a provider, by its key."""

    def admit(self, key: str, step_s: float, patience_s: float) -> float:
        """Take the next free instant, ``step_s`` long; return the seconds until then.

        Raises:
            FeedHeldBack: when that is more than ``patience_s``, or the provider is held back.
        """
        ...

    def record(self, key: str, *, failed: bool, wish_s: float) -> None:
        """Tell what came of a request; nobody asks before ``wish_s`` are over."""
        ...


class ProviderHttp:
    """``core.ports.HttpClient`` for one fetch of one connector.

    A key is the connector's name and the host asked, so that the feeds of one provider share
    pace and breaker. ``patience_s`` bounds what the fetch waits for its turns, all together.
    ``key``, ``credit_left`` and ``clock_skew_s`` are of the last answer that told; None before.
    """

    def __init__(
        self,
        inner: HttpClient,
        gate: Gate,
        connector: str,
        pace: Pace | None,
        clock: Clock,
        *,
        patience_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._gate = gate
        self._connector = connector
        self._step_s = PACE_MARGIN * pace.per_s / pace.requests if pace else 0.0
        self._clock = clock
        self._patience_s = patience_s
        self._sleep = sleep
        self.key: str | None = None
        self.credit_left: float | None = None
        self.clock_skew_s: float | None = None

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url`` when its turn comes.

        Raises:
            FeedHeldBack: when it may not be asked now.
            FeedError: as ``inner`` does.
        """
        return self._ask(url, lambda: self._inner.get(url, params, headers))

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Post a form to ``url`` when its turn comes; raises as ``get``."""
        return self._ask(url, lambda: self._inner.post(url, form, headers))

    def _ask(self, url: str, ask: Callable[[], HttpResponse]) -> HttpResponse:
        key = self.key = f"{self._connector}:{_host(url)}"
        wait_s = self._gate.admit(key, self._step_s, self._patience_s)
        if wait_s > 0:
            self._patience_s -= wait_s
            self._sleep(wait_s)
        try:
            answer = ask()
        except FeedUnavailable:
            self._gate.record(key, failed=True, wish_s=0.0)
            raise
        failed = answer.status in {408, 425, 429} or answer.status >= 500
        wish_s = (read_retry_after_s(answer.headers) or 0.0) if failed else 0.0
        self._gate.record(key, failed=failed, wish_s=wish_s)
        self._look_at(answer)
        return answer

    def _look_at(self, answer: HttpResponse) -> None:
        credit_left = read_credit_left(answer.headers)
        self.credit_left = self.credit_left if credit_left is None else credit_left
        try:
            said_at = parsedate_to_datetime(answer.headers["date"])
            self.clock_skew_s = (said_at - self._clock.now()).total_seconds()
        except (KeyError, ValueError, TypeError, OverflowError):
            return


def read_credit_left(headers: Mapping[str, str]) -> float | None:
    """Requests that are left to us, where the provider says so.

    Plain numbers, and the forms ``limit=10, remaining=5`` and ``"name";r=5;t=30``.
    """
    for name in CREDIT_HEADERS:
        found = _NUMBER.search(headers.get(name, "").strip())
        if found:
            return float(found[1])
    return None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()
