"""A what-if as a picture. Needs the ``plot`` extra."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

_COLOURS = {
    "as-it-stands": "#0b6e4f",
    "with-changes": "#c8553d",
    "no-control": "#8a8f98",
    "static-limit": "#b9a44c",
    "as-it-comes": "#6b705c",
    "price-threshold": "#3b5998",
    "carbon-threshold": "#7a5195",
}
_PLANS = ("as-it-stands", "with-changes")


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: power and limits of each alternative, price and carbon, in local time."""
    zone = ZoneInfo(found["timezone"])
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    power, price = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for item in found["alternatives"]:
        _draw(power, item, zone)
    power.set_ylabel("site power [kW, nodes]")
    power.set_ylim(bottom=0)
    figure.legend(ncols=5, fontsize="small", loc="outside lower center", frameon=False)
    world = found["alternatives"][min(1, len(found["alternatives"]) - 1)]["intervals"]
    _signal(price, world, "price_per_mwh", zone, ("#7a3bd1", "-"))
    price.set_ylabel(f"price [{found['currency']}/MWh]", color="#7a3bd1")
    carbon = price.twinx()
    _signal(carbon, world, "carbon_g_per_kwh", zone, ("#1f7a3d", "--"))
    carbon.set_ylabel("carbon [gCO2/kWh]", color="#1f7a3d")
    locator = price.xaxis.get_major_locator()
    price.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    price.set_xlabel(f"{found['timezone']}")
    figure.suptitle(f"{found['site']}: what if; modelled, at node boundary")
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, item: Mapping[str, Any], zone: ZoneInfo) -> None:
    name, colour = item["name"], _COLOURS.get(item["name"], "black")
    times = _times(item["intervals"], zone)
    _stair(axes, times, [i["power_w"] / 1000 for i in item["intervals"]], colour, "-", name)
    if name in _PLANS:
        limits = [i["limit_w"] / 1000 for i in item["intervals"]]
        _stair(axes, times, limits, colour, "--", f"{name}, limit")


def _signal(
    axes: Axes, intervals: list[dict[str, Any]], key: str, zone: ZoneInfo, pen: tuple[str, str]
) -> None:
    values = [float("nan") if i[key] is None else float(i[key]) for i in intervals]
    _stair(axes, _times(intervals, zone), values, *pen, "")


def _times(intervals: list[dict[str, Any]], zone: ZoneInfo) -> list[datetime]:
    edges = [item["start_at"] for item in intervals] + [intervals[-1]["end_at"]]
    return [datetime.fromisoformat(edge).astimezone(zone) for edge in edges]


def _stair(
    axes: Axes, times: list[datetime], values: list[float], colour: str, dash: str, label: str
) -> None:
    axes.step(
        times,  # type: ignore[arg-type]  # matplotlib takes datetimes
        [*values, values[-1]],
        where="post",
        color=colour,
        ls=dash,
        lw=1.4,
        label=label,
    )
