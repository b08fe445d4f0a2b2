"""Rows waiting for the service, on disk: nothing lost, nothing delivered twice.

SQLite in WAL mode with ``synchronous=FULL``: with NORMAL a power cut may take back the last
commits, and a sequence number that was already delivered would be given to other rows. At one
commit every 5 s the fsync costs nothing.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.node.files import keep_aside
from pals_grid.wire.messages import EngineRow, GpuRow, TelemetryBatch, decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.rows import Rows

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool_row (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('engine', 'gpu')),
    payload BLOB NOT NULL,
    seq INTEGER
);
CREATE INDEX IF NOT EXISTS spool_row_seq ON spool_row (seq) WHERE seq IS NOT NULL;
CREATE TABLE IF NOT EXISTS spool_state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    spool_id TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    dropped_rows INTEGER NOT NULL
);
"""


class Spool:
    """A queue of rows. At most one batch is sealed: its content stays until it is acknowledged.

    Several threads may use it. Errors of the disk come out as ``sqlite3.Error``.
    """

    def __init__(self, path: Path, *, max_rows: int = 500_000, batch_rows: int = 500) -> None:
        self._lock = threading.Lock()
        self._max_rows = max_rows
        self._batch_rows = batch_rows
        self._db = _open(path)
        state = self._db.execute("SELECT spool_id, dropped_rows FROM spool_state").fetchone()
        self.spool_id: str = state[0]
        self._dropped: int = state[1]
        self._count: int = self._db.execute("SELECT count(*) FROM spool_row").fetchone()[0]

    def __len__(self) -> int:
        return self._count

    @property
    def dropped_rows(self) -> int:
        """Rows given up since the spool was made, because it was full or they were refused."""
        return self._dropped

    def append(self, rows: Rows) -> None:
        """Add rows; on return they are on the disk. A full spool gives up its oldest, counted."""
        payloads = [("engine", encode(row)) for row in rows.engine_rows]
        payloads += [("gpu", encode(row)) for row in rows.gpu_rows]
        with self._lock, self._db:
            self._db.executemany("INSERT INTO spool_row (kind, payload) VALUES (?, ?)", payloads)
            excess = self._count + len(payloads) - self._max_rows
            dropped = self._drop_oldest(excess) if excess > 0 else 0
        self._count += len(payloads) - dropped
        self._dropped += dropped
        if dropped:
            log.warning("the spool is full (%d rows): its oldest %d are lost", len(self), dropped)

    def next_batch(self) -> TelemetryBatch | None:
        """Return the sealed batch, or seal the oldest rows under a new number; None when empty."""
        with self._lock, self._db:
            row = self._db.execute(
                "SELECT min(seq) FROM spool_row WHERE seq IS NOT NULL"
            ).fetchone()
            seq: int | None = row[0]
            if seq is None and self._count > 0:
                seq = self._seal()
            return None if seq is None else self._read(seq)

    def acknowledge(self, seq: int) -> None:
        """Forget batch ``seq``: the service has it."""
        self._delete(seq, dropped=False)

    def refuse(self, seq: int) -> None:
        """Give up batch ``seq``, which the service will never take; its rows count as dropped."""
        self._delete(seq, dropped=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _seal(self) -> int:
        self._db.execute("UPDATE spool_state SET last_seq = last_seq + 1")
        seq: int = self._db.execute("SELECT last_seq FROM spool_state").fetchone()[0]
        self._db.execute(
            "UPDATE spool_row SET seq = ?"
            " WHERE id IN (SELECT id FROM spool_row ORDER BY id LIMIT ?)",
            (seq, self._batch_rows),
        )
        return seq

    def _read(self, seq: int) -> TelemetryBatch:
        """Read a batch; rows that cannot be read would hold up all others and are given up."""
        engine_rows: list[EngineRow] = []
        gpu_rows: list[GpuRow] = []
        for row_id, kind, payload in self._db.execute(
            "SELECT id, kind, payload FROM spool_row WHERE seq = ? ORDER BY id", (seq,)
        ).fetchall():
            try:
                if kind == "engine":
                    engine_rows.append(decode(payload, EngineRow))
                else:
                    gpu_rows.append(decode(payload, GpuRow))
            except InvalidValue as error:
                log.error("a spooled %s row is given up: %s", kind, error)  # noqa: TRY400 - the message says it all
                self._db.execute("DELETE FROM spool_row WHERE id = ?", (row_id,))
                self._count_dropped(1)
                self._count -= 1
                self._dropped += 1
        return TelemetryBatch(
            spool_id=self.spool_id, seq=seq, engine_rows=engine_rows, gpu_rows=gpu_rows
        )

    def _delete(self, seq: int, *, dropped: bool) -> None:
        with self._lock, self._db:
            gone = self._db.execute("DELETE FROM spool_row WHERE seq = ?", (seq,)).rowcount
            if dropped:
                self._count_dropped(gone)
        self._count -= gone
        self._dropped += gone if dropped else 0

    def _drop_oldest(self, excess: int) -> int:
        """Drop ``excess`` rows; a sealed batch goes as a whole, for its content must not change."""
        cursor = self._db.execute("DELETE FROM spool_row WHERE seq IS NOT NULL")
        gone = cursor.rowcount
        if gone < excess:
            gone += self._db.execute(
                "DELETE FROM spool_row WHERE id IN (SELECT id FROM spool_row ORDER BY id LIMIT ?)",
                (excess - gone,),
            ).rowcount
        self._count_dropped(gone)
        return gone

    def _count_dropped(self, rows: int) -> None:
        self._db.execute("UPDATE spool_state SET dropped_rows = dropped_rows + ?", (rows,))


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = keep_aside(path)
        log.error("the spool %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.executescript(_SCHEMA)
            connection.execute(
                "INSERT OR IGNORE INTO spool_state VALUES (1, ?, 0, 0)", (secrets.token_hex(16),)
            )
    except sqlite3.Error:
        connection.close()
        raise
    return connection
