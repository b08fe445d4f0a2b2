"""Daily partitions of the raw telemetry: made ahead, dropped by age.

A partition is attached, not created in place: that takes a lock on the table which lets readers
and writers pass.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from pals_grid.store.engine import lock

if TYPE_CHECKING:
    from sqlalchemy import Connection

PARTITIONED = ("engine_row", "gpu_row")
RAW_KEPT_DAYS = 35
"""More than the age at which rows are still accepted: a row sent again must meet the first."""

_DROP_WAIT = "2s"
_NAME = re.compile(r"_(\d{8})$")


def ensure_partitions(connection: Connection, first_day: date, last_day: date) -> int:
    """Make the partitions for the UTC days ``first_day`` to ``last_day``, both included.

    Safe beside others that do the same. Returns how many were made.
    """
    days = [first_day + timedelta(days=k) for k in range((last_day - first_day).days + 1)]
    if not _missing(connection, days):
        return 0
    lock(connection, "partitions", "telemetry")
    missing = _missing(connection, days)  # the holder before us may have made them
    for table, day in missing:
        _attach(connection, table, day)
    return len(missing)


def drop_partitions_before(connection: Connection, day: date) -> int:
    """Drop the partitions of the UTC days before ``day``; returns how many.

    Raises:
        sqlalchemy.exc.OperationalError: when a reader holds one for more than 2 s; try later.
    """
    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": _DROP_WAIT})
    lock(connection, "partitions", "telemetry")
    old = [
        name
        for table in PARTITIONED
        for name, its_day in _partitions(connection, table)
        if its_day < day
    ]
    for name in old:
        connection.execute(text(f"DROP TABLE {name}"))
    return len(old)


def oldest_partition_day(connection: Connection) -> date | None:
    """Return the first UTC day of which raw engine rows are kept; None when there are none."""
    return min((day for _, day in _partitions(connection, "engine_row")), default=None)


def _partitions(connection: Connection, table: str) -> list[tuple[str, date]]:
    query = text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = CAST(:name AS regclass) ORDER BY c.relname"
    )
    names = connection.execute(query, {"name": table}).scalars()
    matches = ((name, _NAME.search(name)) for name in names)
    return [(name, date.fromisoformat(match[1])) for name, match in matches if match]


def _missing(connection: Connection, days: list[date]) -> list[tuple[str, date]]:
    wanted = {_partition_name(table, day): (table, day) for table in PARTITIONED for day in days}
    # Not to_regclass: it may answer from a cache that has not heard of another's commit yet.
    query = text("SELECT relname FROM pg_class WHERE relispartition AND relname = ANY(:names)")
    found = set(connection.execute(query, {"names": sorted(wanted)}).scalars())
    return [its_day for name, its_day in wanted.items() if name not in found]


def _attach(connection: Connection, table: str, day: date) -> None:
    # Names and times are made here from a date: nothing to quote.
    name = _partition_name(table, day)
    start_at = datetime.combine(day, time(), UTC)
    end_at = start_at + timedelta(days=1)
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
    connection.execute(
        text(
            f"ALTER TABLE {table} ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{start_at.isoformat()}') TO ('{end_at.isoformat()}')"
        )
    )


def _partition_name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"
