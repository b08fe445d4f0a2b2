"""Alembic's entry: one migration at a time, and none that makes a running service wait long.

Migrations are safe beside the previous release: expand first, contract a release later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Another service that starts at the same time migrates: wait for it.
WAIT_FOR_OTHER = "60s"
# A lock that is not to be had soon would queue every query behind it.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        _set(connection, "lock_timeout", WAIT_FOR_OTHER)
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('pals_grid.migrations'))"))
        _set(connection, "lock_timeout", LOCK_TIMEOUT)
        _set(connection, "statement_timeout", STATEMENT_TIMEOUT)
        context.run_migrations()


def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value}
    )


migrate(context.config.attributes["connection"])
