from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from pals_grid.core.errors import LinkRejected, LinkUnavailable
from pals_grid.core.fleet import Origin
from pals_grid.node.link import HttpLink, MessageRefused
from pals_grid.wire.messages import (
    CurvePoint,
    EnvelopeSchedule,
    NodeStatus,
    PowerGrant,
    RegisterReply,
    RegisterRequest,
    StatusReply,
    TelemetryAck,
    TelemetryBatch,
    encode,
)
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = RegisterRequest(
    name="n1",
    hardware="fakes",
    agent_version="0",
    origin=Origin.SIMULATED,
    gpus=[],
    models=[],
    power_min_w=1,
    power_max_w=2,
    curve=[CurvePoint(tokens_per_s=0, power_w=1)],
)
STATUS = NodeStatus(
    at=datetime(2026, 1, 5, tzinfo=UTC),
    mode="following",
    envelope_version=3,
    power_envelope_w=1,
    node_power_w=1,
    node_power_origin=Origin.SIMULATED,
    gpu_power_w=1,
    tick_lag_ms=0,
    engines=[],
    gpus=[],
    takes_grants=True,
    grant_epoch=1,
    grant_sequence=9,
)
BATCH = TelemetryBatch(spool_id="s", seq=4, engine_rows=[], gpu_rows=[])


