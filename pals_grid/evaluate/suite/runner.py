"""Runs the jobs in processes of their own, with progress, and stops cleanly."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from pals_grid.core.errors import PalsGridError
from pals_grid.evaluate.suite.catalog import SCENARIOS
from pals_grid.evaluate.suite.tables import controller_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pals_grid.evaluate.suite.job import Job, Outcome, SuiteOptions
    from pals_grid.evaluate.suite.scenario import Scenario
    from pals_grid.evaluate.suite.tables import TableKey

CHUNK = 4


class JobFailed(PalsGridError):
    """A job ended with an error of ours; the message names both.

    Made of one text, so that it survives the way from process to process.
    """


def run_job(job: Job, options: SuiteOptions) -> Outcome:
    """Do one job; the same job gives the same outcome in whatever process.

    Raises:
        JobFailed: for an error of ours.
    """
    try:
        return SCENARIOS[job.scenario].run(job, options)
    except PalsGridError as error:
        what = f"{job.scenario}, {job.case}, {job.strategy}, seed {job.seed}"
        raise JobFailed(f"{what}: {error}") from None


def run_all(
    scenarios: Sequence[Scenario],
    strategies: Sequence[str],
    options: SuiteOptions,
    processes: int,
    progress: Callable[[float], None],
) -> list[Outcome]:
    """Profile, then run every job; outcomes in the order of the jobs.

    ``strategies`` empty means each scenario's own. ``progress`` is told the share that is done.
    """
    tables = list(dict.fromkeys(key for item in scenarios for key in item.tables(options)))
    jobs = [
        job
        for item in scenarios
        for job in item.jobs(options, [s for s in item.strategies if _wanted(s, strategies)])
    ]
    total = len(tables) + len(jobs)
    if processes == 1:
        for done, key in enumerate(tables, start=1):
            controller_table(key, options.scratch)
            progress(done / total)
        outcomes = []
        for done, job in enumerate(jobs, start=len(tables) + 1):
            outcomes.append(run_job(job, options))
            progress(done / total)
        return outcomes
    return _in_processes(tables, jobs, options, processes, progress)


def _wanted(strategy: str, chosen: Iterable[str]) -> bool:
    chosen = list(chosen)
    return not chosen or strategy in chosen


def _in_processes(
    tables: Sequence[TableKey],
    jobs: Sequence[Job],
    options: SuiteOptions,
    processes: int,
    progress: Callable[[float], None],
) -> list[Outcome]:
    total = len(tables) + len(jobs)
    done = 0
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_leave_interrupts_to_the_parent)
    try:
        waiting = [pool.submit(_profile, key, options) for key in tables]
        for future in as_completed(waiting):
            future.result()
            done += 1
            progress(done / total)
        parts = [jobs[i : i + CHUNK] for i in range(0, len(jobs), CHUNK)]
        running = {pool.submit(_run_part, part, options): i for i, part in enumerate(parts)}
        found: dict[int, list[Outcome]] = {}
        for finished in as_completed(running):
            found[running[finished]] = finished.result()
            done += len(parts[running[finished]])
            progress(done / total)
        return [outcome for i in sorted(found) for outcome in found[i]]
    finally:
        # On Ctrl-C too: what is queued is dropped, what runs ends within seconds.
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _profile(key: TableKey, options: SuiteOptions) -> None:
    try:
        controller_table(key, options.scratch)
    except PalsGridError as error:
        raise JobFailed(f"profile of {key.engine.model}: {error}") from None


def _run_part(jobs: Sequence[Job], options: SuiteOptions) -> list[Outcome]:
    return [run_job(job, options) for job in jobs]
