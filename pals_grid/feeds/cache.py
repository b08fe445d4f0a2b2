"""One answer for equal questions: asked once within a short time, then only for what changed."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pals_grid.core.ports import Clock, HttpClient, HttpResponse

Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]

VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
"""What an answer is known by, and what asks for it only if it changed (RFC 9110, 13)."""
NOT_MODIFIED = 304


@dataclass(slots=True)
class _Turn:
    """A lock that is there as long as somebody wants it."""

    lock: Lock
    wanted: int = 0


class Answers:
    """Good answers held in memory, the least lately used dropped first; safe between threads.

    One is given again for ``max_age_s``; afterwards it only serves to be confirmed. At most
    ``max_answers`` and ``max_bytes`` of bodies are held.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        max_age_s: float = 60.0,
        max_answers: int = 32,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._max_age_s = max_age_s
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._held: OrderedDict[Key, tuple[float, HttpResponse]] = OrderedDict()
        self._bytes = 0
        self._turns: dict[Key, _Turn] = {}
        self._lock = Lock()

    @contextmanager
    def turn(self, key: Key) -> Iterator[None]:
        """Let one at a time ask the same, so that the others find its answer."""
        with self._lock:
            turn = self._turns.setdefault(key, _Turn(Lock()))
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[key]

    def find(self, key: Key) -> tuple[HttpResponse | None, bool]:
        """Return the answer held, and whether it is young enough to be given again."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return None, False
            return held[1], self._clock.monotonic_s() - held[0] < self._max_age_s

    def keep(self, key: Key, answer: HttpResponse) -> None:
        """Hold a good answer from now on."""
        with self._lock:
            self._drop(key)
            if len(answer.body) > self._max_bytes:
                return
            self._held[key] = (self._clock.monotonic_s(), answer)
            self._bytes += len(answer.body)
            while len(self._held) > self._max_answers or self._bytes > self._max_bytes:
                self._drop(next(iter(self._held)))

    def _drop(self, key: Key) -> None:
        held = self._held.pop(key, None)
        self._bytes -= len(held[1].body) if held else 0


class CachedHttp:
    """An HTTP client that asks ``inner`` once for equal GETs as long as ``answers`` holds them.

    Several sites may follow one price zone, and a feed is tried, added and fetched within
    seconds; the provider is asked once, also when they ask at one time. An answer grown old is
    asked for by its validators, where it has any: 304 confirms it. Errors, of ours and of the
    provider, are never kept. A value is stamped as known at most a minute later than it was,
    never earlier.
    """

    def __init__(self, inner: HttpClient, answers: Answers) -> None:
        self._inner = inner
        self._answers = answers

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url``, or return the answer that is held.

        Raises:
            FeedError: as ``inner`` does.
        """
        key = (url, tuple(sorted((params or {}).items())), tuple(sorted((headers or {}).items())))
        with self._answers.turn(key):
            held, is_young = self._answers.find(key)
            if held is not None and is_young:
                return held
            answer = self._inner.get(url, params, _only_if_changed(headers, held))
            if held is not None and answer.status == NOT_MODIFIED:
                answer = held
            if answer.status == 200:
                self._answers.keep(key, answer)
            return answer

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Post as ``inner`` does; nothing is held."""
        return self._inner.post(url, form, headers)


def _only_if_changed(
    headers: Mapping[str, str] | None, held: HttpResponse | None
) -> Mapping[str, str] | None:
    if held is None:
        return headers
    known = {asks: held.headers[name] for name, asks in VALIDATORS.items() if name in held.headers}
    return {**(headers or {}), **known} if known else headers
