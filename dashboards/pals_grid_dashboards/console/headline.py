"""The line at the top: what holds now, why, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.events import EventStatus
from pals_grid_dashboards.console.words import REASONS, Label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.core.budget import BudgetInterval, Plan
    from pals_grid.core.events import DemandResponseEvent
    from pals_grid.core.site import SitePolicy


@dataclass(frozen=True, slots=True)
class BudgetNow:
    """The limit in force; ``until`` is when the plan next changes it."""

    limit_w: float
    reason: str
    explanation: str
    until: datetime | None
    next_limit_w: float | None
    plan_version: int | None


@dataclass(frozen=True, slots=True)
class EventNow:
    """The event that runs, or the next one."""

    event: DemandResponseEvent
    label: Label


def budget_now(plan: Plan | None, policy: SitePolicy, now: datetime) -> BudgetNow:
    """Read the plan at ``now``; without one that covers it the safe limit holds."""
    intervals = plan.budget.intervals if plan else ()
    current = next((item for item in intervals if item.interval.contains(now)), None)
    if current is None:
        reason = "The plan has run out" if plan else "No plan yet"
        held = "The site's configured safe limit holds meanwhile."
        return BudgetNow(policy.safe_limit_w, reason, held, None, None, None)
    change = _next_change(intervals, current)
    return BudgetNow(
        limit_w=current.limit_w,
        reason=REASONS[current.reason],
        explanation=current.explanation,
        until=change.interval.start_at if change else None,
        next_limit_w=change.limit_w if change else None,
        plan_version=plan.version if plan else None,
    )


def _next_change(
    intervals: Iterable[BudgetInterval], current: BudgetInterval
) -> BudgetInterval | None:
    return next(
        (
            item
            for item in intervals
            if item.interval.start_at >= current.interval.end_at
            and abs(item.limit_w - current.limit_w) >= 1.0
        ),
        None,
    )


def event_label(event: DemandResponseEvent, now: datetime) -> Label:
    """Where an event stands on the clock."""
    if event.status is EventStatus.CANCELLED:
        return Label("Cancelled", "quiet")
    if now < event.order.start_at:
        return Label("Scheduled", "note")
    return Label("Active", "warn") if now < event.order.end_at else Label("Ended", "quiet")


def event_now(events: Iterable[DemandResponseEvent], now: datetime) -> EventNow | None:
    """Return the running event, else the next to come, else None."""
    open_events = sorted(
        (
            item
            for item in events
            if item.status is EventStatus.SCHEDULED and item.order.end_at > now
        ),
        key=lambda item: item.order.start_at,
    )
    return EventNow(open_events[0], event_label(open_events[0], now)) if open_events else None
