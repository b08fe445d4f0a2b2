from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pals_grid.cli.exits import CODES, ServiceRefused, exit_code_of
from pals_grid.cli.output import show_age, show_power
from pals_grid.core.errors import DeviceLost, FeedUnavailable, InvalidValue, LinkRejected, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    Run = Callable[..., Result]

ROWS = b"at,price\n2026-03-02T12:00:00Z,50\n2026-03-02T12:30:00Z,-3.5\n"
MAPPING = (
    "--option", "quantity=price",
    "--option", "unit=EUR/MWh",
    "--option", "start_column=at",
    "--option", "value_column=price",
    "--option", "interval_s=1800",
)  # fmt: skip
EXPECTED = [
    {
        "start_at": "2026-03-02T12:00:00Z",
        "end_at": "2026-03-02T12:30:00Z",
        "value": 50.0,
        "unit": "EUR/MWh",
        "kind": "measured",
    },
    {
        "start_at": "2026-03-02T12:30:00Z",
        "end_at": "2026-03-02T13:00:00Z",
        "value": -3.5,
        "unit": "EUR/MWh",
        "kind": "measured",
    },
]


@pytest.mark.parametrize("packed", [False, True])
def test_a_payload_is_parsed_without_a_service(run: Run, tmp_path: Path, *, packed: bool) -> None:
    path = tmp_path / "payload"
    path.write_bytes(gzip.compress(ROWS) if packed else ROWS)
    found = run("feed", "parse", "--connector", "file", "--file", str(path), *MAPPING, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == EXPECTED
    table = run("feed", "parse", "--connector", "file", "--file", str(path), *MAPPING)
    assert table.stdout.splitlines()[0].split() == ["start_at", "end_at", "value", "unit", "kind"]


def test_a_payload_from_standard_input(run: Run) -> None:
    found = run(
        "feed", "parse", "--connector", "file", "--file", "-", *MAPPING, "--json", stdin=ROWS
    )
    assert json.loads(found.stdout) == EXPECTED


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"at,price\n2026-03-02T12:00:00,50\n", "2026-03-02T12:00:00"),
        (b"at,price\n2026-03-02T12:00:00Z,NaN\n", "NaN"),
        (b"<html>", "html"),
        (gzip.compress(ROWS, mtime=0)[:-12], "file"),
    ],
)
def test_a_broken_payload_is_bad_input(run: Run, tmp_path: Path, payload: bytes, said: str) -> None:
    path = tmp_path / "payload"
    path.write_bytes(payload)
    found = run("feed", "parse", "--connector", "file", "--file", str(path), *MAPPING, "--json")
    assert found.exit_code == 3
    assert found.stdout == ""
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert said in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--connector", "moon", "--file", "x"),
        ("--connector", "file", "--file", "/nowhere", *MAPPING),
        ("--connector", "file", "--file", "x", "--option", "unit"),
        ("--connector", "file", "--file", "x", "--option", "unit=a", "--option", "unit=b"),
    ],
)
def test_wrong_arguments_are_bad_input(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("feed", "parse", *arguments).exit_code == 3


def test_doctor_names_a_taken_port_and_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, postgres_url: str, free_port: int
) -> None:
    monkeypatch.setenv("PALS_GRID_DATABASE_URL", postgres_url)
    monkeypatch.setenv("PALS_GRID_PORT", str(free_port))
    well = run("doctor", "--json")
    assert well.exit_code == 0, well.output
    assert {item["verdict"] for item in json.loads(well.stdout)} <= {"ok", "info"}
    with socket.create_server(("127.0.0.1", free_port)):
        ill = run("doctor")
    assert ill.exit_code == 1
    assert "set PALS_GRID_PORT to a free port" in ill.stdout


