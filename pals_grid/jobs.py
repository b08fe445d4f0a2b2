"""Wiring of the jobs: who leads, and when each is looked at. The work is the service's.

APScheduler 3.11 with its store in memory, started only in the process that leads: a store that
processes share fires twice. What there is to do is read from our own tables at every look.
"""

from __future__ import annotations

import math
import os
import socket
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from pals_grid.service.feeds import fetch_feed, list_due_feeds
from pals_grid.service.plans import ONLINE_FOR_PLANNING, list_newly_offline, replan
from pals_grid.service.runs import prune_runs, run_once
from pals_grid.service.sites import load_every_site
from pals_grid.service.telemetry import maintain_partitions
from pals_grid.store.leadership import Leadership

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.service.context import Context

LOOK = timedelta(seconds=15)
HOUR = timedelta(hours=1)
FETCHES_AT_ONCE = 8
STOP_WAIT_S = 1.0

P = ParamSpec("P")
R = TypeVar("R")


class Jobs:
    """Fetches due feeds, plans each site on its slots' grid, keeps partitions and runs tidy.

    Several processes may each have one; the holder of the leader's lock works. Each run is also
    claimed in the database, in case a leader hangs and lives on beside its successor.
    """

    def __init__(self, context: Context, database_url: str) -> None:
        self._context = context
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._threads = DaemonThreads("jobs")
        self._scheduler: BackgroundScheduler | None = None
        self._elected_s = -math.inf
        self._leadership = Leadership(
            database_url, on_elected=self._begin, on_lost=self._end, name="jobs"
        )

    @property
    def is_leader(self) -> bool:
        """Whether the jobs run in this process."""
        return self._leadership.is_leader

    def start(self) -> None:
        """Begin to wait for the lead; returns at once."""
        self._leadership.start()

    def stop(self) -> None:
        """Give up the lead; waits up to a second for what is running, then leaves it."""
        self._leadership.stop()

    def fetch_due(self) -> None:
        """Fetch every feed that is due, some at a time, since most of it is waiting."""
        due = list_due_feeds(self._context)
        errors: list[BaseException] = []
        for first in range(0, len(due), FETCHES_AT_ONCE):
            batch = due[first : first + FETCHES_AT_ONCE]
            running = [self._threads.submit(fetch_feed, self._context, item) for item in batch]
            errors += [error for future in running if (error := future.exception()) is not None]
        if errors:
            raise BaseExceptionGroup("fetches that failed otherwise than by their provider", errors)

    def replan_due(self) -> None:
        """Plan every site whose slot has no planning run yet, or which has just lost a node."""
        for site in load_every_site(self._context):
            every = timedelta(seconds=site.policy.slot_s)
            work = partial(replan, self._context, site.id, "schedule")
            self._once(f"replan:{site.id}", every, work)
        if self._has_listened():
            self._replan_newly_offline()

    def _has_listened(self) -> bool:
        """Whether nodes had time to be heard: after a pause of ours all seem to be silent."""
        heard_s = self._context.clock.monotonic_s() - self._elected_s
        return heard_s >= ONLINE_FOR_PLANNING.total_seconds()

    def _replan_newly_offline(self) -> None:
        """Plan every site that has just lost a node, so that the others get its share."""
        for site_id, names in list_newly_offline(self._context).items():
            work = partial(replan, self._context, site_id, f"offline: {', '.join(names)}")
            self._once(f"offline:{site_id}", LOOK, work)

    def tidy(self) -> None:
        """Make the days ahead, drop what is too old."""
        maintain_partitions(self._context)
        prune_runs(self._context)

    def _begin(self) -> None:
        self._elected_s = self._context.clock.monotonic_s()
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": _Executor(self._threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 60},
        )
        looks = CronTrigger(second="*/15", timezone=UTC)
        hourly = CronTrigger(minute=5, timezone=UTC)
        jobs: list[tuple[Callable[[], object], CronTrigger]] = [
            (lambda: self._once("tidy", HOUR, self.tidy), hourly),
            (lambda: self._once("fetch", LOOK, self.fetch_due), looks),
            (self.replan_due, looks),
        ]
        for work, trigger in jobs:
            scheduler.add_job(work, trigger, next_run_time=datetime.now(UTC))
        scheduler.start()
        self._scheduler = scheduler

    def _end(self) -> None:
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)
            self._scheduler = None

    def _once(self, job_id: str, every: timedelta, work: Callable[[], object]) -> None:
        run_once(self._context, job_id, every, self._name, work)


class DaemonThreads(Executor):
    """A thread per call that does not hold up the end of the process.

    The standard pool's threads are joined at exit, and a provider may take a minute to answer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call ``fn`` in a new thread."""
        future: Future[R] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the future carries it
                future.set_exception(error)

        self._running.add(future)
        future.add_done_callback(self._running.discard)
        Thread(target=run, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait up to a second for what is running; nothing waits to be begun."""
        del cancel_futures
        if wait:
            wait_for(tuple(self._running), STOP_WAIT_S)


class _Executor(BasePoolExecutor):  # type: ignore[misc]
    """APScheduler's executor over given threads."""

    def __init__(self, threads: DaemonThreads) -> None:
        super().__init__(threads)
