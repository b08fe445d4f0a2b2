"""A database that lives as long as a replay."""

from __future__ import annotations

import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from pals_grid.store.embedded import EmbeddedPostgres
from pals_grid.store.engine import Database, plain_url
from pals_grid.store.migrate import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def scratch_database(server_url: str | None) -> Iterator[Database]:
    """Yield a migrated, empty database: on the server given, else on an embedded one of its own.

    Raises:
        ConfigurationError: when the server does not answer or cannot be started.
    """
    if server_url is None:
        with tempfile.TemporaryDirectory(prefix="pals-grid-replay-") as folder:
            # Where we are root, the server runs as another user, who has to get in.
            Path(folder).chmod(0o711)
            with EmbeddedPostgres(Path(folder)) as url:
                yield from _migrated(url)
        return
    name = f"pals_grid_replay_{secrets.token_hex(6)}"
    with psycopg.connect(plain_url(server_url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield from _migrated(_beside(server_url, name))
    finally:
        with psycopg.connect(plain_url(server_url), autocommit=True) as connection:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def _migrated(url: str) -> Iterator[Database]:
    upgrade(url)
    database = Database(url, pool_size=2)
    try:
        yield database
    finally:
        database.dispose()


def _beside(server_url: str, name: str) -> str:
    changed = make_url(plain_url(server_url)).set(database=name)
    return changed.render_as_string(hide_password=False)
