from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from pals_grid.core.errors import FeedUnavailable
from pals_grid.core.ports import HttpResponse
from pals_grid.feeds.cache import CachedHttp
from pals_grid.feeds.recorded import RecordedHttp

URL = "https://provider.example/values"


@dataclass
class HandClock:
    at_s: float = 0.0
    start_at: datetime = field(default=datetime(2025, 3, 1, tzinfo=UTC))

    def now(self) -> datetime:
        return self.start_at

    def monotonic_s(self) -> float:
        return self.at_s


def test_equal_questions_within_the_age_are_asked_once() -> None:
    clock, inner = HandClock(), RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, clock, max_age_s=60)
    first = http.get(URL, {"a": "1", "b": "2"})
    clock.at_s = 59.9
    assert http.get(URL, {"b": "2", "a": "1"}) is first
    assert len(inner.asked) == 1
    clock.at_s = 60.0
    http.get(URL, {"a": "1", "b": "2"})
    assert len(inner.asked) == 2


def test_other_parameters_or_headers_are_other_questions() -> None:
    inner = RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, HandClock())
    http.get(URL)
    http.get(URL, {"a": "1"})
    http.get(URL, headers={"auth-token": "x"})
    assert len(inner.asked) == 3


def test_errors_are_not_kept() -> None:
    inner = RecordedHttp({URL: HttpResponse(URL, 503, {}, b"down")})
    http = CachedHttp(inner, HandClock())
    assert [http.get(URL).status, http.get(URL).status] == [503, 503]
    assert len(inner.asked) == 2
    for _ in range(2):
        with pytest.raises(FeedUnavailable):
            http.get("https://provider.example/other")
    assert len(inner.asked) == 4


def test_the_oldest_answers_make_room() -> None:
    inner = RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, HandClock(), max_answers=2)
    for key in ("a", "b", "c", "c", "a"):
        http.get(URL, {"key": key})
    assert [params["key"] for _, params in inner.asked] == ["a", "b", "c", "a"]
