from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.series import (
    Observation,
    ValueKind,
    coverage_ratio,
    last_of_kind,
    mean_over,
    merge_kinds,
    touching,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def observe(
    hour: int, value: float, kind: ValueKind = ValueKind.FORECAST, known_hour: int = 0
) -> Observation:
    start_at = NOON + HOUR * hour
    return Observation(start_at, start_at + HOUR, value, "EUR/MWh", kind, NOON + HOUR * known_hour)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(InvalidValue, match="value: must be finite"):
        observe(0, value)


def test_measured_beats_forecast_beats_synthetic_whatever_came_last() -> None:
    items = [
        observe(0, 1.0, ValueKind.SYNTHETIC, 9),
        observe(0, 2.0, ValueKind.FORECAST, 1),
        observe(0, 3.0, ValueKind.FORECAST, 2),
        observe(0, 4.0, ValueKind.MEASURED, 0),
    ]
    for order in permutations(items):
        assert [item.value for item in merge_kinds(order)] == [4.0]
        rest = [item for item in order if item.kind is not ValueKind.MEASURED]
        assert [item.value for item in merge_kinds(rest)] == [3.0]


def test_merged_values_are_in_order_of_time() -> None:
    assert [item.value for item in merge_kinds([observe(2, 2.0), observe(0, 0.0)])] == [0.0, 2.0]


def test_the_mean_weighs_by_time_and_ignores_what_is_not_covered() -> None:
    items = [observe(0, 10.0), observe(1, 40.0)]
    half = timedelta(minutes=30)
    assert mean_over(items, Interval(NOON + half, NOON + 2 * HOUR)) == pytest.approx(30.0)
    assert mean_over(items, Interval(NOON + HOUR, NOON + 9 * HOUR)) == 40.0
    assert mean_over(items, Interval(NOON + 5 * HOUR, NOON + 9 * HOUR)) is None


def test_coverage_is_the_share_of_time() -> None:
    day = Interval(NOON, NOON + 4 * HOUR)
    assert coverage_ratio([observe(0, 1.0), observe(3, 1.0), observe(7, 1.0)], day) == 0.5
    assert coverage_ratio([], day) == 0


def test_what_only_meets_a_window_does_not_touch_it() -> None:
    items = [observe(hour, float(hour)) for hour in (3, 0, 1, 2)]
    window = Interval(NOON + HOUR, NOON + HOUR * 2.5)
    assert [item.value for item in touching(items, window)] == [1.0, 2.0]


def test_of_each_kind_the_last_value_stays() -> None:
    items = [
        observe(1, 1.0),
        observe(0, 2.0, known_hour=2),
        observe(0, 3.0, known_hour=1),
        observe(0, 4.0, ValueKind.MEASURED),
    ]
    assert [item.value for item in last_of_kind(items)] == [3.0, 4.0, 1.0]
