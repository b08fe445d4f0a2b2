"""Learn from a history and forecast on from its end: plain values in, plain values out."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.forecast.issued import Announced, ForecastValue, Learned
from pals_grid.forecast.learned.conformal import Widths, fit_widths
from pals_grid.forecast.learned.features import Features
from pals_grid.forecast.learned.grid import to_grid
from pals_grid.forecast.learned.mixing import RIVALS, Shares, fit_shares
from pals_grid.forecast.learned.model import EDGES_H, decode_model
from pals_grid.forecast.learned.rolling import MIN_DAYS, better_rival, train
from pals_grid.forecast.scoring import LEAD_EDGES_H, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pals_grid.forecast.issued import History
    from pals_grid.forecast.learned.features import Rivals
    from pals_grid.forecast.learned.grid import Floats, Grid
    from pals_grid.forecast.learned.rolling import Forecasts

STEP_S = 1800
"""Steps of a live forecast are half an hour at the finest: plans have no use for finer ones."""
MIN_KNOWN_RATIO = 0.8


def learn(
    history: History,
    *,
    zone: str,
    delay_s: float,
    rivals: Sequence[str] = RIVALS,
    announced: Mapping[str, Announced] | None = None,
) -> Learned:
    """Train on a history whose last values were ``delay_s`` late.

    Told what one of the others, by name, announces, where that did better on the days kept back.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
        InvalidValue: with under 56 days of history, or under 80 % of its steps known.
    """
    if not history.values:
        raise InvalidValue("history", "0 days", f"must be {MIN_DAYS} days of final values or more")
    grid = _grid(history)
    days = len(grid.values) / grid.day
    if days < MIN_DAYS:
        raise InvalidValue(
            "history", f"{days:.1f} days", f"must be {MIN_DAYS} days of final values or more"
        )
    known = float(np.isfinite(grid.values).mean())
    if known < MIN_KNOWN_RATIO:
        raise InvalidValue("history", f"{known:.0%} known", f"must be {MIN_KNOWN_RATIO:.0%} known")
    leads = [grid.steps(hours) for hours in LEAD_EDGES_H[1:]]
    model, proof, told_by = train(
        grid, zone=zone, leads=leads, delay=_delay(grid, delay_s), announced=announced
    )
    rival = better_rival(proof, np.arange(len(proof.values)), rivals)
    naive = _rival(proof.rivals, rival)
    lead_h = proof.lead * grid.step_s / 3600
    shares = fit_shares(proof.found.p50, proof.values, naive, lead_h)
    mixed = shares.apply(proof.found, naive, lead_h)
    widths = fit_widths(mixed, proof.values, lead_h)
    calibrated = replace(proof, found=widths.apply(mixed, lead_h))
    return Learned(
        model=model.encode(),
        widths={
            str(bucket): [*widths.by_bucket.get(bucket, (1.0, 1.0)), share]
            for bucket, share in shares.by_bucket.items()
        },
        rival=rival,
        hold_out=_scores(calibrated, lead_h, naive),
        step_s=grid.step_s,
        history_start_s=grid.start_s,
        told_by=told_by,
    )


def forecast(
    learned: Learned,
    history: History,
    *,
    zone: str,
    origin_s: float,
    ahead_s: float,
    announced: Announced | None = None,
) -> list[ForecastValue]:
    """Forecast every step from the origin, or the end of what is known, to ``ahead_s`` after it.

    At most 56 h from the last known value.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
    """
    grid = _grid(history, step_s=learned.step_s)
    known = int(np.flatnonzero(np.isfinite(grid.values))[-1])
    first = max(known + 1, math.floor((origin_s - grid.start_s) / grid.step_s))
    last = math.ceil((origin_s + ahead_s - grid.start_s) / grid.step_s)
    last = min(last, known + 1 + int(EDGES_H[-1] * 3600 // grid.step_s))
    lead = np.arange(first, last, dtype=np.int64) - known
    if not len(lead):
        return []
    model = decode_model(learned.model)
    told = (announced or Announced([], [], [], [])) if model.is_told else None
    features = Features(grid, zone, told)
    origins = np.full(len(lead), known, dtype=np.int64)
    widths = Widths({int(one): (pair[0], pair[1]) for one, pair in learned.widths.items()})
    # Forecasters of before the mixing have no third number: the model stands alone.
    shares = Shares({int(one): pair[2] for one, pair in learned.widths.items() if len(pair) > 2})
    raw = model.predict(features, origins, lead)
    rival = _rival(features.rivals(origins, lead), learned.rival)
    lead_h = lead * grid.step_s / 3600
    found = widths.apply(shares.apply(raw, rival, lead_h), lead_h)
    starts = grid.start_s + (known + lead) * grid.step_s
    columns = zip(starts, found.p10, found.p50, found.p90, rival, strict=True)
    return [
        ForecastValue(
            int(start),
            int(start) + grid.step_s,
            float(low),
            float(middle),
            float(high),
            float(naive) if math.isfinite(naive) else None,
        )
        for start, low, middle, high, naive in columns
    ]


def step_means(history: History, step_s: int) -> list[tuple[int, float]]:
    """What came: start in seconds since the epoch and mean of each step that is known."""
    grid = _grid(history, step_s=step_s)
    return [
        (grid.start_s + int(i) * grid.step_s, float(grid.values[i]))
        for i in np.flatnonzero(np.isfinite(grid.values))
    ]


def _grid(history: History, *, step_s: int = STEP_S) -> Grid:
    return to_grid(history.starts_s, history.ends_s, history.values, min_step_s=step_s)


def _delay(grid: Grid, delay_s: float) -> int:
    return max(0, min(round(delay_s / grid.step_s), grid.steps(EDGES_H[-1] - LEAD_EDGES_H[-1])))


def _rival(rivals: Rivals, name: str) -> Floats:
    values: Floats = getattr(rivals, name)
    return values


def _error(values: Floats, forecasts: Floats) -> float:
    return float(np.nanmean(np.abs(values - forecasts)))


def _scores(proof: Forecasts, lead_h: Floats, rival: Floats) -> list[Score]:
    known = np.isfinite(proof.values) & np.isfinite(rival)
    scores = []
    for over_h, up_to_h in pairwise(LEAD_EDGES_H):
        mine = known & (lead_h > over_h) & (lead_h <= up_to_h)
        if mine.any():
            values, found = proof.values[mine], proof.found
            inside = (values >= found.p10[mine]) & (values <= found.p90[mine])
            scores.append(
                Score(
                    over_h,
                    up_to_h,
                    int(mine.sum()),
                    _error(values, found.p50[mine]),
                    _error(values, rival[mine]),
                    float(inside.mean()),
                )
            )
    return scores
