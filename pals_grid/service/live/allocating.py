"""Live rounds of all sites that this replica decides about: leases, a few reads, one write.

All leases are reckoned by the database's clock, which every replica and the table of grants share.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.service.live.fallbacks import may_follow
from pals_grid.service.live.shares import ShareCache
from pals_grid.service.live.site_round import RULES, LiveSite, SiteView
from pals_grid.service.reservations import is_online
from pals_grid.store.grant_rounds import GrantRoundRepository
from pals_grid.store.grants import PowerGrantRepository, load_clock_s
from pals_grid.store.live_sites import LiveSiteRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.site_leases import SiteLeaseRepository
from pals_grid.store.site_meters import SiteMeterRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.allocator.outlook import GrantRules
    from pals_grid.core.live import RoundRecord
    from pals_grid.core.site import LiveGrants, Site
    from pals_grid.service.context import Context
    from pals_grid.store.grants import GrantRow
    from pals_grid.store.live_sites import LiveNode, PlanKey

_log = logging.getLogger(__name__)

CLOCK_S = 0.5
HANDED_OVER_RATIO = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look at all sites came to."""

    sites: int
    nodes: int
    granted: int
    took_s: float


class ClockWatch:
    """Tells when the database's clock was set: it must not run apart from our monotonic one."""

    def __init__(self, within_s: float) -> None:
        self._step_s = RULES.clock_step_s - CLOCK_S
        self._within_s = within_s
        self._seen: deque[tuple[float, float, float]] = deque()

    def is_steady(self, before_s: float, database_s: float, after_s: float) -> bool:
        """Note a reading of the database's clock that was made between two of our own."""
        while self._seen and self._seen[0][0] < before_s - self._within_s:
            self._seen.popleft()
        self._seen.append((before_s, database_s - after_s, database_s - before_s))
        lowest = max(low for _, low, _ in self._seen)
        highest = min(high for _, _, high in self._seen)
        if lowest - highest <= self._step_s:
            return True
        self._seen.clear()
        return False


