from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import BatchWork, PeakCharge
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Fleet, PowerCurve
from pals_grid.core.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
HOUR = Interval(NOW, NOW + timedelta(hours=1))
CURVE = PowerCurve((0.0, 500.0, 800.0), (600.0, 1000.0, 1600.0))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PeakCharge("p", -1.0, (HOUR,)), "price_per_kw"),
        (lambda: PeakCharge("p", 1.0, (HOUR,), math.nan), "reached_w"),
        (lambda: PeakCharge("p", 1.0, (HOUR,), window_s=1.0), "window_s"),
        (lambda: BatchWork("b", math.inf, NOW), "tokens"),
        (lambda: BatchWork("b", 1.0, NOW.replace(tzinfo=None)), "deadline_at"),
        (lambda: BatchWork("b", 1.0, NOW, NOW), "end_at"),
        (lambda: BatchWork("b", 1.0, NOW, value_per_mtoken=-1.0), "value_per_mtoken"),
        (lambda: Fleet("f", CURVE, minimum_w=-1.0), "minimum_w"),
        (lambda: Fleet("f", CURVE, minimum_w=9.0, maximum_w=8.0), "minimum_w"),
        (lambda: Fleet("f", CURVE, thermal_limits=((HOUR, -1.0),)), "thermal_limits"),
    ],
)
def test_what_cannot_be_is_refused_by_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field


def test_a_fleet_is_held_to_its_thermal_limit_while_it_lasts() -> None:
    fleet = Fleet("f", CURVE, maximum_w=1500.0, thermal_limits=((HOUR, 900.0),))
    assert fleet.most_w(HOUR) == 900.0
    assert fleet.most_w(Interval(HOUR.end_at, HOUR.end_at + timedelta(hours=1))) == 1500.0


def test_a_curve_within_bounds_keeps_its_shape_between_them() -> None:
    part = CURVE.within(800.0, 1300.0)
    assert (part.floor_w, part.max_power_w) == (800.0, 1300.0)
    assert part.max_tokens_per_s == CURVE.tokens_per_s_at(1300.0)
    for rate in (0.0, 100.0, 250.0, 400.0, 500.0, 600.0):
        assert part.power_w_at(rate) == pytest.approx(max(800.0, CURVE.power_w_at(rate)))
    assert CURVE.within(0.0, 5000.0) is CURVE
    assert CURVE.within(0.0, 500.0) == PowerCurve((0.0,), (500.0,))
    assert CURVE.within(2000.0, 3000.0).power_w == (2000.0, 2000.0)
