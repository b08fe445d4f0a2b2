"""The same service, planner and node code in simulated time, beside the same hours without them."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from pals_grid.core.intervals import Interval, slots
from pals_grid.core.series import Quantity, mean_over
from pals_grid.core.site import SitePolicy
from pals_grid.evaluate.config import ReplayConfig
from pals_grid.evaluate.day import load_day
from pals_grid.evaluate.history import past_registry
from pals_grid.evaluate.presets import CARBON_PRESETS, PRICE_PRESETS, file_options
from pals_grid.evaluate.result import ReplayResult, ReplayRow, ReplayRun, ReplaySlot
from pals_grid.evaluate.scratch import scratch_database
from pals_grid.evaluate.side import TICK_S, ReplaySide
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.feeds import FeedRequest, add_feed, fetch_feed, list_due_feeds, load_series
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, replan
from pals_grid.service.reports import energy_report
from pals_grid.service.sites import create_site
from pals_grid.service.telemetry import load_power_series
from pals_grid.sim.clock import SimClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.series import Observation
    from pals_grid.core.site import Site
    from pals_grid.evaluate.day import ReplayDay
    from pals_grid.service.reports import EnergyReportRow
    from pals_grid.store.engine import Database

__all__ = ["ReplayConfig", "ReplayResult", "replay"]

STATUS_EVERY_S = 30.0
ROWS_EVERY_S = 300.0
POLL_S = 1800.0
SETTLE = timedelta(hours=4)
"""Feeds are read on for so long after the end: carbon of an hour is known only after it."""

LAST_LOOK_S = 0.001
"""The last look is so long before the end, so that what it counts falls inside."""

WITH = "with"
WITHOUT = "without"
FEEDS = {"price": Quantity.PRICE, "carbon": Quantity.AVERAGE_INTENSITY}


def replay(config: ReplayConfig, progress: Callable[[float], None] | None = None) -> ReplayResult:
    """Run the hours of ``config`` twice, side by side, with and without PALS Grid.

    Both runs have the same arrivals and the same plant; the one without keeps the GPUs' highest
    limit and the engine's largest batch. ``progress`` is told the share that is done.

    Raises:
        InvalidValue: for a file that cannot be read, or that has unknown columns.
        ConfigurationError: when no database can be had.
    """
    started_s = _cpu_s()
    with scratch_database(config.database_url) as database:
        stage = _prepare(config, database)
        _run(stage, progress or (lambda _: None))
        result = _collect(stage)
    return replace(result, cpu_s=_cpu_s() - started_s)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Everything that stands when the clock begins to run."""

    config: ReplayConfig
    context: Context
    clock: SimClock
    day: ReplayDay
    sites: Mapping[str, Site]
    feeds: Mapping[str, int]
    sides: Mapping[str, ReplaySide]
    slots: list[ReplaySlot]
    left: dict[str, int]

    @property
    def interval(self) -> Interval:
        hours = timedelta(hours=self.config.hours)
        return Interval(self.config.start_at, self.config.start_at + hours)


def _prepare(config: ReplayConfig, database: Database) -> _Stage:
    clock = SimClock(config.start_at)
    context = Context(
        database=database,
        clock=clock,
        registry=past_registry(config.timezone),
        http=RecordedHttp({}),  # a replay asks no network
        planner=plan_power_budget,
    )
    policy = _policy(config)
    day = load_day(config, policy.slo)
    history = day.history_rows()
    sites: dict[str, Site] = {}
    feeds: dict[str, int] = {}
    sides: dict[str, ReplaySide] = {}
    plants = {name: day.make_hardware(clock, controlled=name == WITH) for name in (WITH, WITHOUT)}
    request = day.register_request(plants[WITH])
    most_w = request.power_max_w
    for name, hardware in plants.items():
        sites[name] = create_site(
            context,
            replace(
                policy,
                slug=name,
                grid_connection_w=most_w,
                safe_limit_w=most_w,
                minimum_w=request.power_min_w,
            ),
        )
        feeds |= {f"{name} {feed}": number for feed, number in _add_feeds(context, config, name)}
        sides[name] = ReplaySide(context, name, hardware, request, policy.slo)
        sides[name].send(history)
    return _Stage(config, context, clock, day, sites, feeds, sides, [], {})


def _policy(config: ReplayConfig) -> SitePolicy:
    return SitePolicy(
        slug=WITH,
        name="Replay",
        grid_connection_w=1.0,
        minimum_w=0.0,
        safe_limit_w=0.0,
        timezone=config.timezone,
        currency=config.currency,
        carbon_price_per_tonne=config.carbon_price_per_tonne,
        deferrable_ratio=config.deferrable_ratio,
        deferral_s=config.deferral_s,
        reserve_ratio=config.reserve_ratio,
    )


def _add_feeds(context: Context, config: ReplayConfig, slug: str) -> list[tuple[str, int]]:
    files = {
        "price": (config.price_path, config.price_mapping, PRICE_PRESETS),
        "carbon": (config.carbon_path, config.carbon_mapping, CARBON_PRESETS),
    }
    made = []
    for name, (path, mapping, presets) in files.items():
        options = file_options(f"{name}_path", path, FEEDS[name], mapping, presets)
        request = FeedRequest(slug, name, "file", options, poll_s=POLL_S)
        made.append((name, add_feed(context, request).id))
    return made


