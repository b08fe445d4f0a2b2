"""What the pages ask of the service: whole lists, the chosen site, what was in force when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo

from pals_grid.core.errors import NotFound
from pals_grid.core.intervals import Interval
from pals_grid.service.events import list_events
from pals_grid.service.feeds import list_feeds, load_series
from pals_grid.service.nodes import list_nodes
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, load_plan
from pals_grid.service.sites import list_sites, load_site
from pals_grid_dashboards.console.budget_history import in_force
from pals_grid_dashboards.console.local_time import LocalTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.budget import BudgetInterval, Plan
    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.series import Observation
    from pals_grid.core.site import Site
    from pals_grid.service.context import Context
    from pals_grid.service.feeds import FeedView
    from pals_grid.service.nodes import NodeView
    from pals_grid.service.paging import Paged

T = TypeVar("T")

WHOLE_PAGE = 1000
MAX_PAGES = 20
PAST_PLANS = 100


@dataclass(frozen=True, slots=True)
class Scope:
    """The chosen site, the others, its clock. ``site`` is None while there is none at all."""

    sites: tuple[Site, ...]
    site: Site | None
    local: LocalTime


@dataclass(frozen=True, slots=True)
class SiteScope(Scope):
    """A scope that has a site."""

    site: Site


def load_scope(context: Context, slug: str | None) -> Scope:
    """Find the site that was asked for, or the first.

    Raises:
        NotFound: for a slug that no site has.
    """
    now = context.clock.now()
    sites = load_all(lambda page: list_sites(context, page))
    if slug:
        site = load_site(context, slug)
    elif sites:
        site = sites[0]
    else:
        return Scope((), None, LocalTime(ZoneInfo("UTC"), now.astimezone(UTC)))
    return SiteScope(sites, site, LocalTime(ZoneInfo(site.policy.timezone), now))


def load_all(fetch: Callable[[Page], Paged[T]]) -> tuple[T, ...]:
    """Every item of a paged list, up to 20 000."""
    items: list[T] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        part = fetch(Page(WHOLE_PAGE, cursor))
        items += part.items
        cursor = part.next_cursor
        if cursor is None:
            break
    return tuple(items)


def load_nodes(context: Context, slug: str) -> tuple[NodeView, ...]:
    """Every node of a site."""
    return load_all(lambda page: list_nodes(context, slug, page))


def load_feeds(context: Context, slug: str) -> tuple[FeedView, ...]:
    """Every feed of a site."""
    return load_all(lambda page: list_feeds(context, slug, page))


def load_events(context: Context, slug: str) -> tuple[DemandResponseEvent, ...]:
    """Every event of a site."""
    return load_all(lambda page: list_events(context, slug, page))


def load_observations(context: Context, feed_id: int, window: Interval) -> tuple[Observation, ...]:
    """A feed's values as known now."""
    return load_all(lambda page: load_series(context, feed_id, window, None, page))


def load_latest_plan(context: Context, slug: str) -> Plan | None:
    """Load the plan in force, or None before the first."""
    try:
        return load_plan(context, slug, None)
    except NotFound:
        return None


def load_budget(
    context: Context, slug: str, window: Interval, load_version: Callable[[str, int], Plan]
) -> list[BudgetInterval]:
    """Limits in force over ``window``: of its past as they were, of its future as planned now.

    ``load_version`` loads one version of a site's plan, which never changes.
    """
    summaries = list_plans(context, slug, Page(PAST_PLANS)).items
    wanted = sorted(
        (item for item in summaries if item.created_at < window.end_at),
        key=lambda item: item.version,
        reverse=True,
    )
    versions: list[int] = []
    for item in wanted:
        versions.append(item.version)
        if item.created_at <= window.start_at:
            break
    plans = [load_version(slug, version) for version in reversed(versions)]
    return in_force(plans, window)


def around(local: LocalTime, before_h: float, after_h: float) -> Interval:
    """Return the interval around now."""
    return Interval(local.now - timedelta(hours=before_h), local.now + timedelta(hours=after_h))
