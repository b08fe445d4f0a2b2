"""Work that is done once per slot of time, however many processes look for it.

Who takes a run claims it in the database. A process that lives says so every few seconds; what a
dead one has begun is free for the others, and what is finished by one that was given up is not
taken (``end_run``).
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import Conflict
from pals_grid.core.intervals import floor_to
from pals_grid.store.jobs import Claim, JobRunRepository, Patience, ReplicaRepository

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.service.context import Context
    from pals_grid.store.jobs import Progress

KEPT = timedelta(days=2)
RETRY_AFTER = timedelta(minutes=1)
ABANDONED_AFTER = timedelta(minutes=10)
SILENT_AFTER = timedelta(seconds=20)
"""A process that has not said for so long that it lives is dead, or hangs."""

SHARES_OVER = timedelta(hours=1)

_log = logging.getLogger(__name__)


class RunTakenOver(Conflict):
    """The run is another process's by now: what was done for it must not be committed."""


def run_once(
    context: Context, job_id: str, every: timedelta, claimed_by: str, work: Callable[[], object]
) -> bool:
    """Do ``work`` unless somebody has claimed ``job_id`` for this slot of ``every``.

    Returns whether it was claimed here. What ``work`` raises is logged and kept with the run.
    Within the slot a run that failed may be claimed again after a minute; one that nobody
    finished after ten, or as soon as its process is silent for 20 s.
    """
    started_at = context.clock.now()
    claim = Claim(job_id, floor_to(started_at, every), claimed_by, started_at)
    with context.database.begin() as connection:
        if not JobRunRepository(connection).claim(claim, _patience(started_at)):
            return False
    _do(context, claim, work)
    return True


def run_next_site(
    context: Context,
    job: str,
    every: timedelta | None,
    claimed_by: str,
    work: Callable[[int, Claim], object],
) -> bool:
    """Do ``job`` for one site that is due: the one whose slot ends first. False when none is.

    Once in each of the site's slots, or of ``every``; as ``run_once`` otherwise. ``work`` is given
    the site's id and the claim, which it may end in its own transaction.
    """
    now = context.clock.now()
    every_s = None if every is None else every.total_seconds()
    with context.database.begin() as connection:
        runs = JobRunRepository(connection)
        found = runs.claim_site(job, every_s, claimed_by, now, _patience(now))
    if found is None:
        return False
    site_id, claim = found
    _do(context, claim, lambda: work(site_id, claim))
    return True


def end_run(context: Context, connection: Connection, claim: Claim) -> None:
    """Finish a claimed run in the transaction of its work, so that both hold or neither.

    Raises:
        RunTakenOver: when the run was given up and another has it: roll back.
    """
    if not JobRunRepository(connection).finish(claim, context.clock.now(), None):
        raise RunTakenOver(f"run {claim.job_id}: was taken over from {claim.claimed_by}")


def load_progress(context: Context, job: str) -> Progress:
    """How far a job of the sites' slots is."""
    with context.database.read() as connection:
        return JobRunRepository(connection).progress(job, None, context.clock.now())


def load_replicas(context: Context) -> list[tuple[str, bool, int]]:
    """Name, whether it lives, and runs taken over the last hour, of each process."""
    with context.database.read() as connection:
        since = context.clock.now() - SHARES_OVER
        return ReplicaRepository(connection).shares(since, SILENT_AFTER)


def say_alive(context: Context, name: str) -> None:
    """Tell the others that this process lives; every 5 s or so."""
    with context.database.begin() as connection:
        ReplicaRepository(connection).beat(name)


def say_gone(context: Context, name: str) -> None:
    """Tell the others that this process takes nothing any more."""
    with context.database.begin() as connection:
        ReplicaRepository(connection).leave(name)


def prune_runs(context: Context) -> int:
    """Forget runs, and processes, of more than 2 days ago; returns how many runs."""
    with context.database.begin() as connection:
        ReplicaRepository(connection).forget(KEPT)
        return JobRunRepository(connection).prune(context.clock.now() - KEPT)


def _patience(now: datetime) -> Patience:
    return Patience(now - RETRY_AFTER, now - ABANDONED_AFTER, SILENT_AFTER)


def _do(context: Context, claim: Claim, work: Callable[[], object]) -> None:
    error = None
    try:
        work()
    except RunTakenOver as raised:
        _log.warning("%s", raised)
        return
    except Exception as raised:  # noqa: BLE001 - a job's error is kept, a later run goes on
        _log.exception("job %s failed", claim.job_id)
        error = f"{type(raised).__name__}: {raised}"[:2000]
    with context.database.begin() as connection:
        JobRunRepository(connection).finish(claim, context.clock.now(), error)
