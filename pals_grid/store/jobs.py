"""Runs of jobs: who did which, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql

from pals_grid.store.tables import job_run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Claim:
    """Who takes which job's run, for which slot of time, from when on."""

    job_id: str
    scheduled_for: datetime
    claimed_by: str
    started_at: datetime


class JobRunRepository:
    """Job runs over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, claim: Claim, failed_before: datetime, abandoned_before: datetime) -> bool:
        """Claim a run; False when somebody has it.

        One that failed may be taken over when it was started up to ``failed_before``, one that
        was never finished up to ``abandoned_before``.
        """
        failed = job_run.c.error.is_not(None) & (job_run.c.started_at <= failed_before)
        abandoned = job_run.c.finished_at.is_(None) & (job_run.c.started_at <= abandoned_before)
        change = (
            postgresql.insert(job_run)
            .values(**asdict(claim))
            .on_conflict_do_update(
                index_elements=["job_id", "scheduled_for"],
                set_={
                    "claimed_by": claim.claimed_by,
                    "started_at": claim.started_at,
                    "finished_at": None,
                    "error": None,
                },
                where=failed | abandoned,
            )
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
