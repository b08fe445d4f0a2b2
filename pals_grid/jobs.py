"""The jobs of one replica: looks at what is due, which is taken by claims in the database.

Every replica is alike and none leads. Each look takes one piece of work after another, so that a
fast replica does more and none hoards. The work is the service's. APScheduler 3.11 looks, with its
store in memory: a store that processes share fires twice, and what there is to do stands in our own
tables.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import socket
import threading
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from pals_grid.service.feeds import claim_due_feed, fetch_feed
from pals_grid.service.forecasting import NO_PACKAGE, forecast_site, forget_forecasts, is_available
from pals_grid.service.plans import PLAN_JOB, list_newly_offline, prune_plans, replan, replan_run
from pals_grid.service.reservations import ONLINE_FOR_PLANNING
from pals_grid.service.runs import prune_runs, run_next_site, run_once, say_alive, say_gone
from pals_grid.service.telemetry import keep_demand, maintain_partitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.service.context import Context

LOOK_S = 5.0
LOOK_JITTER_RATIO = 0.2
HEARTBEAT_S = 5.0
OFFLINE_LOOK = timedelta(seconds=15)
HOUR = timedelta(hours=1)
DEMAND_EVERY = timedelta(minutes=5)
FETCHES_AT_ONCE = 8
PLANS_AT_ONCE = 2
STOP_WAIT_S = 1.0
PLAN_WAIT_S = 3.0

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Jobs:
    """Fetches due feeds, plans each site on its slots' grid, forecasts, keeps tables tidy.

    ``plans_at_once`` sites are planned at a time: HiGHS works without the interpreter's lock, so
    that two keep more than one core busy and requests still find their turn.
    """

    def __init__(self, context: Context, *, plans_at_once: int = PLANS_AT_ONCE) -> None:
        self._context = context
        # Never twice, also where a container has the same host name and process id each time.
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._plans_at_once = plans_at_once
        self._stopping = threading.Event()
        self._started_s = -math.inf
        self._threads = {"plan": DaemonThreads("jobs-plan"), "default": DaemonThreads("jobs")}
        self._scheduler: BackgroundScheduler | None = None

    def start(self) -> None:
        """Begin to take work; returns at once."""
        self._started_s = self._context.clock.monotonic_s()
        say_alive(self._context, self.name)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={name: _Executor(threads) for name, threads in self._threads.items()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._look_every(HEARTBEAT_S, self._beat)
        for _ in range(self._plans_at_once):
            self._look_every(LOOK_S, self.plan_next, executor="plan")
        self._look_every(OFFLINE_LOOK.total_seconds(), self.replan_newly_offline)
        for _ in range(FETCHES_AT_ONCE):
            self._look_every(LOOK_S, self.fetch_next)
        self._look_every(LOOK_S, self.tidy)
        if is_available():
            self._look_every(LOOK_S, self.forecast_next)
        else:
            _log.warning("forecasts: %s", NO_PACKAGE)
        self._scheduler.start()

    def stop(self) -> None:
        """Take no more; waits up to a second for what is running, then leaves it to the others.

        Up to three for plans: the solver does not bear its process to end beside it.
        """
        if self._stopping.is_set() or self._scheduler is None:
            return
        self._stopping.set()
        self._scheduler.shutdown(wait=False)
        self._threads["plan"].wait(PLAN_WAIT_S)
        self._threads["default"].wait(STOP_WAIT_S)
        try:
            say_gone(self._context, self.name)
        except Exception as error:  # noqa: BLE001 - the database may be gone; they notice anyway
            _log.warning("jobs: could not say that they end: %s", error)

    def plan_next(self) -> bool:
        """Plan the site whose slot ends first and has no plan yet; False when none is due."""
        return run_next_site(
            self._context,
            PLAN_JOB,
            None,
            self.name,
            lambda site_id, claim: replan_run(self._context, site_id, "schedule", claim),
        )

    def replan_newly_offline(self) -> bool:
        """Plan every site that has just lost a node, so that the others get its share."""
        heard_s = self._context.clock.monotonic_s() - self._started_s
        if heard_s < ONLINE_FOR_PLANNING.total_seconds():
            return False  # nodes had no time to be heard: after a pause all seem to be silent
        found = list(list_newly_offline(self._context).items())
        random.shuffle(found)  # replicas begin with different ones
        for site_id, names in found:
            trigger = f"offline: {', '.join(names)}"
            work = partial(replan, self._context, site_id, trigger)
            self._once(f"offline:{site_id}", OFFLINE_LOOK, work)
        return False

    def fetch_next(self) -> bool:
        """Fetch the feed that is due for longest; False when none is."""
        feed_id = claim_due_feed(self._context)
        if feed_id is not None:
            fetch_feed(self._context, feed_id)
        return feed_id is not None

    def forecast_next(self) -> bool:
        """Bring one site's forecasts up to date; False when all are, on one core."""
        return run_next_site(
            self._context,
            "forecast",
            HOUR,
            self.name,
            lambda site_id, _: forecast_site(self._context, site_id),
        )

    def tidy(self) -> bool:
        """Add up what was asked for; each hour make the days ahead, drop what is too old."""
        self._once("demand", DEMAND_EVERY, lambda: keep_demand(self._context))
        self._once("tidy", HOUR, self._tidy)
        return run_next_site(
            self._context,
            "prune",
            HOUR,
            self.name,
            lambda site_id, _: prune_plans(self._context, site_id),
        )

    def _tidy(self) -> None:
        maintain_partitions(self._context)
        forget_forecasts(self._context)
        prune_runs(self._context)

    def _beat(self) -> bool:
        say_alive(self._context, self.name)
        return False

    def _once(self, job_id: str, every: timedelta, work: Callable[[], object]) -> None:
        run_once(self._context, job_id, every, self.name, work)

    def _look_every(
        self, look_s: float, take: Callable[[], bool], executor: str = "default"
    ) -> None:
        assert self._scheduler is not None
        # Replicas that were started together look at different times.
        trigger = IntervalTrigger(seconds=look_s, jitter=LOOK_JITTER_RATIO * look_s, timezone=UTC)
        self._scheduler.add_job(
            self._take_all, trigger, [take], executor=executor, next_run_time=datetime.now(UTC)
        )

    def _take_all(self, take: Callable[[], bool]) -> None:
        """Take piece after piece until there is none."""
        while not self._stopping.is_set() and take():
            pass


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
        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future

    def wait(self, timeout_s: float) -> None:
        """Wait for what is running; nothing waits to be begun."""
        wait_for(tuple(self._running), timeout_s)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave what is running; whoever stops waits with ``wait``."""


class _Executor(BasePoolExecutor):  # type: ignore[misc]
    """APScheduler's executor over given threads."""

    def __init__(self, threads: DaemonThreads) -> None:
        super().__init__(threads)
