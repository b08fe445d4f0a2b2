"""A replay as one picture. Needs the ``plot`` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from matplotlib.axes import Axes

    from pals_grid.evaluate.result import ReplayResult

_WITH = "#0b6e4f"
_WITHOUT = "#8a8f98"
_LIMIT = "#c8553d"
_PRICE = "#3b5998"
_CARBON = "#6b705c"


def plot_replay(result: ReplayResult, path: Path) -> None:
    """Write a PNG: budget and draw, price and carbon, cost and J/token by hour.

    Raises:
        ConfigurationError: when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("pictures need matplotlib: pip install pals-grid[plot]") from error
    figure = Figure(figsize=(11, 10), layout="constrained")
    FigureCanvasAgg(figure)
    power, signals, cost, tokens = figure.subplots(4, 1, sharex=True)
    _draw_power(power, result)
    _draw_signals(signals, result)
    _draw_hours(cost, result, "cost", f"cost [{result.currency}/h]")
    _draw_hours(tokens, result, "node_j_per_token", "energy [J/token, node]")
    tokens.set_xlabel(
        f"hours from {result.start_at:%Y-%m-%d %H:%M} UTC; simulated plant, modelled "
        "coefficients, real price and carbon, synthetic load envelope"
    )
    figure.suptitle("The same hours with and without PALS Grid")
    figure.savefig(path, dpi=110)


def _draw_power(axes: Axes, result: ReplayResult) -> None:
    limits = _held([slot.limit_w / 1000 for slot in result.slots])
    axes.step(_slot_edges_h(result), limits, where="post", color=_LIMIT, label="budget")
    for run, colour in ((result.uncontrolled, _WITHOUT), (result.controlled, _WITH)):
        hours = [_hour(result, at) for at, _ in run.power_w]
        axes.plot(hours, [w / 1000 for _, w in run.power_w], color=colour, lw=1, label=run.name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("node power [kW]")
    axes.legend(loc="lower right", ncols=3, fontsize="small")


def _draw_signals(axes: Axes, result: ReplayResult) -> None:
    price = _held([_or_gap(slot.price_per_mwh) for slot in result.slots])
    carbon = _held([_or_gap(slot.carbon_g_per_kwh) for slot in result.slots])
    axes.step(_slot_edges_h(result), price, where="post", color=_PRICE)
    axes.set_ylabel(f"price [{result.currency}/MWh]", color=_PRICE)
    beside = axes.twinx()
    beside.step(_slot_edges_h(result), carbon, where="post", color=_CARBON)
    beside.set_ylabel("carbon [gCO2eq/kWh]", color=_CARBON)


def _draw_hours(axes: Axes, result: ReplayResult, field: str, title: str) -> None:
    for run, shift_h, colour in (
        (result.uncontrolled, 0.3, _WITHOUT),
        (result.controlled, 0.7, _WITH),
    ):
        hours = [_hour(result, row.start_at) + shift_h for row in run.hours if row.start_at]
        heights = [_or_gap(getattr(row, field)) for row in run.hours]
        axes.bar(hours, heights, width=0.4, color=colour, label=run.name)
    axes.set_ylabel(title)
    axes.legend(loc="lower right", ncols=2, fontsize="small")


def _slot_edges_h(result: ReplayResult) -> list[float]:
    """Starts of the slots and the end of the last."""
    return [*(_hour(result, slot.start_at) for slot in result.slots), float(result.hours)]


def _held(values: list[float]) -> list[float]:
    """Values at the edges: the last slot's holds to its end."""
    return [*values, *values[-1:]]


def _hour(result: ReplayResult, at: datetime) -> float:
    return (at - result.start_at).total_seconds() / 3600


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
