from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.errors import (
    ConfigurationError,
    DeviceError,
    DevicePermission,
    DeviceUnsupported,
)
from pals_grid.node.meters import redfish
from pals_grid.node.meters.redfish import RedfishSource, read_auth
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Baseboard:
    """Answers what the test puts under a path."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.auth: str | None = None
        self.asked: list[str] = []
        self.url = ""

    def chassis(self, name: str, kind: str = "RackMount", **links: str) -> None:
        members = self.pages.setdefault("/redfish/v1/Chassis", {"Members": []})["Members"]
        path = f"/redfish/v1/Chassis/{name}"
        members.append({"@odata.id": path})
        self.pages[path] = {"Id": name, "ChassisType": kind} | {
            link: {"@odata.id": f"{path}/{link}"} for link in links
        }
        for link, page in links.items():
            self.pages[f"{path}/{link}"] = json.loads(page)


@contextmanager
def serving(board: Baseboard, certificate: Path | None = None) -> Iterator[None]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            board.asked.append(self.path)
            page = board.pages.get(self.path.rstrip("/"))
            if board.auth is not None and self.headers.get("Authorization") != board.auth:
                self.send_response(401)
            elif isinstance(page, int):
                self.send_response(page)
                self.send_header("Location", "http://127.0.0.1:9/")
            else:
                self.send_response(200 if page is not None else 404)
            body = page if isinstance(page, bytes) else json.dumps(page).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    board.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redfish, "TIMEOUT_S", (PATIENCE_S, PATIENCE_S))


@pytest.fixture
def board() -> Iterator[Baseboard]:
    board = Baseboard()
    with serving(board):
        yield board


METRICS = '{"PowerWatts": {"Reading": 1234.5, "DataSourceUri": "/x"}}'
POWER = '{"PowerControl": [{"PowerConsumedWatts": 640, "PowerCapacityWatts": 3000}]}'


def test_the_newer_place_is_preferred_and_found_once(board: Baseboard) -> None:
    board.chassis("1", EnvironmentMetrics=METRICS, Power=POWER)
    source = RedfishSource(board.url)
    assert source.read_w() == 1234.5
    board.asked.clear()
    assert source.read_w() == 1234.5
    assert board.asked == ["/redfish/v1/Chassis/1/EnvironmentMetrics"]


@pytest.mark.parametrize("metrics", [None, "{}", '{"PowerWatts": {"Reading": null}}'])
def test_the_older_place_is_read_where_the_newer_has_nothing(
    board: Baseboard, metrics: str | None
) -> None:
    links = {"Power": POWER} if metrics is None else {"EnvironmentMetrics": metrics, "Power": POWER}
    board.chassis("Self", **links)
    assert RedfishSource(board.url + "/").read_w() == 640.0


def test_parts_listed_beside_the_whole_are_passed_over(board: Baseboard) -> None:
    controls = [
        {"PowerConsumedWatts": None, "PhysicalContext": "Chassis"},
        {"PowerConsumedWatts": 190, "PhysicalContext": "CPU"},
        {"PowerConsumedWatts": 700, "PhysicalContext": "Chassis"},
    ]
    board.chassis("1", Power=json.dumps({"PowerControl": controls}))
    assert RedfishSource(board.url).read_w() == 700.0


def test_of_several_chassis_the_node_is_taken_or_has_to_be_named(board: Baseboard) -> None:
    board.chassis("HGX_GPU_0", "Component", EnvironmentMetrics=METRICS)
    board.chassis("NoPower", "RackMount")
    board.chassis("Node", "RackMount", Power=POWER)
    assert RedfishSource(board.url).read_w() == 640.0
    assert RedfishSource(board.url, chassis="HGX_GPU_0").read_w() == 1234.5
    board.chassis("Other", "Sled", Power=POWER)
    with pytest.raises(DeviceUnsupported, match=r"HGX_GPU_0, Node, Other\): name the node's"):
        RedfishSource(board.url).read_w()
    with pytest.raises(DeviceUnsupported, match="NoPower gives no power reading"):
        RedfishSource(board.url, chassis="NoPower").read_w()


def test_user_and_password_are_sent_and_a_refusal_is_told(board: Baseboard) -> None:
    board.chassis("1", Power=POWER)
    board.auth = "Basic " + base64.b64encode(b"meter:s3:cret").decode()
    assert RedfishSource(board.url, ("meter", "s3:cret")).read_w() == 640.0
    with pytest.raises(DevicePermission, match="401") as caught:
        RedfishSource(board.url, ("meter", "wrong")).read_w()
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (500, "500"),
        (302, "302"),  # no redirect is followed: the password stays here
        (b"<html>", "malformed"),
        (b'{"PowerControl": [{"PowerConsumedWatts": "640"}]}', "Expected `float"),
        (b'{"PowerControl": [{"PowerConsumedWatts": 0}]}', "must be above 0"),
        (b" " * (redfish.MAX_BYTES + 1), "must be at most 1048576 bytes"),
    ],
)
def test_answers_that_are_no_reading_are_told(
    board: Baseboard, page: int | bytes, message: str
) -> None:
    board.chassis("1", Power=POWER)
    source = RedfishSource(board.url)
    source.read_w()
    board.pages["/redfish/v1/Chassis/1/Power"] = page
    with pytest.raises(DeviceError, match=message):
        source.read_w()


def test_a_place_that_went_away_is_looked_for_again(board: Baseboard) -> None:
    board.chassis("1", EnvironmentMetrics=METRICS, Power=POWER)
    source = RedfishSource(board.url)
    source.read_w()
    del board.pages["/redfish/v1/Chassis/1/EnvironmentMetrics"]
    with pytest.raises(DeviceUnsupported, match="404"):
        source.read_w()
    assert source.read_w() == 640.0


def test_a_link_to_another_host_is_not_followed(board: Baseboard) -> None:
    board.chassis("1", Power=POWER)
    links = {"Id": "1", "Power": {"@odata.id": "http://127.0.0.1:9/redfish"}}
    board.pages["/redfish/v1/Chassis/1"] = links
    with pytest.raises(DeviceError, match="leads to another host"):
        RedfishSource(board.url).read_w()


def test_no_answer_is_told(board: Baseboard) -> None:
    assert board.url
    with pytest.raises(DeviceError, match="GET http"):
        RedfishSource("http://127.0.0.1:9").read_w()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("10.0.0.7", "must be an https address"),
        ("ftp://10.0.0.7", "must be an https address"),
        ("http://10.0.0.7", "must begin with https://"),
        ("https://me:pw@10.0.0.7", "must hold no password"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RedfishSource(url)


def test_certificates_are_verified(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl: a certificate cannot be made")
    certificate = tmp_path / "bmc.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=bmc",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    command += ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    board = Baseboard()
    board.chassis("1", Power=POWER)
    with serving(board, certificate):
        with pytest.raises(DeviceError, match="certificate verify failed"):
            RedfishSource(board.url).read_w()
        assert board.asked == []
        assert RedfishSource(board.url, ca_file=certificate).read_w() == 640.0


def test_user_and_password_come_from_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "auth"
    path.write_text("meter:s3:cret\n")
    path.chmod(0o600)
    assert read_auth(path) == ("meter", "s3:cret")
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="with 0640"):
        read_auth(path)
    path.chmod(0o600)
    for content in ("s3cret", "meter:", ":s3cret", "a:b\nc:d"):
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="must hold one line") as caught:
            read_auth(path)
        assert content not in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_auth(tmp_path / "nowhere")
