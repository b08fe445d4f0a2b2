import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from pals_grid.core.errors import FeedUnavailable
from pals_grid.core.ports import HttpResponse
from pals_grid.feeds.cache import Answers, CachedHttp
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
    http = CachedHttp(inner, Answers(clock, max_age_s=60))
    first = http.get(URL, {"a": "1", "b": "2"})
    clock.at_s = 59.9
    assert http.get(URL, {"b": "2", "a": "1"}) is first
    assert len(inner.asked) == 1
    clock.at_s = 60.0
    http.get(URL, {"a": "1", "b": "2"})
    assert len(inner.asked) == 2


def test_other_parameters_or_headers_are_other_questions() -> None:
    inner = RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, Answers(HandClock()))
    http.get(URL)
    http.get(URL, {"a": "1"})
    http.get(URL, headers={"auth-token": "x"})
    assert len(inner.asked) == 3


def test_errors_are_not_kept() -> None:
    inner = RecordedHttp({URL: HttpResponse(URL, 503, {}, b"down")})
    http = CachedHttp(inner, Answers(HandClock()))
    assert [http.get(URL).status, http.get(URL).status] == [503, 503]
    assert len(inner.asked) == 2
    for _ in range(2):
        with pytest.raises(FeedUnavailable):
            http.get("https://provider.example/other")
    assert len(inner.asked) == 4


def test_the_oldest_answers_make_room() -> None:
    inner = RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, Answers(HandClock(), max_answers=2))
    for key in ("a", "b", "c", "c", "a"):
        http.get(URL, {"key": key})
    assert [params["key"] for _, params in inner.asked] == ["a", "b", "c", "a"]


@dataclass
class Versioned:
    """A provider that knows its answer's version, and says 304 to who has it already."""

    version: str = "v1"
    asked: list[dict[str, str]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,  # noqa: ARG002
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        self.asked.append(dict(headers or {}))
        if self.asked[-1].get("If-None-Match") == self.version:
            return HttpResponse(url, 304, {"etag": self.version}, b"")
        known = {"etag": self.version, "last-modified": "Fri, 06 Mar 2026 10:00:00 GMT"}
        return HttpResponse(url, 200, known, self.version.encode())

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        raise NotImplementedError(url, form, headers)


def test_an_old_answer_is_confirmed_by_304() -> None:
    clock, inner = HandClock(), Versioned()
    http = CachedHttp(inner, Answers(clock, max_age_s=60))
    first = http.get(URL, headers={"auth-token": "x"})
    clock.at_s = 60
    assert http.get(URL, headers={"auth-token": "x"}) is first
    assert inner.asked[1] == {
        "auth-token": "x",
        "If-None-Match": "v1",
        "If-Modified-Since": "Fri, 06 Mar 2026 10:00:00 GMT",
    }
    clock.at_s = 119
    assert http.get(URL, headers={"auth-token": "x"}) is first
    assert len(inner.asked) == 2
    clock.at_s, inner.version = 120, "v2"
    assert http.get(URL, headers={"auth-token": "x"}).body == b"v2"


def test_answers_that_nothing_is_known_by_are_asked_for_whole() -> None:
    clock, inner = HandClock(), RecordedHttp({URL: b"1"})
    http = CachedHttp(inner, Answers(clock))
    http.get(URL)
    clock.at_s = 60
    assert http.get(URL).status == 200
    assert len(inner.asked) == 2


def test_held_bodies_are_bounded_in_bytes() -> None:
    inner = RecordedHttp({URL: b"x" * 400, f"{URL}/big": b"x" * 2000})
    http = CachedHttp(inner, Answers(HandClock(), max_bytes=1000))
    for key in ("a", "b", "c", "c", "b", "a"):
        http.get(URL, {"key": key})
    assert [params["key"] for _, params in inner.asked] == ["a", "b", "c", "a"]
    for _ in range(2):
        http.get(f"{URL}/big")
    assert len(inner.asked) == 6


def test_those_who_ask_at_one_time_share_one_answer() -> None:
    entered, released = threading.Event(), threading.Event()

    class Slow(Versioned):
        def get(
            self,
            url: str,
            params: Mapping[str, str] | None = None,
            headers: Mapping[str, str] | None = None,
        ) -> HttpResponse:
            entered.set()
            released.wait(120)
            return super().get(url, params, headers)

    inner = Slow()
    http = CachedHttp(inner, Answers(HandClock()))
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(http.get, URL) for _ in range(4)]
        assert entered.wait(120)
        released.set()
        assert {future.result().body for future in asking} == {b"v1"}
    assert len(inner.asked) == 1
