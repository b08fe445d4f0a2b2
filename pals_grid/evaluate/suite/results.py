"""The outcomes of one scenario, and how bars are judged by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.job import Bar
from pals_grid.evaluate.suite.statistics import mean_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pals_grid.evaluate.suite.job import Outcome
    from pals_grid.evaluate.suite.scenario import Scenario
    from pals_grid.evaluate.suite.statistics import Mean

FORMAT = 1


class Results:
    """Outcomes by case and strategy, seeds in order."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._found: dict[tuple[str, str], dict[int, Outcome]] = {}
        for outcome in outcomes:
            job = outcome.job
            self._found.setdefault((job.case, job.strategy), {})[job.seed] = outcome

    @property
    def cases(self) -> list[str]:
        """Cases in the order of the jobs."""
        return list(dict.fromkeys(case for case, _ in self._found))

    def strategies(self, case: str | None = None) -> list[str]:
        """Strategies of a case, or of any."""
        return list(dict.fromkeys(s for c, s in self._found if case is None or c == case))

    def outcomes(self, case: str, strategy: str) -> list[Outcome]:
        """Outcomes by rising seed; empty where the strategy did not run."""
        found = self._found.get((case, strategy), {})
        return [found[seed] for seed in sorted(found)]

    def values(self, case: str, strategy: str, metric: str) -> dict[int, float]:
        """A metric by seed, seeds without it left out."""
        found: dict[int, float] = {}
        for outcome in self.outcomes(case, strategy):
            value = outcome.metrics.get(metric)
            if value is not None:
                found[outcome.job.seed] = value
        return found

    def mean(self, case: str, strategy: str, metric: str) -> Mean | None:
        """A metric's mean over seeds."""
        return mean_of(list(self.values(case, strategy, metric).values()))

    def series(self, case: str) -> dict[str, dict[str, list[float]]]:
        """Lines for the picture by strategy, of the strategies that have any."""
        return {
            strategy: outcome.series
            for strategy in self.strategies(case)
            for outcome in self.outcomes(case, strategy)
            if outcome.series
        }

    def add(self, case: str, strategy: str, metric: str, values: Mapping[int, float]) -> None:
        """Put a derived metric beside the others."""
        for outcome in self.outcomes(case, strategy):
            outcome.metrics[metric] = values.get(outcome.job.seed)

    def ratio(self, metric: str, rival: str, name: str) -> None:
        """Add ``name``: a metric over the rival's under the same seed."""
        self._compare(metric, rival, name, {}, lambda mine, base: mine / base)

    def relative(
        self, metric: str, rival: str, name: str, case_of: Mapping[str, str] | None = None
    ) -> None:
        """Add ``name``: a metric over the rival's under the same seed, less 1.

        ``case_of`` says in which case the rival ran, where that is another one.
        """
        self._compare(metric, rival, name, case_of or {}, lambda mine, base: mine / base - 1)

    def _compare(
        self,
        metric: str,
        rival: str,
        name: str,
        case_of: Mapping[str, str],
        compare: Callable[[float, float], float],
    ) -> None:
        """Add ``name``, where the rival's metric is there and not 0."""
        for case in self.cases:
            base = self.values(case_of.get(case, case), rival, metric)
            for strategy in self.strategies(case):
                mine = self.values(case, strategy, metric)
                found = {seed: compare(mine[seed], base[seed]) for seed in mine if base.get(seed)}
                self.add(case, strategy, name, found)


def over_cases(
    results: Results, strategy: str, metric: str, cases: Sequence[str] | None = None
) -> dict[int, float]:
    """Mean of a metric over cases, by seed; seeds that lack a case are left out."""
    found = [results.values(case, strategy, metric) for case in cases or results.cases]
    found = [values for values in found if values]
    seeds = set.intersection(*(set(values) for values in found)) if found else set()
    return {seed: sum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}


def worst_of_cases(
    results: Results, strategy: str, metric: str, sense: str, cases: Sequence[str] | None = None
) -> dict[int, float]:
    """Worst value of a metric over cases, by seed."""
    worst: dict[int, float] = {}
    pick = min if sense == ">=" else max
    for case in cases or results.cases:
        for seed, value in results.values(case, strategy, metric).items():
            worst[seed] = pick(worst[seed], value) if seed in worst else value
    return worst


def judge(  # noqa: PLR0913 - a bar's parts
    scenario: str,
    name: str,
    sense: str,
    bound: float,
    values: Mapping[int, float],
    *,
    every_seed: bool = False,
    limit: float | None = None,
    unit: str = "",
    note: str = "",
) -> Bar:
    """A bar judged by the mean over seeds, or by the worst seed (``every_seed``)."""
    mean = mean_of(list(values.values()))
    if mean is None:
        return Bar(scenario, name, sense, bound, None, unit=unit, note=note or "not run")
    pick = min if sense == ">=" else max
    worst_seed = pick(values, key=lambda seed: values[seed])
    worst = values[worst_seed]
    return Bar(
        scenario=scenario,
        name=name,
        sense=sense,
        bound=bound,
        value=worst if every_seed else mean.mean,
        mean=mean.mean,
        half_width=mean.half_width,
        worst=worst,
        worst_seed=worst_seed,
        limit=limit,
        unit=unit,
        note=note or ("worst seed" if every_seed else "mean over seeds"),
    )


def scenario_json(scenario: Scenario, results: Results, bars: Sequence[Bar]) -> dict[str, object]:
    """One scenario's part of the JSON; figures by metric with mean, half width and each seed's."""
    return {
        "name": scenario.name,
        "title": scenario.title,
        "setting": scenario.setting,
        "boundary": scenario.boundary,
        "origin": "simulated",
        "columns": [{"key": c.key, "head": c.head, "meaning": c.meaning} for c in scenario.columns],
        "results": [
            {
                "case": case,
                "strategy": strategy,
                "metrics": _metrics_json(results, case, strategy),
                "notes": sorted({n for o in results.outcomes(case, strategy) for n in o.notes}),
            }
            for case in results.cases
            for strategy in results.strategies(case)
        ],
        "bars": [bar_json(bar) for bar in bars],
    }


def bar_json(bar: Bar) -> dict[str, object]:
    """A bar as JSON; ``met`` null where nothing was measured."""
    return {
        "scenario": bar.scenario,
        "name": bar.name,
        "sense": bar.sense,
        "bound": bar.bound,
        "unit": bar.unit,
        "value": bar.value,
        "met": bar.met,
        "distance": bar.distance,
        "mean": bar.mean,
        "half_width": bar.half_width,
        "worst": bar.worst,
        "worst_seed": bar.worst_seed,
        "limit": bar.limit,
        "note": bar.note,
    }


def _metrics_json(results: Results, case: str, strategy: str) -> dict[str, object]:
    keys = dict.fromkeys(k for o in results.outcomes(case, strategy) for k in o.metrics)
    found: dict[str, object] = {}
    for key in keys:
        values = results.values(case, strategy, key)
        mean = mean_of(list(values.values()))
        found[key] = {
            "mean": mean.mean if mean else None,
            "half_width": mean.half_width if mean else None,
            "by_seed": {str(seed): value for seed, value in values.items()},
        }
    return found
