"""Feeds and their health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from pals_grid.core.errors import Conflict, NotFound
from pals_grid.core.fallback import read_fallback, write_fallback
from pals_grid.core.feed import Feed, FeedHealth
from pals_grid.core.series import Quantity
from pals_grid.store.tables import feed, feed_health

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

    from pals_grid.core.fallback import Fallback

_HEALTH = (
    feed_health.c.last_attempt_at,
    feed_health.c.last_success_at,
    feed_health.c.next_attempt_at,
    feed_health.c.last_error,
    feed_health.c.last_error_kind,
    feed_health.c.consecutive_failures,
    feed_health.c.invalid_total,
    feed_health.c.last_new_at,
    feed_health.c.provider_key,
    feed_health.c.credit_left,
    feed_health.c.clock_skew_s,
)
# The attempt that is put off is the claim: of a process that dies another takes over then.
_CLAIM_DUE = text("""
    WITH due AS (
        SELECT feed.id FROM feed LEFT JOIN feed_health AS health ON health.feed_id = feed.id
        WHERE feed.removed_at IS NULL
          AND (health.next_attempt_at IS NULL OR health.next_attempt_at <= :now)
        ORDER BY health.next_attempt_at NULLS FIRST, feed.id
        LIMIT 1 FOR NO KEY UPDATE OF feed SKIP LOCKED
    )
    INSERT INTO feed_health (feed_id, next_attempt_at) SELECT id, :until FROM due
    ON CONFLICT (feed_id) DO UPDATE SET next_attempt_at = excluded.next_attempt_at
    WHERE feed_health.next_attempt_at IS NULL OR feed_health.next_attempt_at <= :now
    RETURNING feed_id
""")
_COUNTS = (feed_health.c.consecutive_failures, feed_health.c.invalid_total)


class FeedRepository:
    """Feeds over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, new: Feed) -> Feed:
        """Store a feed; ``new.id`` is not looked at.

        Raises:
            Conflict: when the site has a feed of this name.
        """
        row = {
            "site_id": new.site_id,
            "name": new.name,
            "connector": new.connector,
            "quantity": new.quantity.value,
            "options": dict(new.options),
            "secret_ref": new.secret_ref,
            "poll_s": new.poll_s,
            "stale_after_s": new.stale_after_s,
            "created_at": new.created_at,
            "fallbacks": [write_fallback(item) for item in new.fallbacks],
        }
        try:
            with self._connection.begin_nested():
                made = self._connection.execute(insert(feed).values(row).returning(feed)).one()
        except IntegrityError as error:
            raise Conflict(f"name: the site has a feed {new.name!r} already") from error
        return _feed(made)

    def set_fallbacks(self, feed_id: int, fallbacks: Sequence[Fallback]) -> None:
        """Replace the chain that stands in for a feed.

        Raises:
            NotFound: no such feed.
        """
        change = update(feed).where(feed.c.id == feed_id, feed.c.removed_at.is_(None))
        values = {"fallbacks": [write_fallback(item) for item in fallbacks]}
        if self._connection.execute(change.values(values)).rowcount == 0:
            raise NotFound("feed", feed_id)

    def remove(self, feed_id: int, at: datetime) -> None:
        """Take a feed out of use; its values stay, since plans refer to them.

        Raises:
            NotFound: no such feed.
        """
        change = update(feed).where(feed.c.id == feed_id, feed.c.removed_at.is_(None))
        if self._connection.execute(change.values(removed_at=at)).rowcount == 0:
            raise NotFound("feed", feed_id)

    def load(self, feed_id: int) -> Feed:
        """Return the feed of this id, if it is in use.

        Raises:
            NotFound: no such feed.
        """
        query = select(feed).where(feed.c.id == feed_id, feed.c.removed_at.is_(None))
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("feed", feed_id)
        return _feed(row)

    def load_with_health(self, feed_id: int) -> tuple[Feed, FeedHealth]:
        """Return the feed of this id, if it is in use, and its health.

        Raises:
            NotFound: no such feed.
        """
        row = self._connection.execute(_with_health().where(feed.c.id == feed_id)).one_or_none()
        if row is None:
            raise NotFound("feed", feed_id)
        return _feed(row), _health(row)

    def list_with_health_after(
        self, site_id: int, feed_id: int | None, limit: int | None
    ) -> list[tuple[Feed, FeedHealth]]:
        """Up to ``limit`` feeds (None: all) in use by id, those after ``feed_id``, with health."""
        query = _with_health().where(feed.c.site_id == site_id).order_by(feed.c.id).limit(limit)
        if feed_id is not None:
            query = query.where(feed.c.id > feed_id)
        return [(_feed(row), _health(row)) for row in self._connection.execute(query)]

    def list_all(self, site_id: int) -> list[Feed]:
        """Every feed in use of a site, by creation."""
        query = select(feed).where(feed.c.site_id == site_id, feed.c.removed_at.is_(None))
        return [_feed(row) for row in self._connection.execute(query.order_by(feed.c.id))]

    def list_with_health(self, site_id: int) -> list[tuple[Feed, FeedHealth]]:
        """Every feed in use of a site, by creation, with its health."""
        return self.list_with_health_after(site_id, None, None)

    def list_by_ids(self, feed_ids: Collection[int]) -> list[Feed]:
        """Feeds by id, removed ones included."""
        query = select(feed).where(feed.c.id.in_(feed_ids)).order_by(feed.c.id)
        return [_feed(row) for row in self._connection.execute(query)]

    def list_due(self, now: datetime) -> list[int]:
        """Ids of the feeds in use whose next attempt is due, the longest waiting first."""
        due = feed_health.c.next_attempt_at
        query = (
            select(feed.c.id)
            .outerjoin(feed_health)
            .where(feed.c.removed_at.is_(None), or_(due.is_(None), due <= now))
            .order_by(due.asc().nulls_first(), feed.c.id)
        )
        return list(self._connection.execute(query).scalars())

    def claim_due(self, now: datetime, until: datetime) -> int | None:
        """Claim the feed that is due for longest; None when none is.

        It is due again at ``until``, unless what comes of the attempt says otherwise. Others who
        look at the same time get other feeds.
        """
        return self._connection.execute(_CLAIM_DUE, {"now": now, "until": until}).scalar()

    def record_health(self, feed_id: int, health: FeedHealth) -> None:
        """Overwrite a feed's health."""
        values = {column.name: getattr(health, column.name) for column in _HEALTH}
        change = postgresql.insert(feed_health).values(feed_id=feed_id, **values)
        self._connection.execute(
            change.on_conflict_do_update(index_elements=["feed_id"], set_=values)
        )


def _with_health() -> Select[tuple[object, ...]]:
    counts = [func.coalesce(column, 0).label(column.name) for column in _COUNTS]
    others = [column for column in _HEALTH if column not in set(_COUNTS)]
    return select(feed, *others, *counts).outerjoin(feed_health).where(feed.c.removed_at.is_(None))


def _health(row: Row[tuple[object, ...]]) -> FeedHealth:
    return FeedHealth(**{column.name: getattr(row, column.name) for column in _HEALTH})


def _feed(row: Row[tuple[object, ...]]) -> Feed:
    return Feed(
        id=row.id,
        site_id=row.site_id,
        name=row.name,
        connector=row.connector,
        quantity=Quantity(row.quantity),
        options=row.options,
        secret_ref=row.secret_ref,
        poll_s=row.poll_s,
        stale_after_s=row.stale_after_s,
        created_at=row.created_at,
        removed_at=row.removed_at,
        fallbacks=tuple(read_fallback(item) for item in row.fallbacks),
    )
