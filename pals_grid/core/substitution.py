"""Which parts of a plan rest on a substitute, of what kind, and why: in data and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.fallback import Absence, SourceKind
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from pals_grid.core.budget import BudgetInterval
    from pals_grid.core.fallback import SlotSource


@dataclass(frozen=True, slots=True)
class Substitution:
    """One signal over consecutive intervals of a plan that rest on the same substitute."""

    quantity: Quantity
    interval: Interval
    source: SlotSource


def find_substitutions(budget: Iterable[BudgetInterval]) -> tuple[Substitution, ...]:
    """Substitutions of a plan: price first, then carbon, each by time, neighbours joined."""
    intervals = tuple(budget)
    found: list[Substitution] = []
    for quantity in (Quantity.PRICE, Quantity.AVERAGE_INTENSITY):
        for item in intervals:
            source = source_of(item, quantity)
            if source is not None and source.is_substitute:
                _join(found, Substitution(quantity, item.interval, source))
    return tuple(found)


def substitute_ratio(
    budget: Iterable[BudgetInterval], quantity: Quantity, now: datetime
) -> float | None:
    """Share of a plan's time from ``now`` on that rests on a substitute, 0 to 1.

    None where the plan has no value of that signal at all ahead.
    """
    ahead = [item for item in budget if item.interval.end_at > now]
    sources = [(item.interval.duration_s, source_of(item, quantity)) for item in ahead]
    whole_s = sum(duration_s for duration_s, _ in sources)
    if all(source is None for _, source in sources):
        return None
    replaced_s = sum(seconds for seconds, source in sources if source and source.is_substitute)
    return replaced_s / whole_s


def source_of(item: BudgetInterval, quantity: Quantity) -> SlotSource | None:
    """Where an interval's signal comes from; None where there is none."""
    return item.price_source if quantity is Quantity.PRICE else item.carbon_source


def source_words(source: SlotSource) -> str:
    """Say what stands in: ``from last week``, ``from feed second``, ``a constant 80 EUR/MWh``."""
    if source.kind is SourceKind.LAST_WEEK:
        weeks = source.weeks_back
        return "from last week" if weeks == 1 else f"from {weeks} weeks ago"
    if source.kind is SourceKind.FEED:
        return f"from feed {source.feed}"
    if source.kind is SourceKind.MODEL:
        return f"from our model of {source.feed}"
    if source.kind is SourceKind.CONSTANT:
        return f"a constant {source.value:g} {source.unit}"
    return f"from {source.feed}"


def absence_words(source: SlotSource, show: Callable[[datetime], str]) -> str:
    """Say why the primary is not used; ``show`` writes an instant."""
    if source.absence is Absence.SILENT and source.silent_since_at is not None:
        return f"{source.primary} has been silent since {show(source.silent_since_at)}"
    words = {
        Absence.NEVER_ANSWERED: "has not answered yet",
        Absence.NOT_CONVERTIBLE: "is in a currency that no tariff converts",
    }
    why = words.get(source.absence or Absence.NOT_PUBLISHED, "has no value yet")
    return f"{source.primary} {why}"


def _join(found: list[Substitution], item: Substitution) -> None:
    last = found[-1] if found else None
    if (
        last is not None
        and last.quantity is item.quantity
        and last.interval.end_at == item.interval.start_at
        and last.source.same_as(item.source)
    ):
        found[-1] = Substitution(
            item.quantity, Interval(last.interval.start_at, item.interval.end_at), last.source
        )
        return
    found.append(item)
