from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pals_grid.core.intervals import Interval
from pals_grid.forecast.seasonal import forecast_demand

NOW = datetime(2026, 3, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOTS = [Interval(NOW + HOUR * k, NOW + HOUR * (k + 1)) for k in range(30)]


def history(days: int) -> list[tuple[datetime, float]]:
    """Each day is 10 tokens/s above the day before it, and each hour 1 above the last."""
    start_at = NOW - timedelta(days=days)
    return [(start_at + HOUR * k, 10.0 * (k // 24) + k % 24) for k in range(24 * days)]


def test_the_same_time_of_day_is_averaged_over_the_days_that_there_are() -> None:
    forecast = forecast_demand(history(2), SLOTS, 99.0)
    assert forecast == [5.0 + hour % 24 for hour in range(30)]


def test_no_more_than_seven_days_are_looked_at() -> None:
    forecast = forecast_demand(history(9), SLOTS[:1], 99.0)
    assert forecast == [pytest.approx(sum(10.0 * day for day in range(2, 9)) / 7)]


def test_order_does_not_matter() -> None:
    known = history(2)
    assert forecast_demand(known[::-1], SLOTS, 0.0) == forecast_demand(known, SLOTS, 0.0)


def test_an_hour_that_no_day_has_seen_gets_the_mean_of_the_last_hours() -> None:
    young = [(NOW - HOUR * k, float(k)) for k in range(1, 6)]
    assert forecast_demand(young, SLOTS[:1], 99.0) == [pytest.approx((1 + 2 + 3 + 4) / 4)]


def test_without_history_the_default_holds() -> None:
    assert forecast_demand([], SLOTS[:2], 99.0) == [99.0, 99.0]
