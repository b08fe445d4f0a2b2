"""Pictures of the scenarios. Needs the ``plot`` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError
from pals_grid.evaluate.suite.statistics import mean_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.scenario import Scenario
    from pals_grid.evaluate.suite.statistics import Mean

BOUNDARY_NOTE = "GPU boundary"
COLOURS: Mapping[str, str] = {
    "static-max": "#8a8f98",
    "static-limit": "#b8bcc2",
    "max-q": "#6b705c",
    "clock-lock": "#a98467",
    "batch-only": "#d4a373",
    "limit-only": "#e9c46a",
    "static-share": "#9c6644",
    "static-least": "#d5a6bd",
    "allocated": "#e9c46a",
    "pals": "#3b5998",
    "pals-grid": "#0b6e4f",
    "oracle": "#c8553d",
}
_OTHER = "#7b2cbf"


def require_matplotlib() -> None:
    """Say early that pictures cannot be made.

    Raises:
        ConfigurationError: when matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("pictures need matplotlib: pip install pals-grid[plot]") from error


def plot_scenario(scenario: Scenario, results: Results, path: Path, footer: str) -> None:
    """Write a scenario's PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    picture = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(picture)
    scenario.plot(results, picture)
    picture.supxlabel(footer, fontsize="x-small", color="#555555")
    picture.savefig(path, dpi=110)


def colour_of(strategy: str) -> str:
    """The same colour in every picture."""
    return COLOURS.get(strategy, _OTHER)


def bars_by_group(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Mean | None]],
    *,
    legend: bool = True,
) -> None:
    """Bars of each strategy beside each other in every group, with their intervals."""
    width = 0.85 / max(1, len(series))
    for k, (name, means) in enumerate(series.items()):
        places = [i + (k - (len(series) - 1) / 2) * width for i in range(len(groups))]
        heights = [mean.mean if mean else float("nan") for mean in means]
        errors = [(mean.half_width or 0.0) if mean else 0.0 for mean in means]
        axes.bar(places, heights, width, yerr=errors, color=colour_of(name), label=name, capsize=2)
    axes.set_xticks(range(len(groups)), [group.replace(", ", "\n") for group in groups])
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(ncols=5, fontsize="small", loc="upper left", bbox_to_anchor=(0.0, -0.2))


def bars_by_case(
    axes: Axes,
    results: Results,
    metric: str,
    *,
    scale: float,
    legend: bool,
    without: Container[str] = (),
) -> None:
    """A metric's mean by case, times ``scale``, of every strategy but those ``without``."""
    groups = {
        strategy: [
            mean_of([scale * v for v in results.values(case, strategy, metric).values()])
            for case in results.cases
        ]
        for strategy in results.strategies()
        if strategy not in without
    }
    bars_by_group(axes, results.cases, groups, legend=legend)


def budget_and_draw(axes: Axes, lines: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw of each strategy over the budget; 20 % around the budgets are shown."""
    for strategy, series in lines.items():
        axes.plot(
            series["at_s"], series["node_w"], color=colour_of(strategy), lw=0.9, label=strategy
        )
    budget: Mapping[str, Sequence[float]] = next(iter(lines.values()), {})
    if budget:
        held = budget["envelope_w"]
        axes.step(budget["at_s"], held, where="pre", color="#c8553d", lw=1.2, label="budget")
        axes.set_ylim(0.75 * min(held), 1.12 * max(held))
    axes.set_ylabel("node power [W]")
    axes.legend(ncols=4, fontsize="small", loc="lower right")


def limit_lines(
    axes: Axes, lines: Mapping[str, Mapping[str, Sequence[float]]], key: str, label: str
) -> None:
    """One quantity of each strategy over time."""
    for strategy, series in lines.items():
        axes.plot(series["at_s"], series[key], color=colour_of(strategy), lw=1.0, label=strategy)
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#dddddd", lw=0.6)


def fleet_lines(
    above: Axes, below: Axes, lines: Mapping[str, Mapping[str, Sequence[float]]], ours: str
) -> None:
    """The site's draw under each strategy and its budget; our leases below."""
    budget: Mapping[str, Sequence[float]] = next(iter(lines.values()), {})
    for strategy, series in lines.items():
        minutes = [at_s / 60 for at_s in series["at_s"]]
        above.plot(minutes, series["site_w"], color=colour_of(strategy), lw=0.9, label=strategy)
    if budget:
        minutes = [at_s / 60 for at_s in budget["at_s"]]
        above.step(minutes, budget["budget_w"], where="post", color="#c8553d", label="budget")
    above.set_ylabel("site power [W]")
    above.margins(y=0.25)
    above.legend(ncols=4, fontsize="small", loc="lower right")
    for key, values in lines.get(ours, {}).items():
        if key.startswith("lease "):
            minutes = [at_s / 60 for at_s in lines[ours]["at_s"]]
            below.step(minutes, values, where="post", lw=1.0, label=key)
    below.set_ylabel(f"leases of {ours} [W]")
    below.margins(y=0.25)
    below.legend(ncols=3, fontsize="small", loc="lower right")
