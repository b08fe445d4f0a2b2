"""Values with two times: when they hold, and when they were known and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind
from pals_grid.store.tables import observation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

MAX_LENGTH = timedelta(days=32)
"""No value holds for longer: the bound lets a query over an interval use the primary key."""
RESOLUTION = timedelta(microseconds=1)

# Adds what differs from the newest value held. A provider that changes a value under an unchanged
# publication time gets our own time for it, since the change was not known before. LATERAL with
# LIMIT has each looked up by the primary key, also where the statistics are older than the feed.
_ADD = text("""
    INSERT INTO observation
        (feed_id, start_at, end_at, known_at, recorded_at, kind, value, unit)
    SELECT :feed_id, new.start_at, new.end_at,
           CASE WHEN (same.value, same.end_at, same.unit) <> (new.value, new.end_at, new.unit)
                THEN greatest(CAST(:recorded_at AS timestamptz),
                              held.known_at + interval '1 microsecond')
                ELSE new.known_at END,
           :recorded_at, new.kind, new.value, new.unit
    FROM unnest(CAST(:start_at AS timestamptz[]), CAST(:end_at AS timestamptz[]),
                CAST(:known_at AS timestamptz[]), CAST(:kind AS text[]),
                CAST(:value AS float8[]), CAST(:unit AS text[]))
         AS new (start_at, end_at, known_at, kind, value, unit)
    LEFT JOIN LATERAL (
        SELECT value, end_at, unit, known_at FROM observation
        WHERE feed_id = :feed_id AND start_at = new.start_at AND kind = new.kind
        ORDER BY known_at DESC LIMIT 1
    ) AS held ON true
    LEFT JOIN LATERAL (
        SELECT value, end_at, unit FROM observation
        WHERE feed_id = :feed_id AND start_at = new.start_at AND kind = new.kind
          AND known_at = new.known_at
        LIMIT 1
    ) AS same ON true
    WHERE (held.value, held.end_at, held.unit) IS DISTINCT FROM (new.value, new.end_at, new.unit)
    ON CONFLICT DO NOTHING
""")

# What was known at :as_of: one row per feed, start and kind, the newest then recorded, without
# what our own model had said before it was withdrawn.
_KNOWN = text("""
    SELECT DISTINCT ON (feed_id, start_at, kind)
           feed_id, start_at, end_at, value, unit, kind, known_at
    FROM observation
    WHERE feed_id = ANY(:feed_ids) AND recorded_at <= :as_of
      AND start_at < :end_at AND end_at > :start_at
      AND start_at > CAST(:after_at AS timestamptz)
      AND NOT (kind = 'modelled' AND EXISTS (
          SELECT FROM forecast_withdrawal AS w
          WHERE w.feed_id = observation.feed_id AND w.withdrawn_at <= :as_of
            AND w.withdrawn_at >= observation.recorded_at))
    ORDER BY feed_id, start_at, kind, known_at DESC, recorded_at DESC
    LIMIT :limit
""")


# What followed from the observations before does so no longer.
_FORGET_DAYS = text("""
    DELETE FROM observation_day
    WHERE feed_id = :feed_id AND day >= CAST(CAST(:start_at AS timestamptz) AS date)
      AND day <= CAST(CAST(:end_at AS timestamptz) - interval '1 microsecond' AS date)
""")

_MEASURED = text("""
    SELECT DISTINCT ON (start_at)
           CAST(extract(epoch FROM start_at) AS float8) AS start_s,
           CAST(extract(epoch FROM end_at) AS float8) AS end_s, value, unit,
           CAST(extract(epoch FROM min(known_at) OVER (PARTITION BY start_at)) AS float8) AS known_s
    FROM observation
    WHERE feed_id = :feed_id AND kind = 'measured' AND recorded_at <= :as_of
      AND start_at >= :start_at AND start_at < :end_at
    ORDER BY start_at, known_at DESC, recorded_at DESC