class _Step(Protocol):
    def __call__(self, stage: _Stage) -> None: ...


def _run(stage: _Stage, progress: Callable[[float], None]) -> None:
    """Let the clock run: everything that is due at an instant is done before its tick."""
    ticks = round(stage.interval.duration_s / TICK_S)
    due: list[tuple[int, _Step]] = [
        (round(STATUS_EVERY_S / TICK_S), _show_status),
        (round(ROWS_EVERY_S / TICK_S), _send_rows),
        (round(ROWS_EVERY_S / TICK_S), _fetch),
        (round(stage.sites[WITH].policy.slot_s / TICK_S), _plan),
    ]
    for tick in range(ticks):
        for every, step in due:
            if tick % every == 0:
                step(stage)
        if tick % round(ROWS_EVERY_S / TICK_S) == 0:
            progress(tick / ticks)
        for side in stage.sides.values():
            side.tick()
        stage.clock.advance(TICK_S if tick < ticks - 1 else TICK_S - LAST_LOOK_S)
    for name, side in stage.sides.items():
        side.tick()
        stage.left[name] = side.end()
    end_at = stage.interval.end_at + SETTLE
    while stage.clock.now() < end_at:
        _fetch(stage)
        stage.clock.advance(POLL_S)
    progress(1.0)


def _show_status(stage: _Stage) -> None:
    for side in stage.sides.values():
        side.show_status()


def _send_rows(stage: _Stage) -> None:
    for side in stage.sides.values():
        side.send_rows()


def _fetch(stage: _Stage) -> None:
    for feed_id in list_due_feeds(stage.context):
        fetch_feed(stage.context, feed_id)
    stage.sides[WITH].follow()


def _plan(stage: _Stage) -> None:
    plan = replan(stage.context, stage.sites[WITH].id, "schedule")
    stage.sides[WITH].follow()
    now = plan.budget.intervals[0]
    stage.slots.append(
        ReplaySlot(now.interval.start_at, now.limit_w, now.reason, now.explanation, None, None)
    )


def _collect(stage: _Stage) -> ReplayResult:
    config = stage.config
    return ReplayResult(
        start_at=config.start_at,
        hours=config.hours,
        currency=config.currency,
        seed=config.seed,
        plant=stage.day.plant,
        controlled=_run_of(
            stage, WITH, "With PALS Grid", "plans every slot, limit and batch every 500 ms"
        ),
        uncontrolled=_run_of(
            stage, WITHOUT, "Without", "highest limit and largest batch throughout"
        ),
        slots=_with_signals(stage),
        plans=list_plans(stage.context, WITH, Page(limit=1)).items[0].version,
        cpu_s=0.0,
    )


def _run_of(stage: _Stage, site: str, name: str, description: str) -> ReplayRun:
    report = energy_report(stage.context, site, stage.interval, frozenset({"hour"}))
    power = load_power_series(stage.context, site, stage.interval, ROWS_EVERY_S)
    return ReplayRun(
        name=name,
        description=description,
        hours=tuple(_row(row) for row in report.rows),
        total=_row(report.total),
        requests_left=stage.left[site],
        power_w=tuple((point.start_at, point.node_power_w) for point in power),
    )


def _row(row: EnergyReportRow) -> ReplayRow:
    return ReplayRow(
        start_at=row.start_at,
        node_energy_kwh=row.node_energy_kwh,
        gpu_energy_kwh=row.gpu_energy_kwh,
        idle_energy_kwh=row.idle_energy_kwh,
        cost=row.cost,
        carbon_g=row.carbon_g,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        requests_finished=row.requests_finished,
        ttft_misses=row.ttft_misses,
        itl_misses=row.itl_misses,
    )


def _with_signals(stage: _Stage) -> tuple[ReplaySlot, ...]:
    """Fill in price and carbon as they are known when everything is over."""
    step = timedelta(seconds=stage.sites[WITH].policy.slot_s)
    intervals = list(slots(stage.interval.start_at, stage.interval.end_at, step))
    means: dict[str, list[float | None]] = {}
    for name in FEEDS:
        feed_id = stage.feeds[f"{WITH} {name}"]
        known = _load_all(stage, feed_id)
        means[name] = [mean_over(known, interval) for interval in intervals]
    return tuple(
        replace(slot, price_per_mwh=price, carbon_g_per_kwh=carbon)
        for slot, price, carbon in zip(stage.slots, means["price"], means["carbon"], strict=True)
    )


def _load_all(stage: _Stage, feed_id: int) -> list[Observation]:
    found: list[Observation] = []
    cursor: str | None = None
    while True:
        page = Page(limit=1000, cursor=cursor)
        part = load_series(stage.context, feed_id, stage.interval, None, page)
        found += part.items
        cursor = part.next_cursor
        if cursor is None:
            return found


def _cpu_s() -> float:
    """CPU seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
