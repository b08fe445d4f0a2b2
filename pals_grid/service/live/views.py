"""What users see of live grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.store.grant_rounds import GrantRoundRepository
from pals_grid.store.site_leases import load_replicas
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from pals_grid.core.site import LiveGrants
    from pals_grid.service.context import Context
    from pals_grid.store.grant_rounds import StoredRound
    from pals_grid.store.site_leases import Replica

OVERDUE_S = 20.0


@dataclass(frozen=True, slots=True)
class LiveView:
    """A site's live grants: what its policy says, and its last round if there was one.

    ``running``: the last round is so young that the next one is not overdue.
    """

    mode: LiveGrants
    last: StoredRound | None

    @property
    def running(self) -> bool:
        """Whether rounds are made."""
        return self.last is not None and self.last.age_s < OVERDUE_S


def load_live_replicas(context: Context) -> list[Replica]:
    """Return the replicas that make live rounds, and what their last pass came to."""
    with context.database.read() as connection:
        return load_replicas(connection)


def load_live(context: Context, slug: str) -> LiveView:
    """Return how a site's live grants do.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return LiveView(site.policy.live_grants, GrantRoundRepository(connection).load(site.id))
