"""How much a feed's values can be relied on now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval
from pals_grid.core.series import ValueKind, coverage_ratio
from pals_grid.feeds.slotting import best_values

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.core.ports import Rhythm
    from pals_grid.core.series import Observation

DAY = timedelta(hours=24)
OWN_KINDS = frozenset({ValueKind.MEASURED, ValueKind.FORECAST, ValueKind.SYNTHETIC})
"""Kinds of values that come from a provider."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a feed gives now.

    ``current`` holds now, ``last_good`` now or most lately before. ``age_s`` is the time since
    the last good answer, None before the first. The coverages are the shares of the next 24 and
    48 h that have a value. ``stale``: no good answer for too long, so plans rest on old ones.
    Only what the provider itself said counts, nothing that was modelled in its place.
    """

    current: Observation | None
    last_good: Observation | None
    age_s: float | None
    coverage_24h_ratio: float
    coverage_48h_ratio: float
    stale: bool


def assess_freshness(
    observations: Iterable[Observation],
    now: datetime,
    *,
    last_success_at: datetime | None,
    stale_after_s: float,
) -> Freshness:
    """Judge a feed by its stored values and the time of its last good answer."""
    values = best_values(item for item in observations if item.kind in OWN_KINDS)
    begun = [item for item in values if item.start_at <= now]
    last_good = begun[-1] if begun else None
    current = last_good if last_good is not None and last_good.end_at > now else None
    age_s = None if last_success_at is None else (now - last_success_at).total_seconds()
    return Freshness(
        current=current,
        last_good=last_good,
        age_s=age_s,
        coverage_24h_ratio=coverage_ratio(values, Interval(now, now + DAY)),
        coverage_48h_ratio=coverage_ratio(values, Interval(now, now + 2 * DAY)),
        stale=age_s is None or age_s > stale_after_s,
    )


def new_values_due_at(rhythm: Rhythm, last_new_at: datetime, poll_s: float) -> datetime:
    """When values newer than those of ``last_new_at`` should have been seen at the latest.

    A feed that is asked less often than its provider publishes is expected in its own rhythm.
    """
    return last_new_at + timedelta(seconds=max(rhythm.every_s, poll_s) + rhythm.late_s)
