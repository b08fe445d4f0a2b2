"""Rolling-origin comparison of the forecasts with seasonal-naive, and with the provider's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.forecast.learned.grid import at, to_grid
from pals_grid.forecast.learned.rolling import MIN_DAYS, RETRAIN_DAYS, roll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.evaluate.series_file import SeriesFile
    from pals_grid.forecast.issued import Announced
    from pals_grid.forecast.learned.grid import Bools, Floats, Grid
    from pals_grid.forecast.learned.rolling import Forecasts

YEAR_DAYS = 365
HORIZONS_H = (1.0, 3.0, 6.0, 12.0, 24.0, 48.0)


@dataclass(frozen=True, slots=True)
class Line:
    """One horizon, in the file's unit; None where there is nothing to compare.

    ``gain_ratio`` is against the better of the two naive rivals. ``coverage_ratio`` is the share
    of values from P10 to P90. ``alone_mae`` is the model's without the rival's part.
    """

    horizon: str
    horizon_h: float | None
    forecasts: int
    mae: float
    naive_day_mae: float
    naive_week_mae: float
    gain_ratio: float
    coverage_ratio: float
    alone_mae: float
    provider_mae: float | None = None
    provider_gain_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and how; times in ISO 8601 UTC."""

    value_column: str
    step_s: int
    history_start_at: str
    test_start_at: str
    test_end_at: str
    history_days: float
    test_days: float
    left_out: int
    delay_h: float
    retrain_days: int
    zone: str
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, object]:
        """Everything, for programs."""
        return asdict(self)