def test_doctor_names_a_silent_database(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALS_GRID_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    found = json.loads(run("doctor", "--json").stdout)
    assert [item["verdict"] for item in found if item["what"] == "database"] == ["missing"]


def test_db_upgrade(
    run: Run, monkeypatch: pytest.MonkeyPatch, make_blank_database: Callable[[], str]
) -> None:
    monkeypatch.setenv("PALS_GRID_DATABASE_URL", make_blank_database())
    assert "(was empty)" in run("db", "upgrade").stdout
    assert run("db", "upgrade").exit_code == 0


def test_a_bad_setting_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALS_GRID_PORT", "http")
    for command in ("up", "serve", "doctor"):
        found = run(command)
        assert (found.exit_code, found.stderr) == (
            3,
            "error: PALS_GRID_PORT: must be a whole number from 1 to 65535, got 'http'\n",
        )


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff"])
def test_an_agent_without_a_token_does_not_start(
    run: Run, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    found = run("agent", "--token-file", str(path), "--state-dir", str(tmp_path / "state"))
    assert found.exit_code == 3
    assert "token-file" in found.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--node-meter", "redfish"], "node_meter_url: must be given with redfish"),
        (["--node-meter-chassis", "1"], "node_meter_chassis: needs node_meter_url"),
        (["--node-meter", "rapl", "--hardware", "sim"], "must be auto or linear for a simulated"),
        (["--hardware", "amd"], "amdsmi cannot be loaded"),
    ],
)
def test_an_agent_with_a_meter_or_hardware_that_is_not_there_does_not_start(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    token = tmp_path / "token"
    token.write_text("abc")
    state = str(tmp_path / "state")
    found = run("agent", "--token-file", str(token), "--state-dir", state, *options)
    assert found.exit_code in {3, 5}
    assert message in found.stderr


def test_help_needs_the_node_s_packages_alone() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg", "alembic", "uvicorn",
            "jinja2", "prometheus_client", "numpy", "pynvml",
        }:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Refuse())
from pals_grid.cli.main import main
main(["%s"])
"""
    for argument, status in (("--help", 0), ("serve", 5)):
        done = subprocess.run(
            [sys.executable, "-c", code % argument], capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
    assert "pip install 'pals-grid[service]'" in done.stderr


def test_exit_codes() -> None:
    assert exit_code_of(InvalidValue("x", 1, "must be 2")) == 3
    assert exit_code_of(NotFound("site", "x")) == 4
    assert exit_code_of(FeedUnavailable("x")) == 5
    assert exit_code_of(DeviceLost("x")) == 5
    assert exit_code_of(LinkRejected("x")) == 3
    for status, code in ((404, 4), (409, 3), (412, 3), (422, 3), (500, 1), (502, 5), (503, 5)):
        assert exit_code_of(ServiceRefused(status, "x")) == code
    assert set(CODES.values()) <= {1, 3, 4, 5}


def test_figures_for_people() -> None:
    assert [show_power(w) for w in (None, 999.4, 1234.0, 2.5e6)] == [
        "-",
        "999 W",
        "1.23 kW",
        "2.50 MW",
    ]
    assert [show_age(s) for s in (None, 30.0, 90.0, 7200.0, 2e5)] == [
        "-", "30 s", "1.5 min", "2.0 h", "2.3 d",
    ]  # fmt: skip


def test_doctor_makes_nothing_and_names_a_directory_that_cannot_be(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = tmp_path / "a" / "b"
    monkeypatch.setenv("PALS_GRID_DATA_DIR", str(wanted))
    found = json.loads(run("doctor", "--json").stdout)
    assert [item["verdict"] for item in found if item["what"] == "data directory"] == ["ok"]
    assert not wanted.parent.exists()
    (tmp_path / "a").write_text("a file")
    found = json.loads(run("doctor", "--json").stdout)
    assert [item["verdict"] for item in found if item["what"] == "data directory"] == ["missing"]


def test_a_replay_s_arguments_are_checked_first(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    files = ("--price", str(path), "--carbon", str(path), "--trace", str(path))
    assert run("replay", *files[2:], "--start", "2022-11-20T00:00:00Z").exit_code == 2
    assert run("replay", *files, "--start", "2022-11-20T00:00:00").exit_code == 2
    uneven = run("replay", *files, "--start", "2022-11-20T00:30:00Z")
    assert (uneven.exit_code, "start_at" in uneven.stderr) == (3, True)
    plot = ("--plot", str(tmp_path / "no" / "x.png"))
    nowhere = run("replay", *files, "--start", "2022-11-20T00:00:00Z", *plot)
    assert (nowhere.exit_code, "plot" in nowhere.stderr) == (3, True)
