from __future__ import annotations

from datetime import timedelta

import pytest

from pals_grid.core.fleet import Origin
from pals_grid.core.live import SiteReading
from pals_grid.service.live.other_load import OtherLoadEstimate
from tests.unit.service.world import T0


def at(seconds: float, power_w: float) -> SiteReading:
    return SiteReading(T0 + timedelta(seconds=seconds), power_w, "m")


def test_it_rises_within_seconds_and_falls_within_a_minute() -> None:
    made = OtherLoadEstimate()
    assert made.observe(at(0, 1500.0), 1000.0, 0.0, T0).power_w == 500.0
    now = T0 + timedelta(seconds=10)
    assert made.observe(at(10, 2000.0), 1000.0, 0.0, now).power_w == pytest.approx(816.06, abs=0.01)
    later = now + timedelta(seconds=60)
    assert made.observe(at(70, 1000.0), 1000.0, 0.0, later).power_w == pytest.approx(300.2, abs=0.1)


def test_one_reading_counts_once_and_less_than_the_nodes_is_nothing() -> None:
    made = OtherLoadEstimate()
    made.observe(at(0, 1500.0), 1000.0, 0.0, T0)
    assert made.observe(at(0, 1500.0), 2000.0, 0.0, T0).power_w == 500.0
    assert OtherLoadEstimate().observe(at(0, 900.0), 1000.0, 0.0, T0).power_w == 0.0


def test_a_stale_meter_leaves_the_larger_of_estimate_and_statement() -> None:
    made = OtherLoadEstimate()
    made.observe(at(0, 1500.0), 1000.0, 0.0, T0)
    later = T0 + timedelta(seconds=15.1)
    found = made.observe(at(0, 1500.0), 1000.0, 100.0, later)
    assert (found.power_w, found.origin) == (500.0, Origin.MODELLED)
    assert found.meter_age_s == pytest.approx(15.1)
    assert made.observe(at(0, 1500.0), 1000.0, 700.0, later).power_w == 700.0
    assert OtherLoadEstimate().observe(at(0, 9e9), 0.0, 30.0, later).power_w == 30.0


def test_without_a_meter_the_statement_holds() -> None:
    found = OtherLoadEstimate().observe(None, 1000.0, 250.0, T0)
    assert (found.power_w, found.origin, found.meter_age_s) == (250.0, Origin.MODELLED, None)


def test_it_is_known_no_better_than_the_nodes_power() -> None:
    for origin in Origin:
        found = OtherLoadEstimate().observe(at(0, 1500.0), 1000.0, 0.0, T0, origin)
        assert found.origin is origin
    assert OtherLoadEstimate().observe(at(0, 1500.0), 1000.0, 0.0, T0).origin is Origin.MEASURED
