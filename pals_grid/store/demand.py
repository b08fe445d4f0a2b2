"""What sites were asked for, added up by five minutes: a plan looks at a week of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select, text

from pals_grid.store.tables import site_demand

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.core.intervals import Interval

DEMAND_BIN = timedelta(minutes=5)

# Of engines that report at the same minute, the one that covers most of it counts as its time.
_ADD_UP = text("""
    INSERT INTO site_demand AS kept (site_id, start_at, tokens_out, requests_arrived,
                                     requests_finished, covered_s)
    SELECT site_id, date_bin('5 minutes', start_at, '1970-01-01 00:00+00'), sum(tokens_out),
           sum(requests_arrived), sum(requests_finished), sum(covered_s)
    FROM (
        SELECT site_id, start_at, sum(tokens_out) AS tokens_out,
               sum(requests_arrived) AS requests_arrived,
               sum(requests_finished) AS requests_finished, max(duration_s) AS covered_s
        FROM (
            SELECT node.site_id, minute.start_at, minute.node_id, minute.engine,
                   sum(tokens_out) AS tokens_out, sum(requests_arrived) AS requests_arrived,
                   sum(requests_finished) AS requests_finished, sum(duration_s) AS duration_s
            FROM engine_minute AS minute JOIN node ON node.id = minute.node_id
            WHERE minute.start_at >= :from_at
            GROUP BY node.site_id, minute.start_at, minute.node_id, minute.engine
        ) AS engine
        GROUP BY site_id, start_at
    ) AS minute
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (site_id, start_at) DO UPDATE
    SET tokens_out = excluded.tokens_out, requests_arrived = excluded.requests_arrived,
        requests_finished = excluded.requests_finished, covered_s = excluded.covered_s
    WHERE (kept.tokens_out, kept.requests_arrived, kept.requests_finished, kept.covered_s)
        IS DISTINCT FROM (excluded.tokens_out, excluded.requests_arrived,
                          excluded.requests_finished, excluded.covered_s)
""")

_KEPT = text("""
    SELECT date_bin(:step, start_at, '1970-01-01 00:00+00') AS start_at, sum(tokens_out),
           sum(requests_arrived), sum(requests_finished), sum(covered_s)
    FROM site_demand
    WHERE site_id = :site_id AND start_at >= :start_at AND start_at < :end_at
    GROUP BY 1 ORDER BY 1
""")


class DemandRepository:
    """Over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_up(self, from_at: datetime) -> None:
        """Make the sums of every site from ``from_at`` on anew; it is a start of five minutes."""
        self._connection.execute(_ADD_UP, {"from_at": from_at})

    def latest_at(self, site_id: int | None = None) -> datetime | None:
        """Start of the last sum, of a site or of all; it may still grow. None without any."""
        query = select(func.max(site_demand.c.start_at))
        if site_id is not None:
            query = query.where(site_demand.c.site_id == site_id)
        return self._connection.execute(query).scalar()

    def load(
        self, site_id: int, interval: Interval, step: timedelta
    ) -> list[tuple[datetime, float, float, float, float]]:
        """Sums over steps on the epoch's grid, whole multiples of five minutes.

        Rows of start, output tokens, requests arrived and finished, seconds covered.
        """
        values = {
            "site_id": site_id,
            "step": step,
            "start_at": interval.start_at,
            "end_at": interval.end_at,
        }
        return [tuple(row) for row in self._connection.execute(_KEPT, values)]

    def forget(self, before_at: datetime) -> int:
        """Delete the sums of before; returns how many."""
        change = delete(site_demand).where(site_demand.c.start_at < before_at)
        return self._connection.execute(change).rowcount
