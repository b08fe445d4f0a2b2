from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pals_grid.accounting.delivery import SitePowerReading, measure_delivery
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval

START = datetime(2026, 3, 2, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVENT = DemandResponseEvent(
    id=1,
    site_id=1,
    version=1,
    status=EventStatus.SCHEDULED,
    order=EventRequest(
        name="e", start_at=START, end_at=START + 10 * MINUTE, limit_w=1000.0, ramp_s=60.0
    ),
    reference_w=2000.0,
    reference_origin=Origin.MEASURED,
    created_at=START,
)


def reading(minute: float, power_w: float) -> SitePowerReading:
    at = START + minute * MINUTE
    return SitePowerReading(Interval(at, at + MINUTE), power_w)


def test_mean_share_and_curtailed_energy() -> None:
    measure = measure_delivery(EVENT, [reading(0, 900.0), reading(1, 1019.0), reading(2, 1021.0)])
    assert measure.covered_s == 180
    assert measure.mean_power_w == pytest.approx(980.0)
    assert measure.within_limit_ratio == pytest.approx(2 / 3)
    assert measure.curtailed_j == pytest.approx((2000.0 - 980.0) * 180)


def test_only_the_part_inside_the_event_counts() -> None:
    measure = measure_delivery(EVENT, [reading(-5, 5000.0), reading(-0.5, 800.0), reading(11, 9.0)])
    assert measure.covered_s == pytest.approx(30.0)
    assert measure.mean_power_w == pytest.approx(800.0)


def test_curtailment_is_never_negative() -> None:
    assert measure_delivery(EVENT, [reading(0, 5000.0)]).curtailed_j == 0


def test_without_measurement_nothing_is_claimed() -> None:
    measure = measure_delivery(EVENT, [])
    assert (measure.mean_power_w, measure.within_limit_ratio) == (None, None)
    assert (measure.covered_s, measure.curtailed_j) == (0, 0)
