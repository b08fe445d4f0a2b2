"""Connections to Postgres: transactions, consistent reads, and signals sent at commit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

NOTIFY_CHANNEL = "pals_grid"
CONNECT_TIMEOUT_S = 5
# Tell of an unplugged server within about 6 s, where the system's own settings take hours.
KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}
# A process that hangs inside a transaction keeps its locks: the server ends it, others go on.
_TIMEOUTS = "-c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"


class Database:
    """A pool of connections to one database.

    Sessions run in UTC; no statement, and no pause inside a transaction, lasts longer than 60 s
    unless the URL's own ``options`` say otherwise.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        """Take ``postgresql://`` or ``postgresql+psycopg://``; connects on first use.

        Raises:
            ConfigurationError: for a URL of another kind.
        """
        parsed = _parse_url(url)
        self.url = plain_url(url)
        self._engine = create_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "pals-grid",
                # date_trunc and the text of times depend on the session's zone.
                "options": f"{_TIMEOUTS} {parsed.query.get('options', '')} -c timezone=UTC",
                **KEEPALIVES,
            },
        )
        self._reader = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: commits on success, rolls back on any exception."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read-only transaction in which all queries see the same state."""
        with self._reader.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Ask for an answer.

        Raises:
            sqlalchemy.exc.OperationalError: when there is none.
        """
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()


def plain_url(url: str) -> str:
    """``url`` as libpq and psycopg read it.

    Raises:
        ConfigurationError: for a URL of another kind.
    """
    return _parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def notify(connection: Connection, topic: str, key: int | str) -> None:
    """Tell every listener, when the transaction commits, that ``topic``'s ``key`` changed."""
    connection.execute(
        text("SELECT pg_notify(:channel, :payload)"),
        {"channel": NOTIFY_CHANNEL, "payload": f"{topic}:{key}"},
    )


def lock(connection: Connection, topic: str, key: int | str) -> None:
    """Wait until no other transaction holds the lock of this name; held to the end of this one."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": f"pals_grid.{topic}:{key}"},
    )


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("database URL: must be a postgresql:// URL") from error
    if parsed.drivername not in {"postgresql", "postgresql+psycopg", "postgres"}:
        raise ConfigurationError(
            f"database URL: must begin with postgresql://, got {parsed.drivername}://"
        )
    return parsed.set(drivername="postgresql+psycopg")
