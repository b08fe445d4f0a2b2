"""Brings a database's schema up to this release's, by Alembic.

Revisions are numbered ``0001``, ``0002`` ..., and a file's name begins with its number, so that
a database that is up to date is recognised without loading Alembic (0.5 s).
"""

from __future__ import annotations

import logging
import threading
from importlib.resources import files

import psycopg

from pals_grid.core.errors import ConfigurationError
from pals_grid.store.engine import CONNECT_TIMEOUT_S, Database, plain_url

_log = logging.getLogger(__name__)

MIGRATIONS = "pals_grid_migrations"
_one_at_a_time = threading.Lock()  # Alembic keeps its context in a module


def head_revision() -> str:
    """Return the newest revision that this release knows."""
    names = (item.name for item in files(MIGRATIONS).joinpath("versions").iterdir())
    return max(name[:4] for name in names if name[:4].isdecimal())


def current_revision(url: str) -> str | None:
    """Return the database's revision; None before its first migration.

    Raises:
        ConfigurationError: when the database does not answer.
    """
    try:
        with psycopg.connect(plain_url(url), connect_timeout=CONNECT_TIMEOUT_S) as connection:
            known = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
            if known is None or known[0] is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.OperationalError as error:
        raise ConfigurationError(f"database: does not answer: {error}") from error
    return str(row[0]) if row else None


def upgrade(url: str) -> None:
    """Migrate to ``head_revision()``; does nothing when the database is there or beyond.

    Several services may do so at once: one migrates and the others wait.

    Raises:
        ConfigurationError: when the database does not answer.
    """
    head = head_revision()
    current = current_revision(url)
    if current is not None and current >= head:
        if current > head:
            _log.warning("database is at revision %s, newer than our %s", current, head)
        return
    # Loaded only where there is something to migrate.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", f"{MIGRATIONS}:.")
    database = Database(url, pool_size=1)
    try:
        with _one_at_a_time, database.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.dispose()
    _log.info("migrated the database from %s to %s", current or "nothing", head)
