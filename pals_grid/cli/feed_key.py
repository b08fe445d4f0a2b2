"""A feed as a command names it: by its id or by its name at a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import NotFound

if TYPE_CHECKING:
    from pals_grid.cli.client import ServiceClient


def feed_id_of(client: ServiceClient, site: str | None, key: str) -> int:
    """Return the id: ``key`` itself where it is a number, else that of the feed of this name.

    Raises:
        NotFound: when the site has no feed of this name.
    """
    if key.isascii() and key.isdecimal():
        return int(key)
    for feed in client.get_all("/feeds", site=site):
        if feed["name"] == key:
            return int(feed["id"])
    raise NotFound("feed", key)
