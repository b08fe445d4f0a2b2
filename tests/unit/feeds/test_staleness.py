from datetime import UTC, datetime, timedelta

from pals_grid.core.series import Observation, ValueKind
from pals_grid.feeds.staleness import Freshness, assess_freshness

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


def value(start_h: float, hours: float, amount: float = 1.0) -> Observation:
    start_at = NOW + timedelta(hours=start_h)
    end_at = start_at + timedelta(hours=hours)
    return Observation(start_at, end_at, amount, "EUR/MWh", ValueKind.MEASURED, NOW)


def assess(*values: Observation, ago_s: float | None = 60) -> Freshness:
    success_at = None if ago_s is None else NOW - timedelta(seconds=ago_s)
    return assess_freshness(values, NOW, last_success_at=success_at, stale_after_s=3600)


def test_what_holds_now_and_how_much_of_the_day_ahead_is_covered() -> None:
    found = assess(value(-1, 2), value(1, 5))
    assert found.current == found.last_good == value(-1, 2)
    assert (found.age_s, found.stale) == (60.0, False)
    assert found.coverage_24h_ratio == 6 / 24


def test_the_last_good_value_stays_when_nothing_holds_now() -> None:
    found = assess(value(-5, 1), value(-3, 1), value(2, 1))
    assert found.current is None
    assert found.last_good == value(-3, 1)


def test_without_a_good_answer_for_too_long_it_is_stale() -> None:
    assert not assess(ago_s=3600).stale
    assert assess(ago_s=3601).stale
    never = assess(ago_s=None)
    assert (never.stale, never.age_s, never.current, never.last_good) == (True, None, None, None)
    assert never.coverage_24h_ratio == 0.0