class Service:
    """Answers as the REST API does; ``statuses`` overrides the next answers of a path's end."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.bodies: list[Any] = []
        self.statuses: dict[str, list[int]] = {}
        self.token = 0
        self.version = 3
        self.grant: PowerGrant | None = None
        self.is_old = False

    def answer(  # noqa: PLR0911 - one return for each endpoint
        self, method: str, target: str, bearer: str, body: bytes
    ) -> tuple[int, bytes]:
        self.asked.append((method, target, bearer))
        self.bodies.append(json.loads(body) if body else None)
        what = urlsplit(target).path.rsplit("/", 1)[1]
        forced = self.statuses.get(what)
        if forced:
            return forced.pop(0), b'{"detail": "said so"}'
        if what == "register":
            self.token += 1
            reply = RegisterReply(
                node_id=7, node_token=f"t{self.token}", site="s", ttft_slo_s=2, itl_slo_s=0.1
            )
            return 201, encode(reply)
        if bearer != f"t{self.token}":
            return 401, b"who are you?"
        if what == "envelopes":
            after = int(target.partition("after_version=")[2].partition("&")[0])
            if after >= self.version:
                return 204, b""
            now = datetime(2026, 1, 5, tzinfo=UTC)
            return 200, encode(
                EnvelopeSchedule(
                    node_id=7, version=self.version, issued_at=now, safe_power_w=1, intervals=[]
                )
            )
        if what == "telemetry":
            ack = TelemetryAck(spool_id="s", seq=4, engine_rows_inserted=0, gpu_rows_inserted=0)
            return 200, encode(ack)
        if what == "status":
            return (204, b"") if self.is_old else (200, encode(StatusReply(grant=self.grant)))
        return 404, b""


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, content = service.answer(self.command, self.path, bearer, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - names that http.server asks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_whole_conversation(url: str, service: Service) -> None:
    link = HttpLink(url + "/", "enrol", timeout_s=PATIENCE_S)
    assert link.register(REQUEST).node_id == 7
    schedule = link.fetch_schedule(0, 12.5)
    assert schedule is not None
    assert schedule.version == 3
    assert link.fetch_schedule(3, 0.0) is None
    assert link.send_telemetry(BATCH).seq == 4
    assert service.asked == [
        ("POST", "/api/v1/nodes/register", "enrol"),
        ("GET", "/api/v1/nodes/7/envelopes?after_version=0&wait_s=12.5", "t1"),
        ("GET", "/api/v1/nodes/7/envelopes?after_version=3&wait_s=0", "t1"),
        ("POST", "/api/v1/nodes/7/telemetry", "t1"),
    ]
    assert service.bodies[0]["name"] == "n1"


def test_a_status_is_answered_with_a_grant_or_none(url: str, service: Service) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    assert link.send_status(STATUS) == StatusReply()
    service.grant = PowerGrant(epoch=1, sequence=2, power_w=700.0, lease_s=20.0)
    assert link.send_status(STATUS).grant == service.grant
    told = service.bodies[-1]
    assert (told["takes_grants"], told["grant_epoch"], told["grant_sequence"]) == (True, 1, 9)


def test_a_service_from_before_grants_answers_a_status_with_nothing(
    url: str, service: Service
) -> None:
    service.is_old = True
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    assert link.send_status(STATUS) == StatusReply()


def test_a_forgotten_node_gets_its_grant_as_well(url: str, service: Service) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    service.token = 5
    service.grant = PowerGrant(epoch=1, sequence=2, power_w=700.0, lease_s=20.0)
    assert link.send_status(STATUS).grant == service.grant


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b'{"grant": {"epoch": 1, "sequence": 1, "power_w": -5, "lease_s": 20}}',
        b'{"grant": {"epoch": 1, "sequence": 1, "power_w": 5, "lease_s": 0}}',
        b'{"grant": {"epoch": 1, "sequence": 1, "power_w": 5, "lease_s": 1e9}}',
        b'{"grant": {"epoch": 1, "power_w": 5, "lease_s": 20}}',
    ],
)
def test_an_answer_that_is_no_grant_is_unavailable(
    url: str, service: Service, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    monkeypatch.setattr(service, "answer", lambda *_: (200, body))
    with pytest.raises(LinkUnavailable, match="no StatusReply"):
        link.send_status(STATUS)


def test_a_forgotten_node_registers_again_once_and_fetches_from_the_start(
    url: str, service: Service
) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    service.token = 5  # the service knows another token now
    assert link.fetch_schedule(3, 20.0) is not None
    assert link.send_telemetry(BATCH).seq == 4
    assert [target.rsplit("/", 1)[1] for _, target, _ in service.asked[1:]] == [
        "envelopes?after_version=3&wait_s=20",
        "register",
        "envelopes?after_version=0&wait_s=0",
        "telemetry",
    ]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_service_that_goes_on_refusing_is_a_rejection(
    url: str, service: Service, status: int
) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    service.statuses["telemetry"] = [status, status]
    with pytest.raises(LinkRejected, match="said so"):
        link.send_telemetry(BATCH)
    assert service.token == 2


def test_a_wrong_enrolment_token_is_a_rejection(url: str, service: Service) -> None:
    service.statuses["register"] = [401]
    with pytest.raises(LinkRejected, match="HTTP 401"):
        HttpLink(url, "wrong", timeout_s=PATIENCE_S).register(REQUEST)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_says_so(url: str, service: Service, status: int) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    service.statuses["telemetry"] = [status]
    with pytest.raises(MessageRefused, match=f"HTTP {status}"):
        link.send_telemetry(BATCH)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_trouble_that_passes_is_unavailable(url: str, service: Service, status: int) -> None:
    link = HttpLink(url, "enrol", timeout_s=PATIENCE_S)
    link.register(REQUEST)
    service.statuses["telemetry"] = [status]
    with pytest.raises(LinkUnavailable, match="said so"):
        link.send_telemetry(BATCH)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(LinkUnavailable):
        HttpLink("http://127.0.0.1:9", "enrol", timeout_s=PATIENCE_S).register(REQUEST)


def test_nothing_is_sent_before_registration(url: str, service: Service) -> None:
    with pytest.raises(LinkUnavailable, match="not registered"):
        HttpLink(url, "enrol", timeout_s=PATIENCE_S).send_telemetry(BATCH)
    assert service.asked == []


def test_an_answer_from_something_else_is_unavailable(url: str, service: Service) -> None:
    service.statuses["register"] = [200]
    with pytest.raises(LinkUnavailable, match="no RegisterReply"):
        HttpLink(url, "enrol", timeout_s=PATIENCE_S).register(REQUEST)


def test_the_token_is_in_no_message(url: str, service: Service) -> None:
    service.statuses["register"] = [500]
    with pytest.raises(LinkUnavailable) as caught:
        HttpLink(url, "secret-token", timeout_s=PATIENCE_S).register(REQUEST)
    assert "secret-token" not in str(caught.value)
