"""Work that is done once per slot of time, however many processes look for it."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import floor_to
from pals_grid.store.jobs import Claim, JobRunRepository

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.service.context import Context

KEPT = timedelta(days=2)
RETRY_AFTER = timedelta(minutes=1)
ABANDONED_AFTER = timedelta(minutes=10)

_log = logging.getLogger(__name__)


def run_once(
    context: Context, job_id: str, every: timedelta, claimed_by: str, work: Callable[[], object]
) -> bool:
    """Do ``work`` unless somebody has claimed ``job_id`` for this slot of ``every``.

    Returns whether it was claimed here. What ``work`` raises is logged and kept with the run.
    Within the slot a run that failed may be claimed again after a minute, and one that nobody
    finished (its process died, or the database went away) after ten.
    """
    started_at = context.clock.now()
    scheduled_for = floor_to(started_at, every)
    with context.database.begin() as connection:
        runs = JobRunRepository(connection)
        claim = Claim(job_id, scheduled_for, claimed_by, started_at)
        if not runs.claim(claim, started_at - RETRY_AFTER, started_at - ABANDONED_AFTER):
            return False
    error = None
    try:
        work()
    except Exception as raised:  # noqa: BLE001 - a job's error is kept, a later run goes on
        _log.exception("job %s failed", job_id)
        error = f"{type(raised).__name__}: {raised}"[:2000]
    with context.database.begin() as connection:
        runs = JobRunRepository(connection)
        runs.finish(job_id, scheduled_for, context.clock.now(), error)
    return True


def prune_runs(context: Context) -> int:
    """Forget runs of more than 2 days ago; returns how many."""
    with context.database.begin() as connection:
        return JobRunRepository(connection).prune(context.clock.now() - KEPT)
