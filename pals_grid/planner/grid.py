"""The planner's grid: the site's slots, cut where an event changes the limit."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval, floor_to, slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pals_grid.core.budget import PlanSlot
    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.site import SitePolicy


def plan_intervals(
    policy: SitePolicy, planned_at: datetime, events: Iterable[DemandResponseEvent]
) -> tuple[Interval, ...]:
    """Intervals of a plan made at ``planned_at``: in order, without gap, over the whole horizon.

    They begin with the slot that ``planned_at`` lies in and end ``horizon_s`` after it.
    """
    step = timedelta(seconds=policy.slot_s)
    end_at = planned_at + timedelta(seconds=policy.horizon_s)
    grid = slots(floor_to(planned_at, step), end_at, step)
    return cut_intervals(grid, event_edges(events))


def event_edges(events: Iterable[DemandResponseEvent]) -> list[datetime]:
    """Every instant at which some event's limit changes, stairs of the ramps included."""
    return sorted(
        {
            edge
            for event in events
            for interval, _ in event.limits(0.0)
            for edge in (interval.start_at, interval.end_at)
        }
    )


def cut_intervals(intervals: Iterable[Interval], edges: Sequence[datetime]) -> tuple[Interval, ...]:
    """Cut ``intervals`` at those of the sorted ``edges`` that lie strictly inside them."""
    return tuple(
        Interval(start_at, end_at)
        for whole in intervals
        for start_at, end_at in itertools.pairwise(
            (
                whole.start_at,
                *edges[bisect_right(edges, whole.start_at) : bisect_left(edges, whole.end_at)],
                whole.end_at,
            )
        )
    )


def cut_slots(
    plan_slots: Iterable[PlanSlot], events: Iterable[DemandResponseEvent]
) -> tuple[PlanSlot, ...]:
    """Cut slots where an event changes the limit; each part keeps the slot's price and demand."""
    edges = event_edges(events)
    return tuple(
        replace(slot, interval=part)
        for slot in plan_slots
        for part in cut_intervals((slot.interval,), edges)
    )
