"""How much a feed's values can be relied on now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval
from pals_grid.core.series import coverage_ratio
from pals_grid.feeds.slotting import best_values

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.core.series import Observation


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a feed gives now.

    ``current`` holds now, ``last_good`` now or most lately before. ``age_s`` is the time since
    the last good answer, None before the first. ``coverage_ratio`` is the share of the time
    ahead that has a value. ``stale``: no good answer for too long, so plans rest on old ones.
    """

    current: Observation | None
    last_good: Observation | None
    age_s: float | None
    coverage_ratio: float
    stale: bool


def assess_freshness(
    observations: Iterable[Observation],
    now: datetime,
    *,
    last_success_at: datetime | None,
    stale_after_s: float,
    ahead: timedelta = timedelta(hours=24),
) -> Freshness:
    """Judge a feed by its stored values and the time of its last good answer."""
    values = best_values(observations)
    begun = [item for item in values if item.start_at <= now]
    last_good = begun[-1] if begun else None
    current = last_good if last_good is not None and last_good.end_at > now else None
    age_s = None if last_success_at is None else (now - last_success_at).total_seconds()
    return Freshness(
        current=current,
        last_good=last_good,
        age_s=age_s,
        coverage_ratio=coverage_ratio(values, Interval(now, now + ahead)),
        stale=age_s is None or age_s > stale_after_s,
    )
