"""What the site may draw in each interval, before any thought of cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.budget import Constraint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.intervals import Interval
    from pals_grid.core.site import SitePolicy


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that the site may draw; ``event`` is the one that sets it, if one does."""

    limit_w: float
    constraint: Constraint
    event: DemandResponseEvent | None = None

    @property
    def words(self) -> str:
        """What sets it, as the beginning of a sentence."""
        if self.event is not None:
            return f"Event '{self.event.order.name}'"
        if self.constraint is Constraint.MAXIMUM:
            return "The site's maximum"
        return "The grid connection"


def caps_for(
    intervals: Iterable[Interval], policy: SitePolicy, events: Iterable[DemandResponseEvent]
) -> list[Cap]:
    """Cap of each interval: the policy's, or the lowest event limit that touches it."""
    is_less = policy.limit_w < policy.grid_connection_w
    standing = Cap(policy.limit_w, Constraint.MAXIMUM if is_less else Constraint.GRID_CONNECTION)
    stairs = [
        (interval, limit_w, event)
        for event in events
        for interval, limit_w in event.limits(policy.grid_connection_w)
    ]
    caps = []
    for interval in intervals:
        cap = standing
        for stair, limit_w, event in stairs:
            if limit_w < cap.limit_w and interval.overlap_s(stair) > 0:
                cap = Cap(limit_w, Constraint.EVENT, event)
        caps.append(cap)
    return caps
