"""What stands in for a feed, in words: its chain, and the parts of a plan that rest on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.fallback import FromFeed, FromLastWeek
from pals_grid.core.series import Quantity
from pals_grid.core.substitution import absence_words, source_words
from pals_grid_dashboards.console.words import Label

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.budget import Plan
    from pals_grid.core.fallback import Fallback
    from pals_grid.core.feed import Feed
    from pals_grid_dashboards.console.local_time import LocalTime

SUBSTITUTE = Label("substitute", "note", "stands in for a feed that has no value here")
_NAMES = {Quantity.PRICE: "Price", Quantity.AVERAGE_INTENSITY: "Carbon"}


@dataclass(frozen=True, slots=True)
class SubstitutionRow:
    """One part of a plan: ``Price 18:00-19:00 from last week: day-ahead has no value yet``."""

    name: str
    start_at: datetime
    end_at: datetime
    words: str
    why: str
    primary: str


def substitution_rows(plan: Plan | None, local: LocalTime) -> tuple[SubstitutionRow, ...]:
    """Substitutions of a plan that are not over yet; none without a plan."""
    if plan is None:
        return ()
    return tuple(
        SubstitutionRow(
            name=_NAMES[item.quantity],
            start_at=item.interval.start_at,
            end_at=item.interval.end_at,
            words=source_words(item.source),
            why=absence_words(item.source, local.clock),
            primary=item.source.primary,
        )
        for item in plan.substitutions
        if item.interval.end_at > local.now
    )


def fallback_words(feed: Feed) -> tuple[str, ...]:
    """A feed's chain, one entry after the other."""
    unit = "/MWh" if feed.quantity is Quantity.PRICE else " gCO₂/kWh"
    return tuple(_words(item, unit) for item in feed.fallbacks)


def _words(item: Fallback, unit: str) -> str:
    if isinstance(item, FromFeed):
        return f"feed {item.feed}"
    if isinstance(item, FromLastWeek):
        return "last week" if item.weeks == 1 else f"last week, up to {item.weeks} weeks back"
    return f"a constant {item.value:g}{unit}"
