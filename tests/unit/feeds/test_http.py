import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from pals_grid.core.errors import FeedError, FeedRejected, FeedUnavailable
from pals_grid.core.ports import Clock
from pals_grid.feeds.addresses import AddressRule, look_up, read_network
from pals_grid.feeds.http import USER_AGENT, HttpLimits, RequestsHttp, redact

# Long enough for any machine: only what is never answered waits for one of them.
LIMITS = HttpLimits(connect_s=60, read_s=60, deadline_s=120, max_bytes=1000)
IMPATIENT = HttpLimits(connect_s=60, read_s=0.1, deadline_s=120, max_bytes=1000)
BOMB = gzip.compress(b"a" * 60_000_000)
LOOPBACK = AddressRule((read_network("127.0.0.0/8"),))


def make_http(clock: Clock | None = None, limits: HttpLimits = LIMITS) -> RequestsHttp:
    return RequestsHttp(limits, clock, LOOPBACK)


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
        self._send(200, BOMB, {"Content-Encoding": "gzip"})

    def answer_large(self) -> None:
        self._send(200, b"a" * 1001)

    def answer_error(self) -> None:
        self._send(503, b"down", {"Retry-After": "7"})

    def answer_silent(self) -> None:
        self.silence.wait(60)

    def answer_chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    def answer_trickle(self) -> None:
        """A status line that never ends, a byte at a time, each well within the read time-out."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 ")
            while not self.silence.wait(0.02):
                self.wfile.write(b"O")

    def answer_continue(self) -> None:
        with suppress(OSError):
            while not self.silence.wait(0.02):
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answer_headers(self) -> None:
        self._send(200, b"x", {f"X-{i}": "1" for i in range(101)})

    def answer_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"a" * 50)

    def answer_torn(self) -> None:
        self._send(200, gzip.compress(b"1,84.50\n" * 50)[:-12], {"Content-Encoding": "gzip"})

    def answer_wrong(self) -> None:
        self._send(200, b"not packed at all", {"Content-Encoding": "gzip"})

    def answer_brotli(self) -> None:
        self._send(200, b"x", {"Content-Encoding": "br"})

    def answer_twice(self) -> None:
        body = gzip.compress(b"a" * 300) + gzip.compress(b"b" * 300)
        self._send(200, body, {"Content-Encoding": "gzip"})

    def answer_inward(self) -> None:
        port = self.headers["Host"].partition(":")[2]
        self._send(302, b"", {"Location": f"http://[::ffff:127.0.0.1]:{port}/plain"})

    def do_POST(self) -> None:
        Answers.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        self._send(200, self.rfile.read(int(self.headers["Content-Length"])))

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


def headers_of(path: str) -> list[dict[str, str]]:
    """Headers of the requests for ``path``.

    A request that its client gave up may be seen late, so that the last one seen may be another.
    """
    return [headers for seen, headers in list(Answers.seen) if seen == path]


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
    found = make_http().get(f"{address}/plain", {"a": "1 2"}, {"auth-token": "x"})
    assert (found.status, found.body, found.headers["x-note"]) == (200, b"hello", "1")
    assert found.url == f"{address}/plain?a=1+2"
    (headers,) = headers_of("/plain?a=1+2")
    assert (headers["auth-token"], headers["user-agent"]) == ("x", USER_AGENT)


def test_errors_of_the_provider_are_answers(address: str) -> None:
    found = make_http().get(f"{address}/error")
    assert (found.status, found.body, found.headers["retry-after"]) == (503, b"down", "7")


def test_packed_and_chunked_bodies_are_read_whole(address: str) -> None:
    http = make_http()
    assert http.get(f"{address}/packed").body == b"a" * 900
    assert http.get(f"{address}/chunked").body == b"abcde"


def test_members_of_a_packed_body_are_joined(address: str) -> None:
    assert make_http().get(f"{address}/twice").body == b"a" * 300 + b"b" * 300


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("short", "no answer from .*IncompleteRead"),
        ("torn", "was cut short: its packed body has no end"),
        ("wrong", "cannot be unpacked: .*incorrect header check"),
        ("brotli", "an encoding not asked for: br"),
        ("headers", "got more than 100 headers"),
    ],
)
def test_a_body_that_is_not_whole_is_no_answer(address: str, path: str, problem: str) -> None:
    with pytest.raises(FeedUnavailable, match=problem):
        make_http().get(f"{address}/{path}")


@pytest.mark.parametrize("path", ["trickle", "continue"])
def test_no_trickle_outlives_the_deadline(address: str, path: str) -> None:
    begun_s = time.monotonic()
    limits = HttpLimits(connect_s=60, read_s=60, deadline_s=0.3, max_bytes=1000)
    with pytest.raises(FeedUnavailable, match=r"did not finish within 0\.3 s"):
        make_http(limits=limits).get(f"{address}/{path}")
    assert time.monotonic() - begun_s < 30  # it would go on for ever


def test_a_bomb_takes_no_memory(address: str) -> None:
    tracemalloc.start()
    with pytest.raises(FeedUnavailable):
        make_http().get(f"{address}/bomb")
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("path", ["large", "bomb"])
def test_too_large_a_body_is_refused(address: str, path: str) -> None:
    with pytest.raises(FeedUnavailable, match=f"/{path} answers more than 1000 bytes"):
        make_http().get(f"{address}/{path}")


def test_silence_ends_after_the_read_timeout(address: str) -> None:
    with pytest.raises(FeedUnavailable, match="ReadTimeout"):
        make_http(limits=IMPATIENT).get(f"{address}/silent", {"securityToken": "s3cret"})


def test_the_deadline_covers_the_whole_answer(address: str) -> None:
    limits = HttpLimits(connect_s=60, read_s=60, deadline_s=5)
    with pytest.raises(FeedUnavailable, match="did not finish within 5 s"):
        make_http(SteppingClock(), limits).get(f"{address}/plain")


def test_redirects_are_followed_to_their_limit(address: str) -> None:
    http = make_http()
    assert http.get(f"{address}/to/to/to/plain").body == b"hello"
    with pytest.raises(FeedRejected, match="more than 3 redirects"):
        http.get(f"{address}/to/to/to/to/plain")


def test_another_host_gets_no_headers(address: str) -> None:
    http = make_http()
    http.get(f"{address}/to/plain?own", headers={"auth-token": "x"})
    assert headers_of("/plain?own")[0]["auth-token"] == "x"
    before = len(headers_of("/plain"))
    assert http.get(f"{address}/away", headers={"auth-token": "x"}).body == b"hello"
    (headers,) = headers_of("/plain")[before:]
    assert "auth-token" not in headers


def test_another_scheme_is_not_followed(address: str) -> None:
    with pytest.raises(FeedRejected, match="redirects to another scheme: https://"):
        make_http().get(f"{address}/ftp")


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/hosts", "host/x", "http:///x"])
def test_only_http_urls_are_asked(url: str) -> None:
    with pytest.raises(FeedRejected, match="url: must begin with http"):
        make_http().get(url)


def test_no_secret_is_in_any_message(address: str) -> None:
    http, impatient = make_http(), make_http(limits=IMPATIENT)
    assert "s3cret" not in http.get(f"{address}/plain", {"securityToken": "s3cret"}).url
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for one, url in (
            (http, nowhere),
            (http, f"{address}/large"),
            (impatient, f"{address}/silent"),
            (http, "http://user:s3cret@[bad"),
        ):
            with pytest.raises((FeedError, ValueError)) as caught:
                one.get(url, {"api_key": "s3cret", "securityToken": "s3cret"})
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


# --- addresses -----------------------------------------------------------------------------


def test_loopback_is_refused_unless_it_is_allowed(address: str) -> None:
    for name in (address, address.replace("127.0.0.1", "localhost")):
        with pytest.raises(FeedRejected, match="PALS_GRID_FEED_NETWORKS"):
            RequestsHttp(LIMITS).get(f"{name}/plain?refused")
        with pytest.raises(FeedRejected, match="not on the public internet"):
            RequestsHttp(LIMITS).post(f"{name}/plain?refused", {"password": "s3cret"})
    assert headers_of("/plain?refused") == []


def test_a_form_is_posted(address: str) -> None:
    assert make_http().post(f"{address}/plain", {"user": "a"}).body == b"user=a"


def test_a_redirect_inward_is_refused_at_its_hop(address: str) -> None:
    """The provider itself is allowed by its address; where it redirects to is not."""
    port = int(address.rpartition(":")[2])
    names = {"provider.example": ["127.0.0.1"], "localhost": ["::1"]}
    rule = AddressRule((read_network("127.0.0.1/32"),))
    http = RequestsHttp(LIMITS, rule=rule, lookup=lambda host, _: names[host])
    assert http.get(f"http://provider.example:{port}/plain").body == b"hello"
    followed = len(headers_of("/plain"))
    with pytest.raises(FeedRejected, match="localhost leads to ::1, which is not on the public"):
        http.get(f"http://provider.example:{port}/away?inward")
    assert len(headers_of("/away?inward")) == 1
    assert len(headers_of("/plain")) == followed


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(address: str) -> None:
    """A name server that answers anew each time gets no second question (DNS rebinding)."""
    port = int(address.rpartition(":")[2])
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    http = RequestsHttp(LIMITS, rule=LOOPBACK, lookup=lambda *_: next(answers))
    assert http.get(f"http://provider.example:{port}/plain?once").body == b"hello"
    assert headers_of("/plain?once")[0]["host"] == f"provider.example:{port}"
    with pytest.raises(FeedRejected, match=r"leads to 10\.0\.0\.1"):
        http.get(f"http://provider.example:{port}/plain")


def test_of_several_addresses_the_permitted_ones_are_tried(address: str) -> None:
    port = int(address.rpartition(":")[2])
    found = ["10.0.0.1", "127.0.0.2", "127.0.0.1"]
    http = RequestsHttp(LIMITS, rule=LOOPBACK, lookup=lambda *_: found)
    assert http.get(f"http://provider.example:{port}/plain").body == b"hello"


def test_a_slow_name_server_ends_with_the_connect_time() -> None:
    held = threading.Event()

    def never(host: str, port: int) -> list[str]:
        held.wait(60)
        return look_up(host, port)

    limits = HttpLimits(connect_s=0.1, read_s=60, deadline_s=120)
    with pytest.raises(FeedUnavailable, match=r"was not looked up within 0\.1 s"):
        RequestsHttp(limits, rule=LOOPBACK, lookup=never).get("http://provider.example/")
    held.set()


def test_an_unknown_name_is_no_answer() -> None:
    with pytest.raises(FeedUnavailable, match=r"no-such-name\.invalid/: ConnectionError"):
        RequestsHttp(LIMITS).get("http://no-such-name.invalid/")


def test_the_environment_is_not_heeded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert make_http().get(f"{address}/plain").body == b"hello"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with TLS for provider.example alone; its port and the certificate to trust."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=provider.example", "-addext", "subjectAltName=DNS:provider.example"]
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-nodes", "-days", "2"]
    order = [program, "req", "-x509", "-newkey", "rsa:2048", *made, *subject]
    subprocess.run(order, cwd=folder, check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], folder / "cert.pem"
    server.shutdown()
    thread.join()
    server.server_close()


def test_certificates_are_compared_with_the_name(secure: tuple[int, Path]) -> None:
    port, trusted = secure

    def ask(name: str, ca_file: Path | None) -> bytes:
        http = RequestsHttp(LIMITS, rule=LOOPBACK, lookup=lambda *_: ["127.0.0.1"], ca_file=ca_file)
        return http.get(f"https://{name}:{port}/plain").body

    assert ask("provider.example", trusted) == b"hello"
    with pytest.raises(FeedUnavailable, match=r"SSLError.*other\.example"):
        ask("other.example", trusted)
    with pytest.raises(FeedUnavailable, match="SSLError"):
        ask("provider.example", None)


def test_a_handshake_that_trickles_ends_with_the_deadline() -> None:
    limits = HttpLimits(connect_s=60, read_s=60, deadline_s=0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun_s = time.monotonic()
        with pytest.raises(FeedUnavailable, match=r"did not finish within 0\.3 s"):
            make_http(limits=limits).get(f"https://127.0.0.1:{port}/")
    assert time.monotonic() - begun_s < 30  # sooner than the read time-out


def test_an_unknown_name_is_told_in_the_systems_words() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, f"Name or service not known ({host}:{port})")

    with pytest.raises(FeedUnavailable, match=r"Name or service not known \(a.example:80\)$"):
        RequestsHttp(LIMITS, lookup=unknown).get("http://a.example/")
