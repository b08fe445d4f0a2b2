"""One answer for equal questions asked within a short time."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.ports import Clock, HttpClient, HttpResponse

Key = tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]


class CachedHttp:
    """An HTTP client that asks ``inner`` once for equal GETs within ``max_age_s``.

    Several sites may follow one price zone, and a feed is tried, added and fetched within
    seconds; the provider is asked once. Errors, of ours and of the provider, are never kept.
    A value is then stamped as known at most ``max_age_s`` later than it was, never earlier.
    """

    def __init__(
        self, inner: HttpClient, clock: Clock, *, max_age_s: float = 60.0, max_answers: int = 32
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._max_age_s = max_age_s
        self._max_answers = max_answers
        self._held: OrderedDict[Key, tuple[float, HttpResponse]] = OrderedDict()
        self._lock = Lock()

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url`` or return the answer of less than ``max_age_s`` ago.

        Raises:
            FeedError: as ``inner`` does.
        """
        key = (url, tuple(sorted((params or {}).items())), tuple(sorted((headers or {}).items())))
        with self._lock:
            held = self._held.get(key)
        if held is not None and self._clock.monotonic_s() - held[0] < self._max_age_s:
            return held[1]
        answer = self._inner.get(url, params, headers)
        if answer.status == 200:
            self._keep(key, answer)
        return answer

    def _keep(self, key: Key, answer: HttpResponse) -> None:
        with self._lock:
            self._held[key] = (self._clock.monotonic_s(), answer)
            self._held.move_to_end(key)
            while len(self._held) > self._max_answers:
                self._held.popitem(last=False)
