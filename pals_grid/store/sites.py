"""Sites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pals_grid.core.errors import Conflict, NotFound
from pals_grid.core.site import LiveGrants, Site, SitePolicy
from pals_grid.store.engine import lock
from pals_grid.store.tables import site

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection, Row


class SiteRepository:
    """Sites over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, site_id: int) -> None:
        """Hold the site until the transaction ends: plans and new values come one at a time."""
        lock(self._connection, "site", site_id)

    def insert(self, policy: SitePolicy, created_at: datetime) -> Site:
        """Store a new site.

        Raises:
            Conflict: when the slug is taken.
        """
        row = {
            "slug": policy.slug,
            "version": 1,
            "policy": msgspec.to_builtins(policy),
            "created_at": created_at,
        }
        try:
            with self._connection.begin_nested():
                made = self._connection.execute(insert(site).values(row).returning(site)).one()
        except IntegrityError as error:
            raise Conflict(f"slug: a site {policy.slug!r} exists already") from error
        return _site(made)

    def update(self, slug: str, policy: SitePolicy, expected_version: int | None) -> Site:
        """Replace a site's policy.

        Raises:
            NotFound: no such site.
            Conflict: when its version is not ``expected_version``.
        """
        change = update(site).where(site.c.slug == slug)
        if expected_version is not None:
            change = change.where(site.c.version == expected_version)
        values = {"version": site.c.version + 1, "policy": msgspec.to_builtins(policy)}
        row = self._connection.execute(change.values(values).returning(site)).one_or_none()
        if row is None:
            held = self.load(slug)
            raise Conflict(f"version: site {slug!r} is at {held.version}, not {expected_version}")
        return _site(row)

    def load(self, slug: str) -> Site:
        """Return the site of this slug.

        Raises:
            NotFound: no such site.
        """
        row = self._connection.execute(select(site).where(site.c.slug == slug)).one_or_none()
        if row is None:
            raise NotFound("site", slug)
        return _site(row)

    def load_by_id(self, site_id: int) -> Site:
        """Return the site of this id.

        Raises:
            NotFound: no such site.
        """
        row = self._connection.execute(select(site).where(site.c.id == site_id)).one_or_none()
        if row is None:
            raise NotFound("site", site_id)
        return _site(row)

    def load_some(self, site_ids: Collection[int]) -> dict[int, Site]:
        """Return the sites of these ids, by id."""
        query = select(site).where(site.c.id.in_(site_ids))
        return {row.id: _site(row) for row in self._connection.execute(query)}

    def load_live_modes(self, site_ids: Collection[int]) -> dict[int, LiveGrants]:
        """Return whether these sites want live grants, by id."""
        mode = func.coalesce(site.c.policy["live_grants"].astext, LiveGrants.OFF.value)
        query = select(site.c.id, mode.label("mode")).where(site.c.id.in_(site_ids))
        return {row.id: LiveGrants(row.mode) for row in self._connection.execute(query)}

    def list_after(self, slug: str | None, limit: int | None) -> list[Site]:
        """Up to ``limit`` sites (None: all) by slug, those after ``slug``."""
        query = select(site).order_by(site.c.slug).limit(limit)
        if slug is not None:
            query = query.where(site.c.slug > slug)
        return [_site(row) for row in self._connection.execute(query)]


def _site(row: Row[tuple[object, ...]]) -> Site:
    return Site(row.id, row.version, msgspec.convert(row.policy, SitePolicy))
