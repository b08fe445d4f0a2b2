import gzip
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import ClassVar

import pytest

from pals_grid.core.errors import FeedError, FeedRejected, FeedUnavailable
from pals_grid.feeds.http import USER_AGENT, HttpLimits, RequestsHttp, redact

LIMITS = HttpLimits(connect_s=1, read_s=0.1, deadline_s=5, max_bytes=1000)


class Answers(BaseHTTPRequestHandler):
    """Answers by path; a redirect leads to what follows /to/."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []
    silence: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        Answers.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        name = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"answer_{name}")()

    def answer_plain(self) -> None:
        self._send(200, b"hello", {"X-Note": "1"})

    def answer_packed(self) -> None:
        self._send(200, gzip.compress(b"a" * 900), {"Content-Encoding": "gzip"})

    def answer_bomb(self) -> None:
        self._send(200, gzip.compress(b"a" * 1_000_000), {"Content-Encoding": "gzip"})

    def answer_large(self) -> None:
        self._send(200, b"a" * 1001)

    def answer_error(self) -> None:
        self._send(503, b"down", {"Retry-After": "7"})

    def answer_silent(self) -> None:
        self.silence.wait(2)

    def answer_chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    def answer_to(self) -> None:
        self._send(302, b"", {"Location": self.path.removeprefix("/to")})

    def answer_away(self) -> None:
        port = self.headers["Host"].partition(":")[2]
        self._send(302, b"", {"Location": f"http://localhost:{port}/plain"})

    def answer_ftp(self) -> None:
        self._send(302, b"", {"Location": "https://127.0.0.1/plain"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Answers.silence.set()
    server.shutdown()
    thread.join()
    server.server_close()


class SteppingClock:
    """Ten seconds pass between two looks."""

    def __init__(self) -> None:
        self._steps = count(0, 10)

    def now(self) -> datetime:
        return datetime(2025, 3, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return float(next(self._steps))


def test_parameters_headers_and_the_answer(address: str) -> None:
    found = RequestsHttp(LIMITS).get(f"{address}/plain", {"a": "1 2"}, {"auth-token": "x"})
    assert (found.status, found.body, found.headers["x-note"]) == (200, b"hello", "1")
    assert found.url == f"{address}/plain?a=1+2"
    path, headers = Answers.seen[-1]
    assert path == "/plain?a=1+2"
    assert (headers["auth-token"], headers["user-agent"]) == ("x", USER_AGENT)


def test_errors_of_the_provider_are_answers(address: str) -> None:
    found = RequestsHttp(LIMITS).get(f"{address}/error")
    assert (found.status, found.body, found.headers["retry-after"]) == (503, b"down", "7")


def test_packed_and_chunked_bodies_are_read_whole(address: str) -> None:
    http = RequestsHttp(LIMITS)
    assert http.get(f"{address}/packed").body == b"a" * 900
    assert http.get(f"{address}/chunked").body == b"abcde"


@pytest.mark.parametrize("path", ["large", "bomb"])
def test_too_large_a_body_is_refused(address: str, path: str) -> None:
    with pytest.raises(FeedUnavailable, match=f"/{path} answers more than 1000 bytes"):
        RequestsHttp(LIMITS).get(f"{address}/{path}")


def test_silence_ends_after_the_read_timeout(address: str) -> None:
    with pytest.raises(FeedUnavailable, match="ReadTimeout"):
        RequestsHttp(LIMITS).get(f"{address}/silent", {"securityToken": "s3cret"})


def test_the_deadline_covers_the_whole_answer(address: str) -> None:
    with pytest.raises(FeedUnavailable, match="did not finish within 5 s"):
        RequestsHttp(LIMITS, SteppingClock()).get(f"{address}/plain")


def test_redirects_are_followed_to_their_limit(address: str) -> None:
    http = RequestsHttp(LIMITS)
    assert http.get(f"{address}/to/to/to/plain").body == b"hello"
    with pytest.raises(FeedRejected, match="more than 3 redirects"):
        http.get(f"{address}/to/to/to/to/plain")


def test_another_host_gets_no_headers(address: str) -> None:
    http = RequestsHttp(LIMITS)
    http.get(f"{address}/to/plain", headers={"auth-token": "x"})
    assert Answers.seen[-1][1]["auth-token"] == "x"
    assert http.get(f"{address}/away", headers={"auth-token": "x"}).body == b"hello"
    assert "auth-token" not in Answers.seen[-1][1]


def test_another_scheme_is_not_followed(address: str) -> None:
    with pytest.raises(FeedRejected, match="redirects to another scheme: https://"):
        RequestsHttp(LIMITS).get(f"{address}/ftp")


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/hosts", "host/x", "http:///x"])
def test_only_http_urls_are_asked(url: str) -> None:
    with pytest.raises(FeedRejected, match="url: must begin with http"):
        RequestsHttp(LIMITS).get(url)


def test_no_secret_is_in_any_message(address: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    http = RequestsHttp(LIMITS)
    assert "s3cret" not in http.get(f"{address}/plain", {"securityToken": "s3cret"}).url
    for url in (nowhere, f"{address}/large", f"{address}/silent", "http://user:s3cret@[bad"):
        with pytest.raises((FeedError, ValueError)) as caught:
            http.get(url, {"api_key": "s3cret", "securityToken": "s3cret"})
        assert isinstance(caught.value, FeedError)
        assert "s3cret" not in str(caught.value)
        assert "s3cret" not in json.dumps([str(item) for item in caught.value.args])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x?securityToken=abc&zone=NL", "x?securityToken=***&zone=NL"),
        ("x?a=1&api_key=abc", "x?a=1&api_key=***"),
        ("x?access_token=abc", "x?access_token=***"),
        ("x?token=abc' failed", "x?token=***' failed"),
        ("x?Ocp-Apim-Subscription-Key=abc", "x?Ocp-Apim-Subscription-Key=***"),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("x?monkey=1&zone=NL", "x?monkey=1&zone=NL"),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    assert redact(text) == expected
