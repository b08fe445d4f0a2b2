"""A site's backtest as a picture. Needs the ``plot`` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import ConfigurationError
from pals_grid.evaluate.backtest import names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from pals_grid.evaluate.backtest.result import SiteResult

_COLOURS = {
    names.NO_CONTROL: "#8a8f98",
    names.STATIC: "#b9a44c",
    names.AS_IT_COMES: "#6b705c",
    names.PRICE_THRESHOLD: "#3b5998",
    names.CARBON_THRESHOLD: "#7a5195",
    names.PLANNER: "#0b6e4f",
    names.FORESIGHT: "#c8553d",
    names.KNOWN_LOAD: "#79b791",
}
_BY_SHIFTING = (
    names.PRICE_THRESHOLD,
    names.CARBON_THRESHOLD,
    names.PLANNER,
    names.KNOWN_LOAD,
    names.FORESIGHT,
)
_AGAINST_NO_CONTROL = (names.STATIC, names.AS_IT_COMES, *_BY_SHIFTING)
_WEEK_POLICIES = (names.NO_CONTROL, names.AS_IT_COMES, names.PLANNER, names.FORESIGHT)


def plot_site(result: SiteResult, path: Path) -> None:
    """Write a PNG: savings by month and policy, in all and by shifting; power over a week.

    Raises:
        ConfigurationError: when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("pictures need matplotlib: pip install pals-grid[plot]") from error
    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    savings, shifting, power = figure.subplots(3, 1)
    _draw_savings(savings, result, names.NO_CONTROL, _AGAINST_NO_CONTROL)
    _draw_savings(shifting, result, names.AS_IT_COMES, _BY_SHIFTING)
    _draw_week(power, result)
    figure.suptitle(
        f"{result.name}: modelled, node boundary; real signals, load as the site file says"
    )
    figure.savefig(path, dpi=110)


def _draw_savings(axes: Axes, result: SiteResult, base: str, shown: Sequence[str]) -> None:
    start = [run.worth for run in result.runs(base)]
    names_shown = [name for name in shown if name in result.policies]
    positions = np.arange(len(result.months))
    width = 0.8 / max(1, len(names_shown))
    for i, name in enumerate(names_shown):
        saved = [
            100 * (whole - run.worth) / abs(whole) if whole else 0.0
            for whole, run in zip(start, result.runs(name), strict=False)
        ]
        at = positions[: len(saved)] + i * width
        axes.bar(at, saved, width, align="edge", color=_COLOURS[name], label=name)
    axes.set_xticks(positions + 0.4, [month.name for month in result.months], fontsize="small")
    axes.set_ylabel(f"saved against\n{base} [%]")
    axes.margins(y=0.3)
    axes.axhline(0, color="black", lw=0.5)
    if names_shown:
        axes.legend(ncols=len(names_shown), fontsize="small", loc="upper left")


def _draw_week(axes: Axes, result: SiteResult) -> None:
    month = result.months[0]
    for name in _WEEK_POLICIES:
        run = month.run(name)
        if run is None:
            continue
        week = run.power_w[: round(7 * 86_400 / result.slot_s)] / 1000
        hours = np.arange(len(week)) * result.slot_s / 3600
        axes.step(hours, week, where="post", lw=1, color=_COLOURS[name], label=name)
    axes.set_xlabel(f"hours from {month.interval.start_at:%Y-%m-%d} 00:00 UTC")
    axes.set_ylabel("site power [kW, nodes]")
    axes.set_ylim(bottom=0)
    axes.legend(ncols=4, fontsize="small")
