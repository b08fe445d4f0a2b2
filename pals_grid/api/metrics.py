"""Prometheus metrics, asked of the service at each scrape: base units, origins as labels."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pals_grid.core.errors import NotFound
from pals_grid.core.events import EventStatus
from pals_grid.core.feed import BreakerState
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.series import Quantity
from pals_grid.core.substitution import substitute_ratio
from pals_grid.core.units import J_PER_KWH
from pals_grid.service import events, feeds, nodes, plans, reports, runs, sites
from pals_grid.service.live.views import load_live, load_live_replicas
from pals_grid.service.paging import Page
from pals_grid.service.plans import PLAN_JOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from prometheus_client import Metric

    from pals_grid.core.budget import Plan
    from pals_grid.service.context import Context
    from pals_grid.service.feeds import FeedView
    from pals_grid.service.nodes import NodeView
    from pals_grid.service.paging import Paged
    from pals_grid.service.reports import EnergyReportRow
    from pals_grid.store.grant_rounds import StoredRound

T = TypeVar("T")

_BY = frozenset({"node", "model"})
_FOLD_AFTER = timedelta(hours=48)
_FOLD = timedelta(hours=24)
Sums = dict[tuple[str, ...], float]


def _every(load: Callable[[Page], Paged[T]]) -> Iterator[T]:
    """All items of a list, page after page."""
    page = Page(limit=1000)
    while True:
        found = load(page)
        yield from found.items
        if found.next_cursor is None:
            return
        page = Page(1000, found.next_cursor)


class EnergyCounters:
    """Energy and tokens since the process started, as counters must count.

    The sums since ``_open_at`` are asked for at each scrape, so that rows which a node delivers
    late are counted too; what is older than a day or two is folded into a base that no longer
    changes, so that the question stays small.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open_at = floor_to(context.clock.now(), timedelta(minutes=1))
        self._base: tuple[Sums, Sums] = (defaultdict(float), defaultdict(float))
        self._lock = threading.Lock()

    def sums(self, slugs: list[str]) -> tuple[Sums, Sums]:
        """Joules by (site, node, model, boundary, origin), tokens by (site, node, model, way)."""
        with self._lock:
            now = self._context.clock.now()
            while now - self._open_at > _FOLD_AFTER:
                self._add(slugs, Interval(self._open_at, self._open_at + _FOLD), self._base)
                self._open_at += _FOLD
            joules, tokens = (defaultdict(float, base) for base in self._base)
            if now > self._open_at:
                self._add(slugs, Interval(self._open_at, now), (joules, tokens))
            return joules, tokens

    def _add(self, slugs: list[str], interval: Interval, into: tuple[Sums, Sums]) -> None:
        joules, tokens = into
        for slug in slugs:
            for row in reports.energy_report(self._context, slug, interval, _BY).rows:
                who = _who(slug, row)
                origin = "+".join(sorted(row.origins))
                joules[*who, "gpu", origin] += row.gpu_energy_kwh * J_PER_KWH
                joules[*who, "node", origin] += row.node_energy_kwh * J_PER_KWH
                tokens[*who, "in"] += row.tokens_in
                tokens[*who, "out"] += row.tokens_out


def _who(slug: str, row: EnergyReportRow) -> tuple[str, str, str]:
    return slug, row.node or "", row.model or ""