def compare(
    series: SeriesFile,
    *,
    horizon_h: float,
    delay_h: float,
    zone: str,
    retrain_days: int = RETRAIN_DAYS,
    announced: Announced | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Comparison:
    """Compare over the last year, which the first model has not seen.

    Where the file has under two years, over its second half. Origins are an hour apart (an hour
    and a step below hourly, to meet every minute of the hour).

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
        InvalidValue: for an impossible horizon, too short a series, or prices of another time.
    """
    grid = _checked_grid(series, horizon_h, announced)
    count, day = len(grid.values), grid.day
    first = max(count - YEAR_DAYS * day, count // 2)
    own = {m: grid.steps(m / 60) for m in series.own_forecasts if m * 60 >= grid.step_s}
    hours = [float(hour) for hour in range(1, 25)]
    shown = sorted({horizon_h, *(h for h in HORIZONS_H if h <= max(horizon_h, 24.0))})
    leads = sorted({grid.steps(h) for h in (*hours, *shown)} | set(own.values()))
    made = roll(
        grid,
        zone=zone,
        first=first,
        leads=leads,
        stride=grid.steps(1) + (grid.step_s < 3600),
        delay=round(delay_h * 3600 / grid.step_s),
        retrain_days=retrain_days,
        announced=announced,
        progress=progress,
    )
    lines = [_own_line(grid, made, series, minutes, lead) for minutes, lead in own.items()]
    lines += [_line(made, f"{h:g} h", h, made.lead == grid.steps(h)) for h in shown]
    path = np.isin(made.lead, [grid.steps(hour) for hour in hours])
    lines.append(_line(made, "1-24 h", None, path))
    return Comparison(
        value_column=series.columns.value or "",
        step_s=grid.step_s,
        history_start_at=_instant(grid, 0),
        test_start_at=_instant(grid, first),
        test_end_at=_instant(grid, count),
        history_days=first / day,
        test_days=(count - first) / day,
        left_out=series.left_out,
        delay_h=delay_h,
        retrain_days=retrain_days,
        zone=zone,
        lines=tuple(lines),
    )


def _checked_grid(series: SeriesFile, horizon_h: float, announced: Announced | None) -> Grid:
    grid = to_grid(series.starts_s, series.ends_s, series.values)
    count, day = len(grid.values), grid.day
    if not grid.step_s <= horizon_h * 3600 <= 48 * 3600:
        bound = f"must be from one step ({grid.step_s / 3600:g} h) to 48"
        raise InvalidValue("horizon_h", horizon_h, bound)
    if count < 2 * MIN_DAYS * day:
        bound = f"must be {2 * MIN_DAYS} days or more: half to learn from, half to compare on"
        raise InvalidValue("file", f"{count / day:.1f} days", bound)
    if announced is not None:
        begin_s, end_s = min(announced.starts_s), max(announced.ends_s)
        if end_s <= grid.start_s or begin_s >= grid.start_s + count * grid.step_s:
            span = f"{_at(begin_s)} to {_at(end_s)}"
            bound = f"must overlap the file's time, {_instant(grid, 0)} to {_instant(grid, count)}"
            raise InvalidValue("day_ahead", span, bound)
    return grid


def _line(
    made: Forecasts, name: str, horizon_h: float | None, mine: Bools, provider: Floats | None = None
) -> Line:
    rivals = made.rivals
    known = mine & np.isfinite(made.values) & np.isfinite(rivals.day) & np.isfinite(rivals.week)
    if provider is not None:
        known &= np.isfinite(provider)
    if not known.any():
        raise InvalidValue("horizon", name, "has no value to compare with")
    values, found = made.values[known], made.found

    def error(forecast: Floats) -> float:
        return float(np.abs(values - forecast[known]).mean())

    mae, day, week = error(found.p50), error(rivals.day), error(rivals.week)
    inside = (values >= found.p10[known]) & (values <= found.p90[known])
    theirs = None if provider is None else error(provider)
    return Line(
        horizon=name,
        horizon_h=horizon_h,
        forecasts=int(known.sum()),
        mae=mae,
        naive_day_mae=day,
        naive_week_mae=week,
        gain_ratio=_gain(mae, min(day, week)),
        coverage_ratio=float(inside.mean()),
        alone_mae=error(made.alone),
        provider_mae=theirs,
        provider_gain_ratio=None if theirs is None else _gain(mae, theirs),
    )


def _own_line(grid: Grid, made: Forecasts, series: SeriesFile, minutes: int, lead: int) -> Line:
    """The provider's forecasts stand in the row of the last value that was known."""
    rows = ((np.asarray(series.starts_s) - grid.start_s) // grid.step_s).astype(np.int64)
    theirs = np.full(len(grid.values), np.nan)
    theirs[rows] = series.own_forecasts[minutes]
    provider = at(theirs, made.origin - 1)
    return _line(made, f"{minutes} min", minutes / 60, made.lead == lead, provider)


def _gain(mae: float, rival: float) -> float:
    return 1.0 - mae / rival if rival > 0 else 0.0


def _instant(grid: Grid, index: int) -> str:
    return _at(grid.start_s + index * grid.step_s)


def _at(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def table(found: Comparison) -> tuple[Sequence[str], list[tuple[object, ...]]]:
    """Head and rows for people."""
    head = [
        "horizon",
        "forecasts",
        "model",
        "alone",
        "naive day",
        "naive week",
        "gain",
        "P10-P90 holds",
    ]
    rows: list[tuple[object, ...]] = [
        (
            line.horizon,
            line.forecasts,
            line.mae,
            line.alone_mae,
            line.naive_day_mae,
            line.naive_week_mae,
            f"{line.gain_ratio:+.1%}",
            f"{line.coverage_ratio:.1%}",
            *_provider_cells(found, line),
        )
        for line in found.lines
    ]
    return [*head, *(["provider", "gain on it"] if _has_provider(found) else [])], rows


def _has_provider(found: Comparison) -> bool:
    return any(line.provider_mae is not None for line in found.lines)


def _provider_cells(found: Comparison, line: Line) -> tuple[object, ...]:
    if not _has_provider(found):
        return ()
    gain = line.provider_gain_ratio
    return (line.provider_mae, None if gain is None else f"{gain:+.1%}")
