"""Connections that are held for long and must notice when the other end is gone."""

from __future__ import annotations

import psycopg

from pals_grid.store.engine import CONNECT_TIMEOUT_S, KEEPALIVES, plain_url

Session = psycopg.AsyncConnection[tuple[object, ...]]


async def open_session(url: str, purpose: str) -> Session:
    """Connect with autocommit, and keepalives that tell of an unplugged server.

    Raises:
        psycopg.OperationalError: when the server does not answer.
    """
    return await psycopg.AsyncConnection.connect(
        plain_url(url),
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        application_name=f"pals-grid {purpose}",
        **KEEPALIVES,
    )
