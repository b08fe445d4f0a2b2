"""Runs of jobs: who did which, and what came of it; and which processes live to do them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, text, update

from pals_grid.store.tables import job_run, replica

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

# A run that somebody else may have: it failed a while ago, its process is dead, or nobody finished
# it. Processes are compared by the database's clock alone: theirs may differ.
_FREE = """
    (run.error IS NOT NULL AND run.started_at <= :failed_before)
    OR (run.finished_at IS NULL AND (run.started_at <= :abandoned_before OR EXISTS (
        SELECT FROM replica WHERE replica.name = run.claimed_by
           AND replica.seen_at <= clock_timestamp() - CAST(:patience AS interval))))
"""

_TAKE = f"""
    INSERT INTO job_run AS run (job_id, scheduled_for, claimed_by, started_at) {{source}}
    ON CONFLICT (job_id, scheduled_for) DO UPDATE
    SET claimed_by = excluded.claimed_by, started_at = excluded.started_at,
        finished_at = NULL, error = NULL
    WHERE {_FREE}
    RETURNING job_id, scheduled_for
"""  # noqa: S608 - of constants

_CLAIM = text(_TAKE.format(source="VALUES (:job_id, :scheduled_for, :claimed_by, :started_at)"))

# Sites' slots as ``core.intervals.floor_to`` has them. The site's row is locked for the claim
# alone, so that others pass on to the next one; the earliest end of a slot comes first.
_SLOTS = """
    SELECT site.id AS site_id, :job || ':' || site.id AS job_id, every.s,
           to_timestamp(floor(extract(epoch FROM CAST(:started_at AS timestamptz)) / every.s)
                        * every.s) AS scheduled_for
    FROM site, LATERAL (
        SELECT coalesce(CAST(:every_s AS float8), CAST(site.policy ->> 'slot_s' AS float8)) AS s
    ) AS every
"""

_CLAIM_SITE = text(f"""
    WITH slot AS ({_SLOTS}), due AS (
        SELECT slot.job_id, slot.scheduled_for
        FROM slot JOIN site ON site.id = slot.site_id
        LEFT JOIN job_run AS run
          ON run.job_id = slot.job_id AND run.scheduled_for = slot.scheduled_for
        WHERE run.job_id IS NULL OR {_FREE}
        ORDER BY slot.scheduled_for + slot.s * interval '1 second', hashint8(slot.site_id)
        LIMIT 1 FOR NO KEY UPDATE OF site SKIP LOCKED
    ), taken AS (
        {_TAKE.format(source="SELECT job_id, scheduled_for, :claimed_by, :started_at FROM due")}
    )
    SELECT due.job_id, due.scheduled_for, taken.job_id IS NOT NULL AS is_taken
    FROM due LEFT JOIN taken USING (job_id)
""")  # noqa: S608 - of constants

_PROGRESS = text(f"""
    WITH slot AS ({_SLOTS})
    SELECT count(*) AS sites, count(run.finished_at) FILTER (WHERE run.error IS NULL) AS done,
           coalesce(max(extract(epoch FROM :started_at - slot.scheduled_for))
                    FILTER (WHERE run.finished_at IS NULL OR run.error IS NOT NULL), 0) AS lag_s
    FROM slot LEFT JOIN job_run AS run
      ON run.job_id = slot.job_id AND run.scheduled_for = slot.scheduled_for