""")


class ObservationRepository:
    """Observations over an open connection; rows are only ever added."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, feed_id: int, found: Sequence[Observation], recorded_at: datetime) -> int:
        """Store the values that differ from the newest held; all or none. Returns how many.

        Two values are the same when value, end and unit agree, whatever their ``known_at``, so
        that asking a provider again stores nothing.

        Raises:
            InvalidValue: when a value holds for longer than 32 days.
        """
        for item in found:
            if item.end_at - item.start_at > MAX_LENGTH:
                raise InvalidValue("end_at", item.end_at.isoformat(), "at most 32 days after start")
        if not found:
            return 0
        columns = ("start_at", "end_at", "known_at", "kind", "value", "unit")
        arrays = {name: [getattr(item, name) for item in found] for name in columns}
        arrays["kind"] = [item.kind.value for item in found]
        values = {"feed_id": feed_id, "recorded_at": recorded_at, **arrays}
        stored = self._connection.execute(_ADD, values).rowcount
        if stored:
            start_at = min(item.start_at for item in found)
            self.forget_days(feed_id, Interval(start_at, max(item.end_at for item in found)))
        return stored

    def forget_days(self, feed_id: int, interval: Interval) -> None:
        """Drop the days kept that ``interval`` touches: what they said is no longer so."""
        values = {"feed_id": feed_id, "start_at": interval.start_at, "end_at": interval.end_at}
        self._connection.execute(_FORGET_DAYS, values)

    def load_known(
        self,
        feed_ids: Collection[int],
        interval: Interval,
        as_of: datetime,
        *,
        limit: int | None = None,
        after_at: datetime | None = None,
    ) -> dict[int, list[Observation]]:
        """Values touching ``interval`` as recorded up to ``as_of``, by feed.

        Each feed's list is ordered by start and kind and holds the newest value of each.
        ``after_at`` leaves out what starts at it or before.
        """
        values = {
            "feed_ids": list(feed_ids),
            "as_of": as_of,
            "start_at": interval.start_at,
            "end_at": interval.end_at,
            "after_at": after_at or interval.start_at - MAX_LENGTH - RESOLUTION,
            "limit": limit,
        }
        found: dict[int, list[Observation]] = {feed_id: [] for feed_id in feed_ids}
        for row in self._connection.execute(_KNOWN, values):
            found[row.feed_id].append(_observation(row))
        return found

    def load_measured(self, feed_id: int, interval: Interval, as_of: datetime) -> Measured:
        """Every final value that begins in ``interval``, as recorded up to ``as_of``."""
        values = {
            "feed_id": feed_id,
            "as_of": as_of,
            "start_at": interval.start_at,
            "end_at": interval.end_at,
        }
        rows = self._connection.execute(_MEASURED, values).all()
        return Measured(
            starts_s=[row.start_s for row in rows],
            ends_s=[row.end_s for row in rows],
            values=[row.value for row in rows],
            known_s=[row.known_s for row in rows],
            unit=rows[-1].unit if rows else "",
        )

    def load_last_begun(self, feed_id: int, now: datetime) -> Observation | None:
        """Return the provider's value that began most lately before ``now``, however long ago."""
        query = (
            select(observation)
            .where(
                observation.c.feed_id == feed_id,
                observation.c.start_at <= now,
                observation.c.kind != ValueKind.MODELLED.value,
            )
            .order_by(
                observation.c.start_at.desc(),
                (observation.c.kind == ValueKind.MEASURED.value).desc(),
                observation.c.known_at.desc(),
            )
            .limit(1)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _observation(row)


@dataclass(frozen=True, slots=True)
class Measured:
    """Final values as columns, by start, in seconds since the epoch; ``unit`` of the newest.

    ``known_s`` is when a first one was known for the same start.
    """

    starts_s: list[float]
    ends_s: list[float]
    values: list[float]
    known_s: list[float]
    unit: str


def _observation(row: Row[tuple[object, ...]]) -> Observation:
    return Observation(
        row.start_at, row.end_at, row.value, row.unit, ValueKind(row.kind), row.known_at
    )
