"""The limit that was in force over time, from plans that each replaced the one before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.budget import BudgetInterval, Plan


def in_force(plans: Sequence[Plan], window: Interval) -> list[BudgetInterval]:
    """Join plans (oldest first): each holds from its making until the next was made.

    Neighbours that one plan's slot was cut into by a plan with the same limit and reason are
    joined again.
    """
    pieces: list[BudgetInterval] = []
    for i, plan in enumerate(plans):
        last = i == len(plans) - 1
        until = window.end_at if last else min(window.end_at, plans[i + 1].created_at)
        since = max(window.start_at, plan.created_at)
        if since < until:
            pieces += _clipped(plan, Interval(since, until))
    joined: list[BudgetInterval] = []
    for piece in pieces:
        if joined and _continues(joined[-1], piece):
            whole = Interval(joined[-1].interval.start_at, piece.interval.end_at)
            joined[-1] = dataclasses.replace(piece, interval=whole)
        else:
            joined.append(piece)
    return joined


def _clipped(plan: Plan, window: Interval) -> list[BudgetInterval]:
    return [
        dataclasses.replace(
            item,
            interval=Interval(
                max(item.interval.start_at, window.start_at),
                min(item.interval.end_at, window.end_at),
            ),
        )
        for item in plan.budget.intervals
        if window.overlap_s(item.interval) > 0
    ]


def _continues(before: BudgetInterval, after: BudgetInterval) -> bool:
    same = dataclasses.replace(before, interval=after.interval) == after
    return same and before.interval.end_at == after.interval.start_at
