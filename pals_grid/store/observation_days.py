"""A feed's best values by quarter-hours, a row a day: what follows from the observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.dialects import postgresql

from pals_grid.store.tables import observation_day

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy import Connection

QUARTERS = 96

_LOAD = """
    SELECT day, unit, means, covered_s FROM observation_day
    WHERE feed_id = %s AND day BETWEEN %s AND %s ORDER BY day
"""


@dataclass(frozen=True, slots=True)
class ObservationDay:
    """The 96 quarter-hours of one UTC day.

    ``means`` are in ``unit`` (None where the day has no value), ``covered_s`` the seconds of each
    quarter-hour that its mean stands for; None where every mean stands for the whole of it.
    """

    day: date
    unit: str | None
    means: Sequence[float | None]
    covered_s: Sequence[float] | None = None


class ObservationDayRepository:
    """Days over an open connection. A day that is not here has to be made of its observations."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, feed_id: int, first: date, last: date) -> list[ObservationDay]:
        """Return the days held from ``first`` to ``last``, by day."""
        # In the driver's binary form: 35,000 numbers as text take ten times as long to read.
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor(binary=True) as cursor:
            rows = cursor.execute(_LOAD, (feed_id, first, last)).fetchall()
        return [ObservationDay(*row) for row in rows]

    def put(self, feed_id: int, days: Sequence[ObservationDay]) -> None:
        """Store days, in place of those held."""
        if not days:
            return
        change = postgresql.insert(observation_day)
        change = change.on_conflict_do_update(
            index_elements=["feed_id", "day"],
            set_={name: change.excluded[name] for name in ("unit", "means", "covered_s")},
        )
        rows = [
            {
                "feed_id": feed_id,
                "day": item.day,
                "unit": item.unit,
                "means": list(item.means),
                "covered_s": None if item.covered_s is None else list(item.covered_s),
            }
            for item in days
        ]
        self._connection.execute(change, rows)
