"""Sites and their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity
from pals_grid.service.paging import paged
from pals_grid.service.plans import replan_within
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pals_grid.core.site import Site, SitePolicy
    from pals_grid.service.context import Context
    from pals_grid.service.paging import Page, Paged


def create_site(context: Context, policy: SitePolicy) -> Site:
    """Store a new site; its first plan is made with its first node, feed or event.

    Raises:
        Conflict: when the slug is taken.
    """
    with context.database.begin() as connection:
        return SiteRepository(connection).insert(policy, context.clock.now())


def update_site(
    context: Context, slug: str, policy: SitePolicy, expected_version: int | None
) -> Site:
    """Replace a site's policy and plan anew, in one transaction.

    Raises:
        NotFound: no such site.
        Conflict: when the site is not at ``expected_version``.
        InvalidValue: for another slug, or another currency where price feeds or tariffs are in it.
    """
    if policy.slug != slug:
        raise InvalidValue("slug", policy.slug, f"must stay {slug!r}")
    with context.database.begin() as connection:
        sites = SiteRepository(connection)
        held = sites.load(slug)
        sites.lock(held.id)
        _require_same_currency(connection, held, policy)
        site = sites.update(slug, policy, expected_version)
        replan_within(context, connection, site.id, "site policy changed")
    return site


def load_site(context: Context, slug: str) -> Site:
    """Return a site.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        return SiteRepository(connection).load(slug)


def list_sites(context: Context, page: Page) -> Paged[Site]:
    """Sites by slug."""
    after = page.after(tuple[str])
    with context.database.read() as connection:
        found = SiteRepository(connection).list_after(after[0] if after else None, page.limit + 1)
    return paged(found, page, lambda site: (site.policy.slug,))


def load_every_site(context: Context) -> list[Site]:
    """Every site, for the jobs."""
    with context.database.read() as connection:
        return SiteRepository(connection).list_after(None, None)


def _require_same_currency(connection: Connection, site: Site, policy: SitePolicy) -> None:
    if policy.currency == site.policy.currency:
        return
    feeds = FeedRepository(connection).list_all(site.id)
    holding = [f"the feed {feed.name!r}" for feed in feeds if feed.quantity is Quantity.PRICE]
    # A tariff's amounts are in the site's currency, and no tariff is ever removed.
    tariffs = TariffRepository(connection).list_all(site.id)
    holding += [f"the tariff {item.tariff.name!r}" for item in tariffs]
    if holding:
        bound = f"must stay {site.policy.currency} while the site has {holding[0]}"
        raise InvalidValue("currency", policy.currency, bound)
