"""What all replicas know of a provider: its next free instant, and whether it is held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text

from pals_grid.core.feed import ProviderState
from pals_grid.store.tables import provider

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

# Instants of the pace are of the server's clock, which all replicas share; those that people see
# are of ours. A row that is held back, or busy for longer than we would wait, is left as it is.
_ADMIT = text("""
    INSERT INTO provider AS held (key, next_free_at)
    VALUES (:key, clock_timestamp() + make_interval(secs => :step_s))
    ON CONFLICT (key) DO UPDATE SET
        next_free_at = greatest(held.next_free_at, clock_timestamp())
                       + make_interval(secs => :step_s),
        is_probing = held.probe_at IS NOT NULL,
        probe_at = CASE WHEN held.probe_at IS NOT NULL THEN CAST(:lease_until AS timestamptz) END
    WHERE (held.probe_at IS NULL OR held.probe_at <= :now)
      AND held.next_free_at <= clock_timestamp() + make_interval(secs => :patience_s)
    RETURNING CAST(extract(epoch FROM next_free_at - clock_timestamp()) AS float8) - :step_s
""")

_BUSY = text("""
    SELECT CAST(extract(epoch FROM next_free_at - clock_timestamp()) AS float8)
    FROM provider WHERE key = :key
""")

_SUCCEEDED = text("""
    UPDATE provider SET failures = 0, trips = 0, probe_at = NULL, is_probing = false
    WHERE key = :key AND (failures > 0 OR probe_at IS NOT NULL)
""")

# Held back anew by the failure that fills the count, or by a probe's; the others that were under
# way meanwhile only count.
_FAILED = text("""
    UPDATE provider SET
        failures = failures + 1,
        trips = trips + CAST(opens AS integer),
        probe_at = CASE
            WHEN opens THEN CAST(:now AS timestamptz) + make_interval(
                secs => least(:max_s, :min_s * power(2, least(trips + 1, 20))))
            ELSE probe_at END,
        is_probing = false,
        next_free_at = greatest(next_free_at,
                                clock_timestamp() + make_interval(secs => :wish_s))
    FROM (SELECT is_probing OR (probe_at IS NULL AND failures + 1 >= :limit) AS opens
          FROM provider WHERE key = :key FOR UPDATE) AS looked
    WHERE key = :key
""")


class ProviderRepository:
    """Providers over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def admit(
        self, key: str, now: datetime, lease_until: datetime, step_s: float, patience_s: float
    ) -> float | None:
        """Take the next free instant and return the seconds until then; None where there is none.

        To a provider that is held back one probe is let through when its time has come; unless
        its result is recorded before ``lease_until``, another may follow.
        """
        values = {
            "key": key,
            "now": now,
            "lease_until": lease_until,
            "step_s": step_s,
            "patience_s": patience_s,
        }
        return self._connection.execute(_ADMIT, values).scalar_one_or_none()

    def load_busy_s(self, key: str) -> float:
        """Seconds until the next free instant, 0 or less when it is now."""
        return float(self._connection.execute(_BUSY, {"key": key}).scalar_one_or_none() or 0.0)

    def record_success(self, key: str) -> None:
        """Forget the failures."""
        self._connection.execute(_SUCCEEDED, {"key": key})

    def record_failure(
        self, key: str, now: datetime, limit: int, min_s: float, max_s: float, wish_s: float
    ) -> None:
        """Count a failure; the ``limit``-th in a row, and each failed probe, holds back anew.

        For ``min_s`` doubled with each time, up to ``max_s``. Nobody asks before ``wish_s``.
        """
        values = {"key": key, "now": now, "limit": limit, "min_s": min_s, "max_s": max_s}
        self._connection.execute(_FAILED, {**values, "wish_s": wish_s})

    def load_all(self, keys: Collection[str]) -> Mapping[str, ProviderState]:
        """What is known of the providers of these keys."""
        query = select(provider).where(provider.c.key.in_(keys))
        return {
            row.key: ProviderState(row.key, row.failures, row.probe_at)
            for row in self._connection.execute(query)
        }
