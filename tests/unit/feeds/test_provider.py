from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from pals_grid.core.errors import FeedHeldBack, FeedRejected, FeedUnavailable
from pals_grid.core.ports import HttpResponse, Pace
from pals_grid.feeds.provider import ProviderHttp, read_credit_left
from pals_grid.feeds.recorded import RecordedHttp

URL = "https://user:pw@API.example:8443/values"
NOW = datetime(2026, 3, 6, 10, tzinfo=UTC)


class Standing:
    def now(self) -> datetime:
        return NOW

    def monotonic_s(self) -> float:
        return 0.0


@dataclass
class Book:
    """A gate that lets in after the waits it is given, and writes down what it is told."""

    waits_s: list[float] = field(default_factory=list)
    admitted: list[tuple[str, float, float]] = field(default_factory=list)
    recorded: list[tuple[str, bool, float]] = field(default_factory=list)

    def admit(self, key: str, step_s: float, patience_s: float) -> float:
        self.admitted.append((key, step_s, patience_s))
        wait_s = self.waits_s.pop(0) if self.waits_s else 0.0
        if wait_s > patience_s:
            raise FeedHeldBack("later", wait_s)
        return wait_s

    def record(self, key: str, *, failed: bool, wish_s: float) -> None:
        self.recorded.append((key, failed, wish_s))


def make(
    gate: Book, answer: HttpResponse | bytes = b"1", pace: Pace | None = None
) -> tuple[ProviderHttp, RecordedHttp, list[float]]:
    slept: list[float] = []
    inner = RecordedHttp({URL: answer})
    http = ProviderHttp(inner, gate, "pjm", pace, Standing(), patience_s=10.0, sleep=slept.append)
    return http, inner, slept


def test_the_key_is_the_connector_and_the_host() -> None:
    http, _, _ = make(Book())
    assert http.key is None
    http.get(URL)
    http.post(URL, {"a": "1"})
    assert http.key == "pjm:api.example:8443"


def test_turns_are_waited_for_within_one_patience() -> None:
    gate = Book(waits_s=[4.0, 5.0, 2.0])
    http, inner, slept = make(gate, pace=Pace(6, 60.0))
    http.get(URL)
    http.get(URL)
    with pytest.raises(FeedHeldBack):
        http.get(URL)
    assert slept == [4.0, 5.0]
    assert len(inner.asked) == 2
    # A tenth slower than what is allowed.
    assert [step_s for _, step_s, _ in gate.admitted] == pytest.approx([11.0] * 3)
    assert [patience_s for _, _, patience_s in gate.admitted] == [10.0, 6.0, 1.0]


@pytest.mark.parametrize(
    ("status", "headers", "failed", "wish_s"),
    [
        (200, {"retry-after": "9"}, False, 0.0),
        (404, {}, False, 0.0),
        (401, {}, False, 0.0),
        (429, {"retry-after": "9"}, True, 9.0),
        (429, {}, True, 0.0),
        (408, {}, True, 0.0),
        (500, {}, True, 0.0),
        (503, {"retry-after": "x"}, True, 0.0),
    ],
)
def test_what_counts_as_a_failure(
    status: int, headers: dict[str, str], failed: bool, wish_s: float
) -> None:
    gate = Book()
    http, _, _ = make(gate, HttpResponse(URL, status, headers, b""))
    assert http.get(URL).status == status
    assert gate.recorded == [("pjm:api.example:8443", failed, wish_s)]


def test_silence_counts_and_a_refused_address_does_not() -> None:
    class Raises(RecordedHttp):
        def get(self, *_: object, **__: object) -> HttpResponse:
            raise error

    gate = Book()
    http = ProviderHttp(Raises({}), gate, "x", None, Standing())
    error: Exception = FeedUnavailable("timed out")
    with pytest.raises(FeedUnavailable):
        http.get(URL)
    error = FeedRejected("a private address")
    with pytest.raises(FeedRejected):
        http.get(URL)
    assert gate.recorded == [("x:api.example:8443", True, 0.0)]


def test_credit_and_clock_are_of_the_last_answer_that_told() -> None:
    headers = {"x-ratelimit-remaining": "41", "date": "Fri, 06 Mar 2026 10:02:00 GMT"}
    http, inner, _ = make(Book(), HttpResponse(URL, 200, headers, b""))
    assert (http.credit_left, http.clock_skew_s) == (None, None)
    http.get(URL)
    assert (http.credit_left, http.clock_skew_s) == (41.0, 120.0)
    assert isinstance(inner.answers, dict)
    inner.answers[URL] = HttpResponse(URL, 200, {"date": "yesterday"}, b"")
    http.get(URL)
    assert (http.credit_left, http.clock_skew_s) == (41.0, 120.0)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x-ratelimit-remaining", "99", 99.0),
        ("ratelimit-remaining", "0", 0.0),
        ("ratelimit", "limit=10, remaining=5, reset=30", 5.0),
        ("ratelimit", '"default";r=50;t=30', 50.0),
        ("x-rate-limit-remaining", "12, 12;w=60", 12.0),
        ("x-ratelimit-remaining", "plenty", None),
        ("x-ratelimit-remaining", "-1", None),
        ("x-other", "5", None),
    ],
)
def test_credit_left(name: str, text: str, expected: float | None) -> None:
    assert read_credit_left({name: text}) == expected
