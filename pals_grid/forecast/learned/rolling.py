"""Rolling-origin forecasts: every one made from what was known at its origin, then compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.forecast.learned.conformal import WINDOW_DAYS, fit_widths
from pals_grid.forecast.learned.features import Features, Rivals
from pals_grid.forecast.learned.mixing import RIVALS, fit_shares
from pals_grid.forecast.learned.model import MIN_FIT_DAYS, Quantiles, fit_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pals_grid.forecast.issued import Announced
    from pals_grid.forecast.learned.grid import Bools, Floats, Grid, Ints
    from pals_grid.forecast.learned.model import Model

HOLD_OUT_DAYS = 28
MIN_DAYS = MIN_FIT_DAYS + HOLD_OUT_DAYS
"""History that a first model needs: 28 days to learn from, 28 to prove itself on."""
RETRAIN_DAYS = 91


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts beside what came; ``origin`` is the first step not known, ``lead`` counts from it.

    ``lead`` 1 is the step that begins at the origin. ``values`` are NaN where none came. ``alone``
    is the model's median without the rival.
    """

    origin: Ints
    lead: Ints
    found: Quantiles
    values: Floats
    rivals: Rivals
    alone: Floats

    def select(self, mine: Bools) -> Forecasts:
        """Rows where ``mine`` is true."""
        return Forecasts(
            self.origin[mine],
            self.lead[mine],
            _rows(self.found, mine),
            self.values[mine],
            Rivals(self.rivals.day[mine], self.rivals.week[mine], self.rivals.days7[mine]),
            self.alone[mine],
        )


def forecast_over(
    model: Model, features: Features, origins: Ints, leads: Sequence[int], delay: int = 0
) -> Forecasts:
    """Forecast every lead from every origin; the last ``delay`` steps before it are not known."""
    origin = np.repeat(origins, len(leads))
    lead = np.tile(np.asarray(leads, dtype=np.int64), len(origins))
    known, ahead = origin - 1 - delay, lead + delay
    found = model.predict(features, known, ahead)
    targets, rivals = features.targets(known, ahead), features.rivals(known, ahead)
    return Forecasts(origin, lead, found, targets, rivals, found.p50)


