"""Runs of jobs: who did which, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql

from pals_grid.store.tables import job_run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


class JobRunRepository:
    """Job runs over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(
        self, job_id: str, scheduled_for: datetime, claimed_by: str, started_at: datetime
    ) -> bool:
        """Claim a run; False when somebody has it."""
        change = (
            postgresql.insert(job_run)
            .values(
                job_id=job_id,
                scheduled_for=scheduled_for,
                claimed_by=claimed_by,
                started_at=started_at,
            )
            .on_conflict_do_nothing()
            .returning(job_run.c.job_id)
        )
        return self._connection.execute(change).one_or_none() is not None

    def finish(
        self, job_id: str, scheduled_for: datetime, finished_at: datetime, error: str | None
    ) -> None:
        """Record how a claimed run ended; ``error`` is None for a good end."""
        change = update(job_run).where(
            job_run.c.job_id == job_id, job_run.c.scheduled_for == scheduled_for
        )
        self._connection.execute(change.values(finished_at=finished_at, error=error))

    def prune(self, before_at: datetime) -> int:
        """Delete the runs scheduled before; returns how many."""
        change = delete(job_run).where(job_run.c.scheduled_for < before_at)
        return self._connection.execute(change).rowcount
