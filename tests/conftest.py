"""Fixtures that every test may use: a database of its own, and the shared recorded data."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pals_grid.store.engine import Database

# The service's packages are imported inside the fixtures: a node installs without them, and its
# tests run there too.

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # The same examples in every run, whatever the machine's speed; new ones on request:
    # pytest --hypothesis-profile=explore
    settings.register_profile(
        "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.register_profile(
        "fixed", settings.get_profile("explore"), derandomize=True, database=None
    )
    settings.load_profile("fixed")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server that may make databases: PALS_GRID_TEST_DATABASE_URL, else an embedded one."""
    from pals_grid.store.embedded import EmbeddedPostgres  # noqa: PLC0415

    given = os.environ.get("PALS_GRID_TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Not pytest's own folder: root's is closed to the unprivileged user that runs the server.
    folder = Path(tempfile.mkdtemp(prefix="pals-grid-test-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template_name(postgres_url: str) -> Iterator[str]:
    """A migrated database to copy."""
    from pals_grid.store.migrate import upgrade  # noqa: PLC0415

    name = _create(postgres_url)
    try:
        upgrade(_named(postgres_url, name))
        yield name
    finally:
        _drop(postgres_url, name)


@pytest.fixture
def database(postgres_url: str, template_name: str) -> Iterator[Database]:
    """A migrated, empty database of this test's own."""
    from pals_grid.store.engine import Database  # noqa: PLC0415

    name = _create(postgres_url, template_name)
    own = Database(_named(postgres_url, name), pool_size=5)
    try:
        yield own
    finally:
        own.dispose()
        _drop(postgres_url, name)


@pytest.fixture
def make_blank_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Makes a database without any table at each call; returns its URL."""
    names: list[str] = []

    def make() -> str:
        names.append(_create(postgres_url))
        return _named(postgres_url, names[-1])

    try:
        yield make
    finally:
        for name in names:
            _drop(postgres_url, name)


@contextmanager
def _port() -> Iterator[int]:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        if sys.platform != "linux":  # there a bound port is shut to all others
            held.close()
        yield port


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nobody listens on and that the system gives to no one else; a test may."""
    with _port() as port:
        yield port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Another such port, on which no test listens."""
    with _port() as port:
        yield port


@pytest.fixture
def shared_data() -> Path:
    """Recorded payloads and traces that live beside the repository, not in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no recorded data at {SHARED_DATA}")
    return SHARED_DATA


def _create(server_url: str, template: str = "template0") -> str:
    import psycopg  # noqa: PLC0415

    name = f"pals_grid_test_{uuid4().hex[:16]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


def _drop(server_url: str, name: str) -> None:
    import psycopg  # noqa: PLC0415

    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _named(server_url: str, name: str) -> str:
    from sqlalchemy import make_url  # noqa: PLC0415

    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
