from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pals_grid_dashboards.console.chart_data import (
    epoch_s,
    event_bands,
    power_series,
    sampled,
    signal_series,
    stepped,
)

from pals_grid.core.budget import BudgetInterval, Reason
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, Quantity, ValueKind

T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)


def _slot(k: int) -> Interval:
    return Interval(T0 + HALF_HOUR * k, T0 + HALF_HOUR * (k + 1))


def _value(k: int, value: float, kind: ValueKind) -> Observation:
    return Observation(_slot(k).start_at, _slot(k).end_at, value, "GBP/MWh", kind, T0)


def _budget(k: int, limit_w: float) -> BudgetInterval:
    return BudgetInterval(
        interval=_slot(k),
        limit_w=limit_w,
        reason=Reason.DEMAND,
        explanation="",
        price_per_mwh=None,
        carbon_g_per_kwh=None,
        demand_tokens_per_s=0,
        planned_tokens_per_s=0,
        expected_power_w=limit_w / 2,
    )


def test_a_stair_ends_where_its_last_interval_ends_and_breaks_at_a_gap() -> None:
    x, y = stepped([(_slot(0), 1.0), (_slot(1), 2.0), (_slot(3), 3.0)])
    start = epoch_s(T0)
    assert x == [start + s for s in (0, 1800, 3600, 3601, 5400, 7200, 7201)]
    assert y == [1.0, 2.0, 2.0, None, 3.0, 3.0, None]
    assert all(a < b for a, b in pairwise(x))


def test_a_line_breaks_where_samples_are_missing() -> None:
    minutes = [0, 1, 2, 10, 11]
    x, y = sampled([(T0 + timedelta(minutes=m), float(m)) for m in minutes], 60.0)
    assert y == [0.0, 1.0, 2.0, None, 10.0, 11.0]
    assert x[0] == epoch_s(T0) + 30
    assert all(a < b for a, b in pairwise(x))


def test_power_is_in_kilowatts_and_expected_only_ahead() -> None:
    budget = [_budget(0, 4000.0), _budget(1, 6000.0)]
    limit, expected, draw = power_series(
        budget, [(T0, 3000.0)], step_s=60, origin="simulated", now=T0 + HALF_HOUR
    )
    assert limit["y"] == [4.0, 6.0, 6.0, None]
    assert expected["y"] == [3.0, 3.0, None]
    assert draw["y"] == [3.0]
    assert draw["label"] == "Node power (simulated)"


def test_each_kind_of_value_is_its_own_line_and_the_best_kind_wins() -> None:
    values = [
        _value(0, 10.0, ValueKind.MEASURED),
        _value(0, 99.0, ValueKind.SYNTHETIC),
        _value(1, 20.0, ValueKind.SYNTHETIC),
    ]
    series = signal_series(Quantity.PRICE, values, Interval(T0, T0 + 2 * HALF_HOUR))
    assert [(item["label"], item["dash"], item["y"][0]) for item in series] == [
        ("Feed price (final)", "solid", 10.0),
        ("Feed price (synthetic)", "dotted", 20.0),
    ]
    assert (
        signal_series(Quantity.PRICE, values, Interval(T0 + 9 * HALF_HOUR, T0 + 10 * HALF_HOUR))
        == []
    )


def test_only_events_that_hold_are_shaded() -> None:
    order = EventRequest("Peak", T0, T0 + HALF_HOUR, limit_w=1.0)
    held = DemandResponseEvent(1, 1, 1, EventStatus.SCHEDULED, order, 2.0, Origin.MEASURED, T0)
    off = DemandResponseEvent(2, 1, 2, EventStatus.CANCELLED, order, 2.0, Origin.MEASURED, T0, T0)
    window = Interval(T0, T0 + 2 * HALF_HOUR)
    bands = event_bands([held, off], window)
    assert [band["label"] for band in bands] == ["Peak"]
    assert event_bands([held], Interval(T0 + HALF_HOUR, T0 + 2 * HALF_HOUR)) == []
