"""Feeds: last value, age, coverage, and their state in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.feed import BreakerState
from pals_grid.core.series import Quantity
from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.substitutes import fallback_words
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

    ``last_value`` is there when none holds now; ``value_until`` is the end of either. ``alert``
    says what is wrong with it in a line, None while nothing is; ``notes`` are about its provider.
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
    coverage_48h_ratio: float
    state: Label
    alert: str | None
    notes: tuple[str, ...]
    every_s: float | None
    new_due_at: datetime | None
    last_new_at: datetime | None
    late: bool
    credit_left: float | None
    error: str | None
    failures: int
    invalid_total: int
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    next_attempt_at: datetime | None
    poll_s: float
    stale_after_s: float
    fallbacks: tuple[str, ...]


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
        coverage_48h_ratio=view.coverage_48h_ratio,
        state=feed_state(view),
        alert=feed_alert(view),
        notes=provider_notes(view),
        every_s=view.rhythm.every_s if view.rhythm else None,
        new_due_at=view.new_due_at,
        last_new_at=health.last_new_at,
        late=view.late,
        credit_left=health.credit_left,
        error=health.last_error,
        failures=health.consecutive_failures,
        invalid_total=health.invalid_total,
        last_attempt_at=health.last_attempt_at,
        last_success_at=health.last_success_at,
        next_attempt_at=health.next_attempt_at,
        poll_s=view.feed.poll_s,
        stale_after_s=view.feed.stale_after_s,
        fallbacks=fallback_words(view.feed),
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
    if view.late:
        return Label("Late", "warn", f"new values are expected every {_every(view)}")
    if view.latest is None:
        return Label("No values yet", "warn", "the provider answered with nothing")
    return _value_label(view)


def feed_alert(view: FeedView) -> str | None:
    """What plans suffer from, in a line: a feed that is stale, or whose values are late."""
    name = view.feed.name
    if view.health.last_attempt_at is None or view.feed.quantity is Quantity.MARGINAL_INTENSITY:
        return None
    if view.age_s is None:
        return f"{name} has never answered: plans go without it"
    if view.stale:
        age = formats.duration(view.age_s)
        rest = "plans rest on old values" if view.latest else "plans go without it"
        return f"{name} is stale, its last good answer {age} old: {rest}"
    if view.late and view.rhythm is not None:
        return f"{name} is late: its provider gives new values every {_every(view)}, and did not"
    return None


def feed_alerts(views: Iterable[FeedView]) -> tuple[str, ...]:
    """The lines of those feeds that have one."""
    return tuple(line for view in views if (line := feed_alert(view)) is not None)


def provider_notes(view: FeedView) -> tuple[str, ...]:
    """What else is to be known of the provider: that it is held back, that its clock is wrong."""
    notes = []
    provider, skew_s = view.provider, view.health.clock_skew_s or 0.0
    if provider is not None and provider.breaker is not BreakerState.CLOSED:
        is_open = provider.breaker is BreakerState.OPEN
        how = "is not asked for now" if is_open else "is to be tried again"
        failed = f"{formats.number(provider.failures)} failures in a row"
        notes.append(f"{provider.key} {how}, after {failed}")
    if view.clock_is_wrong:
        side = "ahead of" if skew_s > 0 else "behind"
        notes.append(f"the provider's clock is {formats.duration(abs(skew_s))} {side} ours")
    return tuple(notes)


def _every(view: FeedView) -> str:
    return formats.duration(view.rhythm.every_s if view.rhythm else None)


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
