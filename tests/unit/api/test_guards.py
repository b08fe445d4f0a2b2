from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse

from pals_grid.api.guards import BodyLimit, RequestGuard, host_of
from pals_grid.api.problems import MEDIA_TYPE, install_problems
from tests.unit.api.client import TestClient

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("fine")(scope, receive, send)


def guarded(*hosts: str) -> TestClient:
    return TestClient(RequestGuard(fine, hosts), base_url="http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost:8080", "localhost"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("LocalHost", "localhost"),
        ("", None),
        ("[::1", None),
    ],
)
def test_host_of(header: str, host: str | None) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:99", "[::1]:8080", "grid.example:80"])
def test_known_hosts_pass(host: str) -> None:
    assert guarded("grid.example").get("/", headers={"Host": host}).text == "fine"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7", ""])
def test_foreign_hosts_are_refused(host: str) -> None:
    answer = guarded("grid.example").get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_a_wildcard_address_admits_addresses_and_no_names() -> None:
    client = guarded("0.0.0.0")
    assert client.get("/", headers={"Host": "10.0.0.7:8080"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
    ],
)
def test_writes_from_other_pages_are_refused(headers: dict[str, str]) -> None:
    assert guarded().post("/", headers=headers).status_code == 403
    assert guarded().get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8080"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_writes_of_our_own_pages_and_of_programs_pass(headers: dict[str, str]) -> None:
    assert guarded().post("/", headers=headers).status_code == 200


def bounded() -> TestClient:
    from fastapi import FastAPI, Request  # noqa: PLC0415 - its names are read at run time

    app = FastAPI()
    install_problems(app)

    async def count(request: Request) -> int:
        return len(await request.body())

    count.__annotations__["request"] = Request
    app.post("/")(count)
    app.add_middleware(BodyLimit, limit_bytes=10)
    return TestClient(app)


def test_a_body_at_the_limit_passes() -> None:
    assert bounded().post("/", content=b"x" * 10).text == "10"


def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    assert bounded().post("/", content=b"x" * 11).status_code == 413
    answer = bounded().post("/", content=iter([b"x" * 6, b"x" * 6]))
    assert answer.status_code == 413
    assert answer.json()["detail"] == "body: must be at most 10 bytes"
