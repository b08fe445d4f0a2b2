"""Months and policies in processes of their own, with progress; the order changes nothing."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue, NotFound, PalsGridError
from pals_grid.core.intervals import Interval
from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.backtest.config import AFTER, load_site
from pals_grid.evaluate.backtest.month import run_month
from pals_grid.evaluate.backtest.result import Month, SiteResult
from pals_grid.evaluate.backtest.validate import STRATEGIES, check_slots
from pals_grid.evaluate.backtest.world import build_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from pals_grid.evaluate.backtest.config import SiteFile
    from pals_grid.evaluate.backtest.result import MonthRun
    from pals_grid.evaluate.backtest.validate import Check
    from pals_grid.evaluate.backtest.world import World

LONGEST = timedelta(days=3660)
SLOW = (names.PLANNER, names.KNOWN_LOAD, names.FORESIGHT)


class BacktestFailed(PalsGridError):
    """A month ended with an error of ours; made of one text, so that it survives the way back."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to run. ``folder`` is where the series lie; the site file's own where None.

    ``validate_hours`` of each site's first month are served by a simulated node as well.
    """

    sites: tuple[Path, ...]
    start_at: datetime
    end_at: datetime
    policies: tuple[str, ...] = names.POLICIES
    folder: Path | None = None
    processes: int = 1
    validate_hours: int = 0

    def __post_init__(self) -> None:
        interval = Interval(self.start_at, self.end_at)
        if interval.duration_s < 86_400 or interval.duration_s > LONGEST.total_seconds():
            raise InvalidValue("to", self.end_at.isoformat(), "must be 1 to 3660 days after from")
        if (self.start_at - self.start_at.replace(hour=0, minute=0, second=0, microsecond=0)) or (
            self.end_at - self.end_at.replace(hour=0, minute=0, second=0, microsecond=0)
        ):
            raise InvalidValue("from", self.start_at.isoformat(), "from and to must be midnights")
        for name in self.policies:
            if name not in names.ALL:
                raise NotFound("policy", name)


@dataclass(frozen=True, slots=True)
class _Job:
    site: Path
    folder: Path
    month: Interval
    policy: str


def months_of(start_at: datetime, end_at: datetime) -> Iterator[Interval]:
    """UTC months of a stretch of time; the first and the last may be shorter."""
    cursor = start_at
    while cursor < end_at:
        following = (cursor.replace(day=1) + timedelta(days=32)).replace(day=1)
        yield Interval(cursor, min(following, end_at))
        cursor = following


def backtest(request: Request, progress: Callable[[float], None]) -> list[SiteResult]:
    """Run every month of every site under every policy that has its signal.

    The results are the same whatever the number of processes.

    Raises:
        BacktestFailed: for an error of ours, naming site, month and policy.
        InvalidValue: for a site file that cannot be read.
    """
    sites = [load_site(path) for path in request.sites]
    months = list(months_of(request.start_at, request.end_at))
    jobs = [
        _Job(path.resolve(), (request.folder or path.parent).resolve(), month, policy)
        for path, site in zip(request.sites, sites, strict=True)
        for month in months
        for policy in request.policies
        if _has_signal(site, policy)
    ]
    found = dict(zip(jobs, _run_all(jobs, request.processes, progress), strict=True))
    results = []
    for path, site in zip((path.resolve() for path in request.sites), sites, strict=True):
        own = {job: run for job, run in found.items() if job.site == path}
        result = _site_result(site, months, own)
        results.append(replace(result, checks=tuple(_checks(own, request.validate_hours))))
    return results


def _checks(found: dict[_Job, MonthRun], hours: int) -> Iterator[Check]:
    """The first month's first hours on a simulated node, for the policies that have one."""
    for job, run in found.items():
        first = min(other.month for other in found)
        if hours > 0 and job.policy in STRATEGIES and job.month == first:
            world = _world(job.site, job.folder, job.month)
            slots = round(hours * world.grid.per_hour) + 1
            yield check_slots(world, job.policy, run.tokens_per_s[:slots])


def _has_signal(site: SiteFile, policy: str) -> bool:
    if policy == names.PRICE_THRESHOLD:
        return site.price is not None
    return site.carbon is not None if policy == names.CARBON_THRESHOLD else True


def _site_result(
    site: SiteFile, months: Sequence[Interval], found: dict[_Job, MonthRun]
) -> SiteResult:
    policy = site.policy
    priced = site.carbon is not None and policy.carbon_price_per_tonne > 0
    objective = f"{policy.currency}, energy" + (
        f" and carbon at {policy.carbon_price_per_tonne:g} {policy.currency}/t" if priced else ""
    )
    return SiteResult(
        slug=policy.slug,
        name=policy.name,
        currency=policy.currency,
        slot_s=policy.slot_s,
        nodes=tuple(
            f"{item.count} x ({item.gpu_count} x {item.gpu_model}, {item.model})"
            for item in site.nodes
        ),
        signals=_signals(site),
        objective=objective,
        real_time=any(
            series is not None and series.known.rule != "day_ahead"
            for series in (site.price, site.carbon if priced else None)
        ),
        months=tuple(
            Month(month, tuple(run for job, run in found.items() if job.month == month))
            for month in months
        ),
    )


def _signals(site: SiteFile) -> str:
    parts = []
    for name, series in (("price", site.price), ("carbon", site.carbon)):
        if series is None:
            continue
        known = series.known
        rule = {
            "day_ahead": f"known the day before at {known.published_at}",
            AFTER: f"known {known.lag_s:g} s after the interval",
            "column": "known as recorded",
        }[known.rule]
        parts.append(f"{name} {Path(series.path).name}, {rule}")
    if site.price is None:
        currency = site.policy.currency
        parts.insert(0, f"price constant at {site.constant_price_per_mwh:g} {currency}/MWh")
    return "; ".join(parts)


def _run_all(
    jobs: Sequence[_Job], processes: int, progress: Callable[[float], None]
) -> list[MonthRun]:
    if processes == 1:
        runs = []
        for done, job in enumerate(jobs, start=1):
            runs.append(_run(job))
            progress(done / len(jobs))
        return runs
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_leave_interrupts_to_the_parent)
    try:
        slow_first = sorted(range(len(jobs)), key=lambda i: jobs[i].policy not in SLOW)
        running = {pool.submit(_run, jobs[i]): i for i in slow_first}
        found: dict[int, MonthRun] = {}
        for finished in as_completed(running):
            found[running[finished]] = finished.result()
            progress(len(found) / len(jobs))
        return [found[i] for i in range(len(jobs))]
    finally:
        # On Ctrl-C too: what is queued is dropped, what runs ends within a month's run.
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(job: _Job) -> MonthRun:
    try:
        return run_month(_world(job.site, job.folder, job.month), job.policy)
    except PalsGridError as error:
        what = f"{job.site.name}, {job.month.start_at:%Y-%m}, {job.policy}"
        raise BacktestFailed(f"{what}: {error}") from None


@lru_cache(maxsize=2)
def _world(site: Path, folder: Path, month: Interval) -> World:
    return build_world(load_site(site), month, folder)
