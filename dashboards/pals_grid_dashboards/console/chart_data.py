"""What the charts draw, as plain JSON: times in seconds since the epoch, gaps as null.

A series is ``{"key", "label", "shape": "step" | "line", "dash": "solid" | "dashed" | "dotted",
"scale", "unit", "decimals", "hidden", "x", "y"}``; the page's script turns ``key`` into a colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pals_grid.core.series import Quantity, ValueKind
from pals_grid.core.units import W_PER_KW
from pals_grid.feeds.slotting import best_values
from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.words import KIND_WORDS, REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.budget import BudgetInterval
    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.intervals import Interval
    from pals_grid.core.series import Observation
    from pals_grid_dashboards.console.local_time import LocalTime

Series = dict[str, Any]

DASHES = {
    ValueKind.MEASURED: "solid",
    ValueKind.FORECAST: "dashed",
    ValueKind.MODELLED: "dashdot",
    ValueKind.SYNTHETIC: "dotted",
}


def epoch_s(instant: datetime) -> float:
    """Seconds since 1970."""
    return instant.timestamp()


def stepped(
    values: Iterable[tuple[Interval, float | None]],
) -> tuple[list[float], list[float | None]]:
    """Points of a stair: each interval's value at its start; the end closes it before a gap."""
    x: list[float] = []
    y: list[float | None] = []
    open_until: datetime | None = None
    for interval, value in values:
        if open_until is not None and interval.start_at != open_until:
            _close(x, y, open_until)
        x.append(epoch_s(interval.start_at))
        y.append(value)
        open_until = interval.end_at
    if open_until is not None:
        _close(x, y, open_until)
    return x, y


def _close(x: list[float], y: list[float | None], end_at: datetime) -> None:
    x += [epoch_s(end_at), epoch_s(end_at) + 1]
    y += [y[-1], None]


def sampled(
    points: Iterable[tuple[datetime, float | None]], step_s: float
) -> tuple[list[float], list[float | None]]:
    """Points of a line, broken where more than one step is missing."""
    x: list[float] = []
    y: list[float | None] = []
    for start_at, value in points:
        at = epoch_s(start_at) + step_s / 2
        if x and at - x[-1] > 2.5 * step_s:
            x.append(x[-1] + step_s)
            y.append(None)
        x.append(at)
        y.append(value)
    return x, y


def power_series(
    budget: Sequence[BudgetInterval],
    measured: Iterable[tuple[datetime, float | None]],
    *,
    step_s: float,
    origin: str,
    now: datetime,
) -> list[Series]:
    """Budget limit and expected power as stairs, node power as a line; all in kW."""
    limit = stepped((item.interval, item.limit_w / W_PER_KW) for item in budget)
    ahead = [item for item in budget if item.interval.end_at > now]
    expected = stepped((item.interval, item.expected_power_w / W_PER_KW) for item in ahead)
    drawn = sampled(
        ((at, None if power_w is None else power_w / W_PER_KW) for at, power_w in measured), step_s
    )
    return [
        series("limit", "Budget limit", limit, unit="kW", decimals=2),
        series("expected", "Expected power", expected, unit="kW", decimals=2, dash="dashed"),
        series(
            "draw",
            f"Node power ({origin})",
            drawn,
            unit="kW",
            decimals=2,
            shape="line",
        ),
    ]


def signal_series(
    quantity: Quantity, observations: Iterable[Observation], window: Interval
) -> list[Series]:
    """One stair for each kind of value, best kind first; one line style for each kind."""
    merged = [item for item in best_values(observations) if window.overlap_s(item.interval) > 0]
    key = "price" if quantity is Quantity.PRICE else "carbon"
    name = {
        Quantity.PRICE: "Feed price",
        Quantity.AVERAGE_INTENSITY: "Average carbon",
        Quantity.MARGINAL_INTENSITY: "Marginal carbon",
    }[quantity]
    return [
        series(
            key,
            f"{name} ({KIND_WORDS[kind]})",
            stepped((item.interval, item.value) for item in merged if item.kind is kind),
            unit=next(item.unit for item in merged if item.kind is kind).replace("CO2eq", "CO₂"),
            decimals=2 if key == "price" else 0,
            dash=DASHES[kind],
            scale=key,
        )
        for kind in ValueKind
        if any(item.kind is kind for item in merged)
    ]


def series(  # noqa: PLR0913  # a series has that many properties
    key: str,
    label: str,
    points: tuple[list[float], list[float | None]],
    *,
    unit: str,
    decimals: int,
    shape: str = "step",
    dash: str = "solid",
    scale: str = "power",
    hidden: bool = False,
) -> Series:
    """One series; ``hidden`` ones are drawn when they are chosen in the legend."""
    return {
        "key": key,
        "label": label,
        "shape": shape,
        "dash": dash,
        "scale": scale,
        "unit": unit,
        "decimals": decimals,
        "hidden": hidden,
        "x": points[0],
        "y": points[1],
    }


def event_bands(events: Iterable[DemandResponseEvent], window: Interval) -> list[dict[str, Any]]:
    """Events inside the window, to be shaded; an event that was cancelled is not drawn."""
    return [
        {
            "from": epoch_s(item.order.start_at),
            "to": epoch_s(item.order.end_at),
            "label": item.order.name,
        }
        for item in events
        if item.cancelled_at is None and window.overlap_s(item.order.event_interval) > 0
    ]


def reason_spans(budget: Iterable[BudgetInterval], local: LocalTime) -> list[dict[str, Any]]:
    """What is said of an interval when the pointer is over it."""
    return [
        {
            "from": epoch_s(item.interval.start_at),
            "to": epoch_s(item.interval.end_at),
            "when": f"{local.clock(item.interval.start_at)}–{local.clock(item.interval.end_at)}",
            "limit": formats.power(item.limit_w),
            "reason": REASONS[item.reason],
            "explanation": item.explanation,
        }
        for item in budget
    ]


def chart(
    window: Interval, local: LocalTime, panels: Sequence[Sequence[Series]], **extra: object
) -> dict[str, Any]:
    """Return one chart: panels one above the other on the same time axis."""
    return {
        "zone": local.zone.key,
        "now": epoch_s(local.now),
        "from": epoch_s(window.start_at),
        "to": epoch_s(window.end_at),
        "panels": [list(panel) for panel in panels],
        "bands": [],
        "reasons": [],
        **extra,
    }


def delivery_series(
    points: Iterable[tuple[datetime, float | None]],
    levels: Mapping[str, tuple[str, float]],
    window: Interval,
    origin: str,
) -> list[Series]:
    """Power by minute against level lines (``key -> (label, W)``); all in kW."""
    lines = [
        series(
            key,
            label,
            stepped([(window, level_w / W_PER_KW)]),
            unit="kW",
            decimals=2,
            dash="dashed" if key == "expected" else "solid",
        )
        for key, (label, level_w) in levels.items()
    ]
    drawn = sampled(
        ((at, None if value is None else value / W_PER_KW) for at, value in points), 60.0
    )
    return [
        *lines,
        series("draw", f"Power ({origin})", drawn, unit="kW", decimals=2, shape="line"),
    ]
