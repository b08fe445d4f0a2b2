"""What routes are given: the context, the site that is meant, the page, the interval, the node."""

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pals_grid.api.base import Instant, read_page
from pals_grid.api.etag import version_from
from pals_grid.core.errors import AccessDenied, InvalidValue
from pals_grid.core.fleet import Node
from pals_grid.core.intervals import Interval
from pals_grid.service import nodes, sites
from pals_grid.service.context import Context
from pals_grid.service.paging import Page
from pals_grid.store.listen import Notifications

PageDep = Annotated[Page, Depends(read_page)]
MAX_INTERVAL = timedelta(days=366)


# What waits for nothing is asynchronous: each other one takes a thread of its own.


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _notifications(request: Request) -> Notifications:
    notifications: Notifications = request.app.state.notifications
    return notifications


ContextDep = Annotated[Context, Depends(_context)]
NotificationsDep = Annotated[Notifications, Depends(_notifications)]


def read_site(
    context: ContextDep,
    site: Annotated[str | None, Query(description="slug; may be left out with one site")] = None,
) -> str:
    """Slug of the site that is meant: the only one, when none is named."""
    if site is not None:
        return site
    found = sites.list_sites(context, Page(limit=2)).items
    if len(found) != 1:
        count = "there is none yet" if not found else "there are several"
        raise InvalidValue("site", None, f"must name a site, because {count}")
    return found[0].policy.slug


SiteDep = Annotated[str, Depends(read_site)]


def bounded(interval: Interval) -> Interval:
    """Return the interval.

    Raises:
        InvalidValue: when it is longer than one question may cover.
    """
    if interval.duration_s > MAX_INTERVAL.total_seconds():
        bound = f"must be at most {MAX_INTERVAL.days} days after start_at"
        raise InvalidValue("end_at", interval.end_at.isoformat(), bound)
    return interval


async def read_interval(
    context: ContextDep,
    start_at: Annotated[Instant | None, Query(description="default: 24 h before end_at")] = None,
    end_at: Annotated[Instant | None, Query(description="default: now")] = None,
) -> Interval:
    """The interval asked for; the last 24 hours when none is."""
    end = end_at or context.clock.now()
    return bounded(Interval(start_at or end - timedelta(days=1), end))


IntervalDep = Annotated[Interval, Depends(read_interval)]


async def read_if_match(if_match: Annotated[str | None, Header()] = None) -> int | None:
    """The version that a change was made against, when the caller says so."""
    return version_from(if_match)


IfMatchDep = Annotated[int | None, Depends(read_if_match)]

_bearer = HTTPBearer(auto_error=False, description="a node's own token, from its registration")


async def read_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """The bearer token.

    Raises:
        AccessDenied: when there is none.
    """
    if credentials is None:
        raise AccessDenied("Authorization: must be 'Bearer <token>'")
    return credentials.credentials


TokenDep = Annotated[str, Depends(read_token)]


def read_node(
    context: ContextDep, token: TokenDep, node_id: Annotated[int, Path(ge=1, le=2**62)]
) -> Node:
    """The node whose token came along; it may speak for itself alone."""
    node = nodes.authenticate_node(context, token)
    if node.id != node_id:
        raise HTTPException(403, f"node_id: must be {node.id}, the token's own node, got {node_id}")
    return node


NodeDep = Annotated[Node, Depends(read_node)]


async def read_body(request: Request) -> bytes:
    """The body as it came, for the wire's own decoder; bounded by ``guards.BodyLimit``."""
    return await request.body()


BodyDep = Annotated[bytes, Depends(read_body)]
