"""What a scenario has to say for itself, and what follows from that alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.formats import plain_table
from pals_grid.evaluate.suite.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Column, Outcome, SuiteOptions, Table
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey


def _takes_all(case: str, strategy: str) -> bool:
    del case, strategy
    return True


def _derives_nothing(results: Results) -> None:
    del results


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question, the runs that answer it, and how to judge them.

    ``tables`` are the profiles that the controllers need, made before the jobs. Each of ``cases``
    runs under every strategy that it ``takes``; ``run`` does one job in a worker process.
    ``derive`` adds metrics that compare runs of the same seed; ``bars`` judges; ``plot`` draws.
    What is printed is the table of ``columns`` under ``table_title``, or ``own_tables`` where
    these say it better. ``is_synthetic`` says that the arrivals are made up, whatever trace was
    given.
    """

    name: str
    title: str
    setting: str
    boundary: str
    strategies: tuple[str, ...]
    columns: tuple[Column, ...]
    tables: Callable[[SuiteOptions], Sequence[TableKey]]
    cases: Callable[[SuiteOptions], Iterable[str]]
    run: Callable[[Job, SuiteOptions], Outcome]
    bars: Callable[[Results], list[Bar]]
    plot: Callable[[Results, Figure], None]
    takes: Callable[[str, str], bool] = _takes_all
    derive: Callable[[Results], None] = _derives_nothing
    table_title: str = ""
    own_tables: Callable[[Results], list[Table]] | None = None
    is_synthetic: bool = False

    def jobs(self, options: SuiteOptions, strategies: Sequence[str]) -> list[Job]:
        """Every case under each of ``strategies`` that it takes, with every seed, from 1 on."""
        return [
            Job(self.name, case, strategy, seed)
            for case in self.cases(options)
            for strategy in strategies
            if self.takes(case, strategy)
            for seed in range(1, options.seeds + 1)
        ]

    def summary(self, results: Results) -> list[Table]:
        """The tables that are printed."""
        if self.own_tables is not None:
            return self.own_tables(results)
        return [plain_table(self.table_title, results, self.columns)]
