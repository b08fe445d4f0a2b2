"""Seasonal-naive demand: tomorrow at noon is as the last days at noon."""

from __future__ import annotations

from bisect import bisect_left
from datetime import timedelta
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval

HISTORY_DAYS = 7
RECENT = timedelta(hours=3)


def forecast_demand(
    history: Sequence[tuple[datetime, float]],
    slots: Sequence[Interval],
    default_tokens_per_s: float,
) -> list[float]:
    """Expected output tokens/s of each slot.

    The mean of what was served at the same UTC time of day over the last 7 days before the
    slot; where no day has it, the mean of the last 3 hours of the history; without any history,
    ``default_tokens_per_s``. Daylight saving shifts the pattern by an hour for a week, and
    weekends are not told apart.

    Args:
        history: ``(start_at, tokens_per_s)``, equally long steps, in any order.
        slots: what to forecast; no longer than a day each.
        default_tokens_per_s: used when there is no history at all.
    """
    ordered = sorted(history)
    starts = [start_at for start_at, _ in ordered]
    rates = [rate for _, rate in ordered]

    def between(start_at: datetime, end_at: datetime) -> list[float]:
        return rates[bisect_left(starts, start_at) : bisect_left(starts, end_at)]

    recent = between(starts[-1] - RECENT, starts[-1]) + rates[-1:] if starts else []
    fallback = fmean(recent) if recent else default_tokens_per_s
    forecast = []
    for slot in slots:
        seen: list[float] = []
        for days in range(1, HISTORY_DAYS + 1):
            back = timedelta(days=days)
            seen += between(slot.start_at - back, slot.end_at - back)
        forecast.append(fmean(seen) if seen else fallback)
    return forecast