def roll(  # noqa: PLR0913 - each is one setting of the comparison
    grid: Grid,
    *,
    zone: str,
    first: int,
    leads: Sequence[int],
    stride: int,
    delay: int = 0,
    retrain_days: int = RETRAIN_DAYS,
    announced: Announced | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Forecasts:
    """Forecast from origins ``first``, ``first + stride`` ... to the end of the series.

    The model is fitted anew every ``retrain_days`` on what is known by then; its shares of the
    median follow from the 28 days before that (of the first, from a hold-out). P10 and P90 are
    calibrated once a day on the forecasts of the last 56 days whose values had come; the first
    days on a hold-out before ``first``. Nothing after an origin is read for it, except to compare;
    of ``announced`` what was known by then.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
        InvalidValue: with too little history before ``first``.
    """
    day = grid.day
    held = min(HOLD_OUT_DAYS * day, first // 3)
    if first < MIN_DAYS * day:
        bound = f"must be {MIN_DAYS} days or more before the first forecast"
        raise InvalidValue("history", f"{first / day:.1f} days", bound)
    features = Features(grid, zone, announced)
    edges = [first - held, *range(first, len(grid.values), retrain_days * day), len(grid.values)]
    parts = []
    for number, (begin, end) in enumerate(pairwise(edges)):
        model = fit_model(features, begin - delay)
        origins = np.arange(begin + (-(begin - first)) % stride, end, stride)
        parts.append(forecast_over(model, features, origins, leads, delay))
        progress((number + 1) / (len(edges) - 1))
    mixed = _mix(_join(parts), grid, edges, delay)
    calibrated = _calibrate_daily(mixed, grid, delay)
    return calibrated.select(calibrated.origin >= first)


def train(
    grid: Grid,
    *,
    zone: str,
    leads: Sequence[int],
    delay: int,
    announced: Mapping[str, Announced] | None = None,
) -> tuple[Model, Forecasts, str]:
    """Prove a model on the last 28 days, then fit it on all; the forecasts are of the hold-out.

    Of models told what each of ``announced`` says, and of one told nothing (named ""), the one
    that was off by least there. The hold-out's forecasts are as the model gave them, for
    ``fit_shares`` and ``fit_widths``. Also returns the name.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
        InvalidValue: with under 56 days of history.
    """
    count, day = len(grid.values), grid.day
    if count < MIN_DAYS * day:
        raise InvalidValue("history", f"{count / day:.1f} days", f"must be {MIN_DAYS} or more")
    begin = count - HOLD_OUT_DAYS * day
    origins = np.arange(begin, count, grid.steps(1))

    def prove(features: Features) -> Forecasts:
        model = fit_model(features, begin - delay)
        proof = forecast_over(model, features, origins, leads, delay)
        return proof.select(np.isfinite(proof.values))

    tellers: dict[str, Announced | None] = {"": None, **(announced or {})}
    rivals = {name: Features(grid, zone, teller) for name, teller in tellers.items()}
    proofs = {name: prove(features) for name, features in rivals.items()}
    best = min(proofs, key=lambda name: _mean_error(proofs[name]))
    return fit_model(rivals[best], count), proofs[best], best


def _mean_error(made: Forecasts) -> float:
    return float(np.abs(made.values - made.found.p50).mean())


def _mix(made: Forecasts, grid: Grid, edges: Sequence[int], delay: int) -> Forecasts:
    """Mix what each model said with the rival, by what had come when it was fitted.

    ``edges`` are the first origins of each model; the first one's is the hold-out.
    """
    lead_h = made.lead * grid.step_s / 3600
    target = made.origin + made.lead - 1
    p10, p50, p90 = (values.copy() for values in (made.found.p10, made.found.p50, made.found.p90))
    for number, (begin, end) in enumerate(pairwise(edges)):
        known = (edges[1] if number == 0 else begin) - delay
        seen = np.flatnonzero((made.origin >= known - HOLD_OUT_DAYS * grid.day) & (target < known))
        rival = getattr(made.rivals, better_rival(made, seen, RIVALS))
        shares = fit_shares(made.alone[seen], made.values[seen], rival[seen], lead_h[seen])
        mine = np.flatnonzero((made.origin >= begin) & (made.origin < end))
        mixed = shares.apply(_rows(made.found, mine), rival[mine], lead_h[mine])
        p10[mine], p50[mine], p90[mine] = mixed.p10, mixed.p50, mixed.p90
    return replace(made, found=Quantiles(p10, p50, p90))


def better_rival(made: Forecasts, mine: Ints, names: Sequence[str]) -> str:
    """Name of the rival with the least error over rows whose values have come."""

    def error(name: str) -> float:
        return float(np.nanmean(np.abs(made.values[mine] - getattr(made.rivals, name)[mine])))

    return min(names, key=error)


def _calibrate_daily(made: Forecasts, grid: Grid, delay: int) -> Forecasts:
    day = grid.day
    lead_h = made.lead * grid.step_s / 3600
    target = made.origin + made.lead - 1
    order = np.argsort(target, kind="stable")
    ordered = target[order]
    p10, p50, p90 = (values.copy() for values in (made.found.p10, made.found.p50, made.found.p90))
    first, last = int(made.origin.min()), int(made.origin.max())
    for begin in range(first, last + 1, day):
        low, high = np.searchsorted(ordered, [begin - delay - WINDOW_DAYS * day, begin - delay])
        seen = order[low:high]
        widths = fit_widths(_rows(made.found, seen), made.values[seen], lead_h[seen])
        today = np.flatnonzero((made.origin >= begin) & (made.origin < begin + day))
        now = widths.apply(_rows(made.found, today), lead_h[today])
        p10[today], p90[today] = now.p10, now.p90
    return replace(made, found=Quantiles(p10, p50, p90))


def _rows(found: Quantiles, mine: Ints | Bools) -> Quantiles:
    return Quantiles(found.p10[mine], found.p50[mine], found.p90[mine])


def _join(parts: Sequence[Forecasts]) -> Forecasts:
    def all_of(name: str) -> Floats:
        return np.concatenate([getattr(part.found, name) for part in parts])

    def rival(name: str) -> Floats:
        return np.concatenate([getattr(part.rivals, name) for part in parts])

    return Forecasts(
        np.concatenate([part.origin for part in parts]),
        np.concatenate([part.lead for part in parts]),
        Quantiles(all_of("p10"), all_of("p50"), all_of("p90")),
        np.concatenate([part.values for part in parts]),
        Rivals(rival("day"), rival("week"), rival("days7")),
        np.concatenate([part.alone for part in parts]),
    )
