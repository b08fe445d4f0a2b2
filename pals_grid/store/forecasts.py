"""Forecasters, what they said, and what came."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, text, true, update
from sqlalchemy.dialects import postgresql

from pals_grid.forecast.issued import ForecastValue, Learned
from pals_grid.forecast.scoring import LEAD_EDGES_H, Score
from pals_grid.store.tables import forecast_value, forecast_withdrawal, forecaster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

_RECORD = text("""
    SELECT width_bucket(lead_h, CAST(:edges AS float8[])) AS bucket, count(*) AS judged,
           avg(abs(value - p50)) AS mae, avg(abs(value - rival)) AS rival_mae,
           avg(CAST(value BETWEEN p10 AND p90 AS integer)) AS coverage_ratio
    FROM (SELECT *, CAST(extract(
                        epoch FROM end_at - min(start_at) OVER (PARTITION BY issued_at)
                    ) AS float8) / 3600 - 1e-6 AS lead_h
          FROM forecast_value
          WHERE forecaster_id = :id AND issued_at >= :since_at) AS said
    WHERE value IS NOT NULL AND rival IS NOT NULL
    GROUP BY bucket HAVING width_bucket(min(lead_h), CAST(:edges AS float8[])) > 0
    ORDER BY bucket
""")

_FILL = text("""
    UPDATE forecast_value AS held SET value = new.value
    FROM unnest(CAST(:start_at AS timestamptz[]), CAST(:value AS float8[])) AS new (start_at, value)
    WHERE held.forecaster_id = :id AND held.start_at = new.start_at AND held.value IS NULL
""")

# Of what a later forecast has replaced, an hour's, and every third hour's lead stay for the record;
# and the first step, which leads count from.
_THIN = text("""
    DELETE FROM forecast_value AS held USING (
        SELECT start_at, issued_at, start_at - min(start_at) OVER issue AS after,
               CAST(extract(epoch FROM end_at - min(start_at) OVER issue) AS bigint) AS lead_s
        FROM forecast_value
        WHERE forecaster_id = :id
          AND issued_at BETWEEN CAST(:issued_at AS timestamptz) - interval '3 days' AND :issued_at
        WINDOW issue AS (PARTITION BY issued_at)
    ) AS said
    WHERE held.forecaster_id = :id AND held.issued_at < :issued_at
      AND held.issued_at = said.issued_at AND held.start_at = said.start_at
      AND said.after > interval '0' AND said.lead_s <> 3600 AND said.lead_s % 10800 <> 0
""")


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A feed's forecaster, or, without a feed, the one of a site's load.

    ``learned`` is None where there is no model; ``state`` says in words why, or how it does.
    """

    id: int
    site_id: int
    feed_id: int | None
    trained_at: datetime
    unit: str
    learned: Learned | None
    delay_s: float
    train_s: float
    is_used: bool
    state: str