""")  # noqa: S608 - of constants

_BEAT = text("""
    INSERT INTO replica (name, started_at, seen_at)
    VALUES (:name, clock_timestamp(), clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at
""")

_SHARES = text("""
    SELECT replica.name, replica.seen_at > clock_timestamp() - CAST(:patience AS interval) AS lives,
           count(run.job_id) AS runs
    FROM replica LEFT JOIN job_run AS run
      ON run.claimed_by = replica.name AND run.started_at > :since
    GROUP BY replica.name, lives ORDER BY replica.name
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who takes which job's run, for which slot of time, from when on."""

    job_id: str
    scheduled_for: datetime
    claimed_by: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Patience:
    """When a run that another one began may be taken over.

    One that failed when it was started up to ``failed_before``; one that was not finished when it
    was started up to ``abandoned_before``, or its process was not seen for ``silence``.
    """

    failed_before: datetime
    abandoned_before: datetime
    silence: timedelta

    @property
    def values(self) -> dict[str, object]:
        """As the statements name them."""
        return {
            "failed_before": self.failed_before,
            "abandoned_before": self.abandoned_before,
            "patience": self.silence,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How a job of every site does: ``done`` in their present slot, and the oldest one's wait."""

    sites: int
    done: int
    lag_s: float


class JobRunRepository:
    """Job runs over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, claim: Claim, patience: Patience) -> bool:
        """Claim a run; False when somebody has it."""
        values = {**asdict(claim), **patience.values}
        return self._connection.execute(_CLAIM, values).one_or_none() is not None

    def claim_site(
        self, job: str, every_s: float | None, claimed_by: str, now: datetime, patience: Patience
    ) -> tuple[int, Claim] | None:
        """Claim ``job`` for the site whose slot ends first; None when no site is due.

        Slots are ``every_s`` long, None: as the site's policy has them. Others who look at the
        same time get other sites.
        """
        values = {
            "job": job,
            "every_s": every_s,
            "claimed_by": claimed_by,
            "started_at": now,
            **patience.values,
        }
        # Another one may have taken the site after this statement saw it: then look for the next.
        while (row := self._connection.execute(_CLAIM_SITE, values).one_or_none()) is not None:
            if row.is_taken:
                break
        else:
            return None
        site_id = int(row.job_id.rpartition(":")[2])
        return site_id, Claim(row.job_id, row.scheduled_for, claimed_by, now)

    def finish(self, claim: Claim, finished_at: datetime, error: str | None) -> bool:
        """Record how a claimed run ended, None for a good end; False when it is another's now."""
        change = update(job_run).where(
            job_run.c.job_id == claim.job_id,
            job_run.c.scheduled_for == claim.scheduled_for,
            job_run.c.claimed_by == claim.claimed_by,
            job_run.c.started_at == claim.started_at,
            job_run.c.finished_at.is_(None),
        )
        change = change.values(finished_at=finished_at, error=error)
        return self._connection.execute(change).rowcount == 1

    def progress(self, job: str, every_s: float | None, now: datetime) -> Progress:
        """How far ``job`` is at all sites, in the slots of ``now``."""
        values = {"job": job, "every_s": every_s, "started_at": now}
        row = self._connection.execute(_PROGRESS, values).one()
        return Progress(row.sites, row.done, float(row.lag_s))

    def prune(self, before_at: datetime) -> int:
        """Delete the runs scheduled before; returns how many."""
        change = delete(job_run).where(job_run.c.scheduled_for < before_at)
        return self._connection.execute(change).rowcount


class ReplicaRepository:
    """Processes that take runs, by the database's clock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def beat(self, name: str) -> None:
        """Say that a process lives."""
        self._connection.execute(_BEAT, {"name": name})

    def leave(self, name: str) -> None:
        """Say that a process takes no more: what it did not finish is free at once."""
        change = update(replica).where(replica.c.name == name)
        long_ago = func.clock_timestamp() - timedelta(days=1)
        self._connection.execute(change.values(seen_at=long_ago))

    def shares(self, since: datetime, silence: timedelta) -> list[tuple[str, bool, int]]:
        """Name, whether it lives, and runs taken since, of each process."""
        values = {"since": since, "patience": silence}
        return [tuple(row) for row in self._connection.execute(_SHARES, values)]

    def forget(self, age: timedelta) -> int:
        """Delete those not seen for so long; returns how many."""
        change = text(
            "DELETE FROM replica WHERE seen_at < clock_timestamp() - CAST(:age AS interval)"
        )
        return self._connection.execute(change, {"age": age}).rowcount
