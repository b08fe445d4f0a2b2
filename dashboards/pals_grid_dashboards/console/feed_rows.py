"""Feeds: last value, age, coverage, and their state in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.words import QUANTITIES, Label, kind_label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pals_grid.core.series import Observation
    from pals_grid.service.feeds import FeedView

LOW_COVERAGE_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class FeedRow:
    """A feed as its row shows it; ``error`` is the provider's own text.

    ``last_value`` is there when none holds now; ``value_until`` is the end of either.
    """

    id: int
    name: str
    connector: str
    quantity: str
    value: str
    last_value: str | None
    value_until: datetime | None
    kinds: tuple[Label, ...]
    age_s: float | None
    coverage_24h_ratio: float
    state: Label
    error: str | None
    failures: int
    invalid_total: int
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    next_attempt_at: datetime | None
    poll_s: float
    stale_after_s: float


def feed_rows(views: Iterable[FeedView]) -> tuple[FeedRow, ...]:
    """Rows in the order given."""
    return tuple(feed_row(view) for view in views)


def feed_row(view: FeedView) -> FeedRow:
    """One feed's row."""
    current, latest, health = view.current, view.latest, view.health
    return FeedRow(
        id=view.feed.id,
        name=view.feed.name,
        connector=view.feed.connector,
        quantity=QUANTITIES[view.feed.quantity],
        value=value_text(current),
        last_value=value_text(latest) if latest and not current else None,
        value_until=latest.end_at if latest else None,
        kinds=(kind_label(latest.kind),) if latest else (),
        age_s=view.age_s,
        coverage_24h_ratio=view.coverage_24h_ratio,
        state=feed_state(view),
        error=health.last_error,
        failures=health.consecutive_failures,
        invalid_total=health.invalid_total,
        last_attempt_at=health.last_attempt_at,
        last_success_at=health.last_success_at,
        next_attempt_at=health.next_attempt_at,
        poll_s=view.feed.poll_s,
        stale_after_s=view.feed.stale_after_s,
    )


def value_text(item: Observation | None) -> str:
    """A value with its unit."""
    if item is None:
        return formats.UNKNOWN
    decimals = 2 if item.unit.endswith("/MWh") else 0
    unit = item.unit.replace("CO2eq", "CO₂")
    return formats.with_unit(formats.number(item.value, decimals), unit)


def feed_state(view: FeedView) -> Label:
    """State in words: what is wrong, and what holds meanwhile."""
    health = view.health
    if health.last_attempt_at is None:
        return Label("Waiting for its first fetch", "quiet")
    fallback = "last good values stay in use" if view.latest else "no value to fall back on yet"
    if health.consecutive_failures:
        return _failure_label(view, fallback)
    if view.stale:
        return Label("Stale", "warn", f"no good answer for too long; {fallback}")
    if view.latest is None:
        return Label("No values yet", "warn", "the provider answered with nothing")
    return _value_label(view)


def _failure_label(view: FeedView, fallback: str) -> Label:
    kind = view.health.last_error_kind or ""
    if kind == "FeedRejected":
        text = "Refused by the provider"
        return Label(text, "bad", f"its settings must be changed; {fallback}")
    words = {"FeedUnavailable": "Not answering", "FeedDataInvalid": "Answer not valid"}
    tone = "bad" if view.stale or view.current is None else "warn"
    return Label(words.get(kind, "Failing"), tone, f"will be tried again; {fallback}")


def _value_label(view: FeedView) -> Label:
    if view.current is None:
        return Label("No value for now", "warn", "values are stored, but none holds now")
    if view.coverage_24h_ratio < LOW_COVERAGE_RATIO:
        return Label("Working", "good", "less than half of the next 24 h is known yet")
    return Label("Working", "good")
