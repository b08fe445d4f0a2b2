"""The whole evaluation: choose, run, judge, write."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.suite import strategies as names
from pals_grid.evaluate.suite.catalog import SCENARIOS, scenario
from pals_grid.evaluate.suite.job import SuiteOptions
from pals_grid.evaluate.suite.loads import read_trace
from pals_grid.evaluate.suite.markdown import render_markdown
from pals_grid.evaluate.suite.plots import plot_scenario, require_matplotlib
from pals_grid.evaluate.suite.results import FORMAT, Results, scenario_json
from pals_grid.evaluate.suite.runner import run_all
from pals_grid.evaluate.suite.show import bars_text, text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.evaluate.suite.job import Bar
    from pals_grid.evaluate.suite.scenario import Scenario

IMAGE_PREFIX = "evaluation-"


@dataclass(frozen=True, slots=True)
class Request:
    """What the command was asked for; empty names mean all."""

    scenarios: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    trace_path: Path | None = None
    seeds: int = 5
    processes: int = 1
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One scenario's outcome."""

    scenario: Scenario
    results: Results
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that came of a run."""

    request: Request
    parts: tuple[Part, ...]

    @property
    def load(self) -> str:
        """Where the arrivals come from."""
        path = self.request.trace_path
        return (
            f"requests of {path.name}" if path else "synthetic (Poisson, the Azure trace's means)"
        )

    @property
    def bars(self) -> list[Bar]:
        """Every bar."""
        return [bar for part in self.parts for bar in part.bars]

    def to_json(self) -> dict[str, object]:
        """The document that ``docs/evaluation.md`` describes."""
        chosen = self.request
        return {
            "format": FORMAT,
            "origin": "simulated",
            "tables_origin": "profiled on the simulated node and fitted",
            "load": self.load,
            "seeds": list(range(1, chosen.seeds + 1)),
            "quick": chosen.quick,
            "strategies": dict(names.SUMMARIES),
            "scenarios": [
                scenario_json(part.scenario, part.results, part.bars) for part in self.parts
            ],
        }

    def to_text(self) -> str:
        """Tables and bars for a terminal."""
        shown = [
            f"Everything here is simulated; load: {self.load}; seeds 1 to {self.request.seeds}."
        ]
        if self.request.quick:
            shown.append("QUICK: short runs of few cases; the figures prove nothing.")
        for part in self.parts:
            shown.append(f"== {part.scenario.name}: {part.scenario.title} ==")
            shown += [text_table(table) for table in part.scenario.summary(part.results)]
        shown.append(bars_text(self.bars))
        return "\n\n".join(shown)

    def write(self, folder: Path) -> None:
        """Write ``evaluation.json`` and one PNG a scenario into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        self.write_pictures(folder)

    def write_pictures(self, folder: Path) -> None:
        """Write one PNG a scenario."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            path = folder / f"{IMAGE_PREFIX}{part.scenario.name}.png"
            load = "synthetic" if part.scenario.is_synthetic else self.load
            seeds = self.request.seeds
            note = f"simulated plant; load: {load}; mean and 95 % interval of {seeds} seeds"
            plot_scenario(part.scenario, part.results, path, note)

    def write_markdown(self, path: Path) -> None:
        """Write the document, its pictures into ``images`` beside it."""
        images = path.parent / "images"
        self.write_pictures(images)
        path.write_text(render_markdown(self, "images/" + IMAGE_PREFIX), encoding="utf-8")


def evaluate(request: Request, progress: Callable[[float], None] = lambda _: None) -> Evaluation:
    """Run everything that was asked for.

    Raises:
        InvalidValue: for an unknown scenario or strategy, naming the known ones; for a trace
            that cannot be read; where no chosen scenario knows a chosen strategy.
    """
    chosen = [scenario(name) for name in request.scenarios or SCENARIOS]
    for name in request.strategies:
        names.known(name)
    _require_use(chosen, request.strategies)
    if not 1 <= request.seeds <= 100:
        raise InvalidValue("seeds", request.seeds, "must be from 1 to 100")
    if not 1 <= request.processes <= 256:
        raise InvalidValue("jobs", request.processes, "must be from 1 to 256")
    if request.trace_path is not None:
        read_trace(request.trace_path)
    with tempfile.TemporaryDirectory(prefix="pals-grid-evaluate-") as scratch:
        options = SuiteOptions(request.trace_path, Path(scratch), request.seeds, request.quick)
        outcomes = run_all(chosen, request.strategies, options, request.processes, progress)
    parts = []
    for item in chosen:
        results = Results(o for o in outcomes if o.job.scenario == item.name)
        item.derive(results)
        parts.append(Part(item, results, tuple(item.bars(results))))
    return Evaluation(request, tuple(parts))


def _require_use(chosen: Sequence[Scenario], strategies: Sequence[str]) -> None:
    used = {name for item in chosen for name in item.strategies}
    for name in strategies:
        if name not in used:
            known = ", ".join(sorted(used))
            raise InvalidValue("strategy", name, f"must be in one of the scenarios chosen: {known}")


def check_pictures() -> None:
    """Say before the run, not after it, that pictures cannot be made."""
    require_matplotlib()