class ForecastRepository:
    """Over an open connection; never commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, site_id: int, feed_id: int | None) -> Forecaster | None:
        """Return the forecaster of a feed, or, without one, of the site's load."""
        query = select(forecaster).where(
            forecaster.c.site_id == site_id, forecaster.c.feed_id.is_not_distinct_from(feed_id)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _forecaster(row)

    def store(self, new: Forecaster) -> Forecaster:
        """Insert or overwrite; ``new.id`` is not looked at."""
        learned = new.learned
        row = {
            "site_id": new.site_id,
            "feed_id": new.feed_id,
            "trained_at": new.trained_at,
            "history_start_at": _instant(learned.history_start_s) if learned else new.trained_at,
            "step_s": learned.step_s if learned else 0,
            "delay_s": new.delay_s,
            "train_s": new.train_s,
            "unit": new.unit,
            "rival": learned.rival if learned else "",
            "model": learned.model if learned else None,
            "widths": {key: list(pair) for key, pair in learned.widths.items()} if learned else {},
            "hold_out": [asdict(score) for score in learned.hold_out] if learned else [],
            "is_used": new.is_used,
            "state": new.state,
            "told_by": learned.told_by if learned else "",
        }
        change = postgresql.insert(forecaster).values(row)
        done = change.on_conflict_do_update(
            index_elements=["site_id", "feed_id"], set_=row
        ).returning(forecaster)
        return _forecaster(self._connection.execute(done).one())

    def set_state(self, forecaster_id: int, *, is_used: bool, state: str) -> None:
        """Change the verdict alone."""
        change = update(forecaster).where(forecaster.c.id == forecaster_id)
        self._connection.execute(change.values(is_used=is_used, state=state))

    def add_values(
        self, forecaster_id: int, issued_at: datetime, values: Sequence[ForecastValue]
    ) -> None:
        """Store a forecast; of older ones only the leads of the record stay."""
        rows = [
            {
                "forecaster_id": forecaster_id,
                "start_at": _instant(value.start_s),
                "end_at": _instant(value.end_s),
                "issued_at": issued_at,
                "p10": value.p10,
                "p50": value.p50,
                "p90": value.p90,
                "rival": value.rival,
            }
            for value in values
        ]
        if rows:
            change = postgresql.insert(forecast_value).on_conflict_do_nothing()
            self._connection.execute(change, rows)
        self._connection.execute(_THIN, {"id": forecaster_id, "issued_at": issued_at})

    def fill(self, forecaster_id: int, came: Sequence[tuple[int, float]]) -> int:
        """Put what came beside what was said; ``came`` are starts (s) and values. How many rows."""
        arrays = {
            "start_at": [_instant(start_s) for start_s, _ in came],
            "value": [value for _, value in came],
        }
        return self._connection.execute(_FILL, {"id": forecaster_id, **arrays}).rowcount

    def load_record(self, forecaster_id: int, since_at: datetime) -> list[Score]:
        """Score the forecasts issued since, by lead; those without a value or a rival are out."""
        query = {"id": forecaster_id, "since_at": since_at, "edges": list(LEAD_EDGES_H)}
        last = len(LEAD_EDGES_H) - 1
        return [
            Score(
                LEAD_EDGES_H[row.bucket - 1],
                LEAD_EDGES_H[row.bucket],
                row.judged,
                float(row.mae),
                float(row.rival_mae),
                float(row.coverage_ratio),
            )
            for row in self._connection.execute(_RECORD, query)
            if row.bucket <= last
        ]

    def list_states(self, site_id: int) -> dict[int, str]:
        """State in words of each feed's forecaster, by the feed's id."""
        query = select(forecaster.c.feed_id, forecaster.c.state).where(
            forecaster.c.site_id == site_id, forecaster.c.feed_id.is_not(None)
        )
        return {row.feed_id: row.state for row in self._connection.execute(query)}

    def load_latest(
        self, forecaster_id: int, now: datetime, *, issued_after: datetime | None = None
    ) -> tuple[int, list[ForecastValue]]:
        """Return when the latest forecast begins, in s, and its steps that have not ended.

        No steps where it was not issued after ``issued_after``.
        """
        issued = select(forecast_value.c.issued_at).where(
            forecast_value.c.forecaster_id == forecaster_id
        )
        latest = issued.order_by(forecast_value.c.issued_at.desc()).limit(1).scalar_subquery()
        query = (
            select(forecast_value)
            .where(
                forecast_value.c.forecaster_id == forecaster_id,
                forecast_value.c.issued_at == latest,
                true() if issued_after is None else forecast_value.c.issued_at > issued_after,
            )
            .order_by(forecast_value.c.start_at)
        )
        values = [_value(row) for row in self._connection.execute(query)]
        begin_s = values[0].start_s if values else 0
        return begin_s, [value for value in values if value.end_s > now.timestamp()]

    def withdraw(self, feed_id: int, at: datetime) -> None:
        """From ``at`` on nothing holds that the feed's model had said."""
        self._connection.execute(
            insert(forecast_withdrawal).values(feed_id=feed_id, withdrawn_at=at)
        )

    def forget(self, before_at: datetime) -> int:
        """Delete what was issued before; returns how many values."""
        change = delete(forecast_value).where(forecast_value.c.issued_at < before_at)
        return self._connection.execute(change).rowcount


def _forecaster(row: Row[tuple[object, ...]]) -> Forecaster:
    learned = None
    if row.model is not None:
        learned = Learned(
            model=bytes(row.model),
            widths=row.widths,
            rival=row.rival,
            hold_out=[Score(**score) for score in row.hold_out],
            step_s=int(row.step_s),
            history_start_s=int(row.history_start_at.timestamp()),
            told_by=row.told_by,
        )
    return Forecaster(
        id=row.id,
        site_id=row.site_id,
        feed_id=row.feed_id,
        trained_at=row.trained_at,
        unit=row.unit,
        learned=learned,
        delay_s=row.delay_s,
        train_s=row.train_s,
        is_used=row.is_used,
        state=row.state,
    )


def _value(row: Row[tuple[object, ...]]) -> ForecastValue:
    return ForecastValue(
        int(row.start_at.timestamp()),
        int(row.end_at.timestamp()),
        row.p10,
        row.p50,
        row.p90,
        row.rival,
    )


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