class LiveAllocator:
    """One replica's part in live grants. Not thread-safe; ``holder`` is this process alone's."""

    def __init__(self, context: Context, holder: str, rules: GrantRules = RULES) -> None:
        self._context = context
        self._holder = holder
        self._rules = rules
        self._sites: dict[int, LiveSite] = {}
        self._cache = ShareCache()
        self._watch = ClockWatch(rules.horizon_s)
        self._has_announced = False
        self._last = Pass(0, 0, 0, 0.0)

    @property
    def sites(self) -> dict[int, LiveSite]:
        """The sites that it holds, as far as it knows."""
        return self._sites

    def round(self) -> Pass:
        """Look at every site once: renew and claim leases, decide, write what is handed out."""
        begun_s = self._context.clock.monotonic_s()
        self._keep_leases()
        views = self._look() if self._sites else {}
        granted = self._decide(views)
        took_s = self._context.clock.monotonic_s() - begun_s
        nodes = sum(len(view.seen) for view in views.values())
        self._last = Pass(len(views), nodes, granted, took_s)
        return self._last

    def _decide(self, views: Mapping[int, SiteView]) -> int:
        """Make the rounds and write what they granted; returns how many grants were written."""
        rows: list[GrantRow] = []
        records: list[tuple[int, int, RoundRecord]] = []
        for site_id, view in views.items():
            site = self._sites[site_id]
            try:
                granted, record = site.round(view)
            except Exception:  # noqa: BLE001 - one site's trouble must not stop the others
                _log.exception("live round of site %s failed", view.site.policy.slug)
                continue
            rows += granted
            records.append((site_id, site.epoch, record))
        if not records:
            return 0
        with self._context.database.begin() as connection:
            GrantRoundRepository(connection).save(self._holder, records)
            return PowerGrantRepository(connection).write(self._holder, rows)

    def stop(self) -> None:
        """Let all sites go, so that another replica may take them at once."""
        self._sites = {}
        with self._context.database.begin() as connection:
            SiteLeaseRepository(connection, self._holder).leave()

    def _keep_leases(self) -> None:
        with self._context.database.begin() as connection:
            leases = SiteLeaseRepository(connection, self._holder)
            last = self._last
            shares = leases.announce(last.sites, last.nodes, last.took_s)
            held = leases.renew()
            lost = [key for key, one in self._sites.items() if held.get(key) != one.epoch]
            self._forget(lost)
            modes = SiteRepository(connection).load_live_modes(held)
            over = [site_id for site_id in held if not self._goes_on(site_id, modes[site_id])]
            leases.release(over)
            PowerGrantRepository(connection).clear(over)
            self._forget(over)
            if not self._has_announced:
                # Replicas that start together see each other before they share.
                self._has_announced = True
                return
            claimed = leases.claim(shares.fair - len(self._sites))
            self._begin(connection, claimed)
            self._hand_over(leases, len(self._sites) - shares.fair)

    def _goes_on(self, site_id: int, mode: LiveGrants) -> bool:
        """Whether there is a book for it, and for what its site wants; else it begins anew."""
        return site_id in self._sites and self._sites[site_id].mode is mode

    def _forget(self, site_ids: Iterable[int]) -> None:
        for site_id in site_ids:
            self._sites.pop(site_id, None)

    def _hand_over(self, leases: SiteLeaseRepository, surplus: int) -> None:
        """Let some of what is more than a fair share go, the newest first; others take it."""
        if surplus <= 0:
            return
        newest = sorted(self._sites, key=lambda site_id: self._sites[site_id].epoch)
        released = newest[-max(1, surplus // HANDED_OVER_RATIO) :]
        leases.release(released)
        self._forget(released)

    def _begin(self, connection: Connection, epochs: Mapping[int, int]) -> None:
        """Make a book for each new epoch. Its time begins when nobody else writes any more."""
        if not epochs:
            return
        _log.info("live grants: %d sites begin", len(epochs))
        database_s = load_clock_s(connection)
        modes = SiteRepository(connection).load_live_modes(epochs)
        for site_id, epoch in epochs.items():
            mode = modes[site_id]
            self._sites[site_id] = LiveSite(site_id, epoch, mode, database_s, self._rules)

    def _look(self) -> dict[int, SiteView]:
        clock = self._context.clock
        with self._context.database.read() as connection:
            before_s = clock.monotonic_s()
            database_s = load_clock_s(connection)
            after_s = clock.monotonic_s()
            is_steady = self._watch.is_steady(before_s, database_s, after_s)
            if is_steady and after_s - before_s <= CLOCK_S:
                return self._views(connection, clock.now(), database_s)
        if not is_steady:
            self._begin_anew()
        return {}  # a look at the clock that takes so long says too little

    def _begin_anew(self) -> None:
        """Start again with new epochs: what was reckoned by the clock is worth nothing now."""
        _log.error("live grants: the database's clock was set; all sites are quiet for a while")
        with self._context.database.begin() as connection:
            epochs = SiteLeaseRepository(connection, self._holder).begin_anew()
            PowerGrantRepository(connection).clear(epochs)
            self._sites = {}
            self._begin(connection, epochs)

    def _views(
        self, connection: Connection, now: datetime, database_s: float
    ) -> dict[int, SiteView]:
        live, site_ids = LiveSiteRepository(connection), list(self._sites)
        sites = SiteRepository(connection).load_some(site_ids)
        seen, plans = live.load_nodes(site_ids), live.load_plans(site_ids)
        readings = SiteMeterRepository(connection).load_latest(site_ids)
        needed = {key: _needed(plans[key], seen[key], now) for key in site_ids}
        wanted = [plan.plan_id for some in needed.values() for plan in some]
        shares = self._cache.load(connection, wanted, now)
        views = {}
        for site_id in site_ids:
            own = {plan.plan_id: shares[plan.plan_id] for plan in needed[site_id]}
            view = SiteView(
                site=sites[site_id],
                seen=seen[site_id],
                plans=needed[site_id],
                shares=own,
                reading=readings.get(site_id),
                now=now,
                database_s=database_s,
            )
            self._know_nodes(connection, view, sites[site_id])
            views[site_id] = view
        return views

    def _know_nodes(self, connection: Connection, view: SiteView, site: Site) -> None:
        held = self._sites[site.id]
        if not held.has_fleet(view.seen):
            held.take_fleet(NodeRepository(connection).list_all(site.id))
        by_id = {one.node_id: one for one in view.seen}
        silent = [
            node for node in held.nodes if not is_online(by_id[node.id].last_seen_at, view.now)
        ]
        held.silent.load(connection, site, silent, held.nodes, view.now)


def _needed(plans: list[PlanKey], seen: Sequence[LiveNode], now: datetime) -> list[PlanKey]:
    """Plans from the oldest on that an online node may follow; the newest always."""
    first = len(plans) - 1
    for one in seen:
        if is_online(one.last_seen_at, now) and plans:
            following = may_follow(one, plans, now)
            if following is not None:
                first = min(first, following.start)
    return plans[max(0, first) :]