class _Gauges:
    """Gauges made on first use, so that each is declared beside what fills it."""

    def __init__(self) -> None:
        self._families: dict[str, GaugeMetricFamily] = {}

    def add(self, name: str, help_text: str, value: float, **labels: str) -> None:
        if name not in self._families:
            self._families[name] = GaugeMetricFamily(name, help_text, labels=list(labels))
        self._families[name].add_metric(list(labels.values()), value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class ServiceCollector(Collector):
    """What the service knows, at the moment of the scrape."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counters = EnergyCounters(context)

    def collect(self) -> Iterable[Metric]:
        """All families."""
        now = self._context.clock.now()
        found = _every(lambda page: sites.list_sites(self._context, page))
        slugs = [site.policy.slug for site in found]
        gauges = _Gauges()
        for slug in slugs:
            self._add_nodes(gauges, slug)
            self._add_feeds(gauges, slug)
            self._add_plan(gauges, slug, now)
            self._add_events(gauges, slug, now)
            self._add_efficiency(gauges, slug, now)
            last = load_live(self._context, slug).last
            if last is not None:
                _add_live(gauges, slug, last)
        self._add_jobs(gauges)
        self._add_replicas(gauges)
        return [*self._counted(slugs), *gauges]

    def _add_replicas(self, gauges: _Gauges) -> None:
        for one in load_live_replicas(self._context):
            help_text = "Sites whose live grants the replica decides about"
            gauges.add("pals_grid_live_sites", help_text, one.sites, replica=one.name)
            help_text = "How long its last pass over them took"
            gauges.add("pals_grid_live_round_seconds", help_text, one.round_s, replica=one.name)

    def _counted(self, slugs: list[str]) -> tuple[Metric, Metric]:
        joules, tokens = self._counters.sums(slugs)
        energy = CounterMetricFamily(
            "pals_grid_energy_joules",
            "Energy since this process started, at the boundary of the GPUs or of the whole node",
            labels=["site", "node", "model", "boundary", "origin"],
        )
        for labels, value in joules.items():
            energy.add_metric(list(labels), value)
        passed = CounterMetricFamily(
            "pals_grid_tokens",
            "Tokens since this process started, into and out of the models",
            labels=["site", "node", "model", "direction"],
        )
        for labels, value in tokens.items():
            passed.add_metric(list(labels), value)
        return energy, passed

    def _add_jobs(self, gauges: _Gauges) -> None:
        progress = runs.load_progress(self._context, PLAN_JOB)
        help_text = "Sites"
        gauges.add("pals_grid_sites", help_text, progress.sites)
        help_text = "Sites that have the plan of their present slot"
        gauges.add("pals_grid_sites_planned", help_text, progress.done)
        help_text = "How long the site that waits longest has waited for the plan of its slot"
        gauges.add("pals_grid_plan_lag_seconds", help_text, progress.lag_s)
        for name, lives, taken in runs.load_replicas(self._context):
            help_text = "Whether this process of the service takes jobs"
            gauges.add("pals_grid_replica_up", help_text, lives, replica=name)
            help_text = "Runs of jobs that it took over the last hour"
            gauges.add("pals_grid_replica_runs", help_text, taken, replica=name)

    def _add_nodes(self, gauges: _Gauges, slug: str) -> None:
        for view in _every(lambda page: nodes.list_nodes(self._context, slug, page)):
            _add_node(gauges, slug, view)

    def _add_feeds(self, gauges: _Gauges, slug: str) -> None:
        for view in _every(lambda page: feeds.list_feeds(self._context, slug, page)):
            _add_feed(gauges, slug, view)

    def _add_plan(self, gauges: _Gauges, slug: str, now: datetime) -> None:
        try:
            plan = plans.load_plan(self._context, slug)
        except NotFound:
            return
        _add_plan(gauges, slug, plan, now)

    def _add_events(self, gauges: _Gauges, slug: str, now: datetime) -> None:
        active = sum(
            event.status is EventStatus.SCHEDULED and event.order.event_interval.contains(now)
            for event in _every(lambda page: events.list_events(self._context, slug, page))
        )
        help_text = "Demand-response events in force now"
        gauges.add("pals_grid_event_active", help_text, active, site=slug)

    def _add_efficiency(self, gauges: _Gauges, slug: str, now: datetime) -> None:
        interval = Interval(now - timedelta(hours=1), now)
        for row in reports.energy_report(self._context, slug, interval, _BY).rows:
            both = {"gpu": row.gpu_energy_j_per_token, "node": row.node_energy_j_per_token}
            for boundary, value in both.items():
                if value is not None:
                    gauges.add(
                        "pals_grid_energy_joules_per_token",
                        "Energy per output token over the last hour",
                        value,
                        site=slug,
                        node=row.node or "",
                        model=row.model or "",
                        boundary=boundary,
                        origin="+".join(sorted(row.origins)),
                    )


def _add_node(gauges: _Gauges, slug: str, view: NodeView) -> None:
    who = {"site": slug, "node": view.node.name}
    help_text = "Whether the node gave a sign of life in the last 15 s"
    gauges.add("pals_grid_node_online", help_text, view.online, **who)
    if view.status is None or not view.online:
        return
    status = view.status
    gauges.add(
        "pals_grid_node_power_watts",
        "Power of the whole node",
        status.node_power_w,
        **who,
        origin=status.node_power_origin,
        source=status.node_power_source,
    )
    help_text = "Power that the node may draw now"
    gauges.add("pals_grid_node_power_envelope_watts", help_text, status.power_envelope_w, **who)
    for gpu in status.gpus:
        labels = {**who, "gpu": gpu.gpu_uuid, "origin": str(view.node.origin)}
        help_text = "Power that the GPU draws"
        gauges.add("pals_grid_gpu_power_watts", help_text, gpu.power_draw_w, **labels)
        help_text = "Power limit set on the GPU"
        gauges.add("pals_grid_gpu_power_limit_watts", help_text, gpu.power_limit_w, **labels)
        for reason in gpu.clock_reasons or ():
            help_text = "1 while this holds the GPU's clock below its highest"
            gauges.add(
                "pals_grid_gpu_clock_reason", help_text, 1, **who, gpu=gpu.gpu_uuid, reason=reason
            )


def _add_live(gauges: _Gauges, slug: str, last: StoredRound) -> None:
    made = last.record
    others = {"origin": made.other_load.origin.value, "source": made.other_load.source}
    found: list[tuple[str, str, float]] = [
        ("round_age_seconds", "Time since the last live round", last.age_s),
        (
            "epoch",
            "Epoch of the site's live grants; it rises when another replica goes on",
            last.epoch,
        ),
        ("rounds", "Live rounds since the first", last.rounds),
        ("cuts", "Grants made that lower a node, or prolong one inside its schedule", last.cuts),
        ("raises", "Grants made that raise a node", last.raises),
        ("quiet_seconds", "How long nothing is granted yet after a takeover", made.quiet_for_s),
        ("allowed_watts", "What all nodes may be allowed, whatever was lost", made.allowed_w),
        ("lent_watts", "What grants give nodes above their schedules", made.lent_w),
        ("excess_watts", "What nodes may be allowed above the budget", made.excess_w),
        ("liars", "Nodes that draw more than they can have been granted", len(made.liars)),
        ("nodes_behind", "Nodes that have not acknowledged the newest plan", made.behind),
    ]
    for name, help_text, value in found:
        gauges.add(f"pals_grid_live_{name}", help_text, value, site=slug)
    help_text = "Power kept free for what the site draws beside its nodes"
    power_w = made.other_load.power_w
    gauges.add("pals_grid_live_other_load_watts", help_text, power_w, site=slug, **others)


def _add_feed(gauges: _Gauges, slug: str, view: FeedView) -> None:
    which = {"site": slug, "feed": view.feed.name, "connector": view.feed.connector}
    works = view.health.last_success_at is not None and view.health.consecutive_failures == 0
    gauges.add("pals_grid_feed_up", "Whether the feed's last fetch succeeded", works, **which)
    if view.age_s is not None:
        help_text = "Time since the feed's last good answer"
        gauges.add("pals_grid_feed_age_seconds", help_text, view.age_s, **which)
    help_text = "Share of the next 24 h that has a value"
    gauges.add("pals_grid_feed_coverage_ratio", help_text, view.coverage_24h_ratio, **which)
    help_text = "Share of the next 48 h that has a value"
    gauges.add("pals_grid_feed_coverage_48h_ratio", help_text, view.coverage_48h_ratio, **which)
    help_text = "Whether the feed had no good answer for longer than its stale_after_s"
    gauges.add("pals_grid_feed_stale", help_text, view.stale, **which)
    help_text = "Whether the provider's new values are later than its rhythm lets expect"
    gauges.add("pals_grid_feed_late", help_text, view.late, **which)
    help_text = "Fetches of the feed that failed in a row"
    failures = view.health.consecutive_failures
    gauges.add("pals_grid_feed_failures", help_text, failures, **which)
    if view.health.credit_left is not None:
        help_text = "Requests that the provider says are left"
        gauges.add("pals_grid_feed_credit_left", help_text, view.health.credit_left, **which)
    if view.health.clock_skew_s is not None:
        help_text = "How far the provider's clock was ahead of ours"
        gauges.add(
            "pals_grid_feed_clock_skew_seconds", help_text, view.health.clock_skew_s, **which
        )
    if view.provider is not None:
        help_text = "Whether the provider is not asked for now, after failures in a row"
        is_held_back = view.provider.breaker is BreakerState.OPEN
        gauges.add("pals_grid_feed_held_back", help_text, is_held_back, **which)


def _add_plan(gauges: _Gauges, slug: str, plan: Plan, now: datetime) -> None:
    help_text = "Version of the plan in force"
    gauges.add("pals_grid_plan_version", help_text, plan.version, site=slug)
    for quantity in (Quantity.PRICE, Quantity.AVERAGE_INTENSITY):
        ratio = substitute_ratio(plan.budget.intervals, quantity, now)
        if ratio is not None:
            help_text = "Share of the plan from now on whose signal is a substitute"
            labels = {"site": slug, "quantity": quantity.value}
            gauges.add("pals_grid_plan_substitute_ratio", help_text, ratio, **labels)
    for item in plan.budget.intervals:
        if item.interval.contains(now):
            help_text = "Power that the site may draw now"
            gauges.add("pals_grid_power_budget_watts", help_text, item.limit_w, site=slug)
