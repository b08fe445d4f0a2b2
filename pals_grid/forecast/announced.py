"""Since when the values of a series are known that is published before its time."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pals_grid.forecast.issued import Announced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.forecast.issued import History

RECENT = 28
MIN_AHEAD_S = 6 * 3600.0
"""Half of the hours have to be known so long before, or the series announces nothing."""


def announce(history: History, known_s: Sequence[float], zone: str) -> Announced | None:
    """Tell since when each value was known; None for a series that is not known before its time.

    ``known_s`` is when each was first fetched, or published where its provider says so. What was
    fetched afterwards, as by a backfill, counts as known as long before as values of the same
    local hour usually are: all but a fifth of the latest 28 that were there before their time.
    """
    local = ZoneInfo(zone)
    hours = [datetime.fromtimestamp(s, UTC).astimezone(local).hour for s in history.starts_s]
    ahead: dict[int, list[tuple[float, float]]] = {}
    for hour, start_s, at_s in zip(hours, history.starts_s, known_s, strict=True):
        if at_s < start_s:
            ahead.setdefault(hour, []).append((start_s, start_s - at_s))
    usual = {hour: _usual([lead for _, lead in sorted(found)]) for hour, found in ahead.items()}
    if not usual or median(usual.get(hour, 0.0) for hour in range(24)) < MIN_AHEAD_S:
        return None
    since_s = [
        min(at_s, start_s - usual.get(hour, 0.0))
        for hour, start_s, at_s in zip(hours, history.starts_s, known_s, strict=True)
    ]
    return Announced(history.starts_s, history.ends_s, history.values, since_s)


def _usual(leads_s: Sequence[float]) -> float:
    latest = sorted(leads_s[-RECENT:])
    return latest[len(latest) // 5]
