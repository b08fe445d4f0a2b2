"""The last live round of each site, and counts since its first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import text

from pals_grid.core.live import RoundRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_SAVE = text("""
    INSERT INTO grant_round (site_id, at, epoch, holder, record, rounds, cuts, raises)
    SELECT site_id, clock_timestamp(), epoch, :holder, CAST(record AS jsonb), 1, cuts, raises
    FROM unnest(
        CAST(:site_ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:records AS text[]),
        CAST(:cuts AS bigint[]), CAST(:raises AS bigint[])
    ) AS made (site_id, epoch, record, cuts, raises)
    ON CONFLICT (site_id) DO UPDATE SET
        at = excluded.at, epoch = excluded.epoch, holder = excluded.holder,
        record = excluded.record, rounds = grant_round.rounds + 1,
        cuts = grant_round.cuts + excluded.cuts, raises = grant_round.raises + excluded.raises
    WHERE grant_round.epoch <= excluded.epoch
""")


@dataclass(frozen=True, slots=True)
class StoredRound:
    """The last round of a site, by the database's clock, and sums since its first."""

    at: datetime
    age_s: float
    epoch: int
    holder: str
    record: RoundRecord
    rounds: int
    cuts: int
    raises: int


class GrantRoundRepository:
    """Rounds over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, holder: str, rounds: Sequence[tuple[int, int, RoundRecord]]) -> None:
        """Store (site, epoch, record) as the sites' last rounds and count them."""
        if not rounds:
            return
        values = {
            "holder": holder,
            "site_ids": [site_id for site_id, _, _ in rounds],
            "epochs": [epoch for _, epoch, _ in rounds],
            "records": [msgspec.json.encode(record).decode() for _, _, record in rounds],
            "cuts": [record.cuts for _, _, record in rounds],
            "raises": [record.raises for _, _, record in rounds],
        }
        self._connection.execute(_SAVE, values)

    def load(self, site_id: int) -> StoredRound | None:
        """Return the last round of a site; None before its first."""
        query = text("""
            SELECT at, extract(epoch FROM clock_timestamp() - at)::float8 AS age_s, epoch, holder,
                   record, rounds, cuts, raises
            FROM grant_round WHERE site_id = :site_id
        """)
        row = self._connection.execute(query, {"site_id": site_id}).one_or_none()
        if row is None:
            return None
        record = msgspec.convert(row.record, RoundRecord)
        return StoredRound(
            row.at, row.age_s, row.epoch, row.holder, record, row.rounds, row.cuts, row.raises
        )
