"""What the site may draw in each interval, before any thought of cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.intervals import Interval


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that the site may draw; ``event`` is the one that sets it, if one does."""

    limit_w: float
    event: DemandResponseEvent | None = None


def caps_for(
    intervals: Iterable[Interval],
    grid_connection_w: float,
    events: Iterable[DemandResponseEvent],
) -> list[Cap]:
    """Cap of each interval: the grid connection, or the lowest event limit that touches it."""
    stairs = [
        (interval, limit_w, event)
        for event in events
        for interval, limit_w in event.limits(grid_connection_w)
    ]
    caps = []
    for interval in intervals:
        cap = Cap(grid_connection_w)
        for stair, limit_w, event in stairs:
            if limit_w < cap.limit_w and interval.overlap_s(stair) > 0:
                cap = Cap(limit_w, event)
        caps.append(cap)
    return caps
