from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.accounting.delivery import SitePowerReading
from pals_grid.accounting.demand import Peak, coincident_cost, demand_cost, find_peak
from pals_grid.core.intervals import Interval
from pals_grid.core.tariff import CoincidentPeak, DemandCharge, RiskHour, Tariff
from pals_grid.core.time_of_use import Period, month_of

LONDON = ZoneInfo("Europe/London")
T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MARCH = month_of(T0, LONDON)
QUARTER = timedelta(minutes=15)
TARIFF = Tariff("t", T0, periods=(Period("peak", "16:00", "19:00"),))


def _readings(*power_w: float, start_at: datetime = T0) -> list[SitePowerReading]:
    return [
        SitePowerReading(Interval(start_at + i * QUARTER, start_at + (i + 1) * QUARTER), one)
        for i, one in enumerate(power_w)
    ]


@pytest.mark.parametrize(("window_s", "peak_w"), [(900, 900.0), (1800, 700.0), (3600, 550.0)])
def test_peak_is_the_highest_mean_over_whole_windows(window_s: int, peak_w: float) -> None:
    charge = DemandCharge("d", 10.0, window_s)
    peak = find_peak(TARIFF, charge, MARCH, _readings(400, 400, 900, 500, 0, 100), LONDON)
    assert peak.power_w == pytest.approx(peak_w)


def test_only_windows_of_the_period_count() -> None:
    charge = DemandCharge("d", 10.0, 1800, in_period="peak")
    noon, evening = _readings(9000, 9000), _readings(500, 700, start_at=T0 + timedelta(hours=5))
    peak = find_peak(TARIFF, charge, MARCH, [*noon, *evening], LONDON)
    assert (peak.power_w, peak.start_at) == (600, T0 + timedelta(hours=5))


def test_window_that_is_mostly_unknown_is_no_peak() -> None:
    brief = [SitePowerReading(Interval(T0, T0 + timedelta(minutes=7)), 9000.0)]
    assert find_peak(TARIFF, DemandCharge("d", 1.0), MARCH, brief, LONDON).power_w is None


def test_windows_of_other_months_are_left_out() -> None:
    before = _readings(9000, start_at=MARCH.start_at - QUARTER)
    peak = find_peak(TARIFF, DemandCharge("d", 1.0), MARCH, before, LONDON)
    assert peak == Peak(None, None, 0.0)


def test_cost_is_of_the_peak_or_of_the_ratchet() -> None:
    peak = Peak(400_000.0, T0, 1.0)
    plain = demand_cost(DemandCharge("d", 9.5), peak, [])
    assert plain.billed_w == 400_000
    assert plain.cost == pytest.approx(3800)
    held = demand_cost(DemandCharge("d", 9.5, 900, None, 0.8, 11), peak, [300e3, 600e3])
    assert held.billed_w == 480_000
    assert held.cost == pytest.approx(4560)
    assert demand_cost(DemandCharge("d", 9.5), Peak(None, None, 0.0), [1e6]).cost is None


def test_coincident_cost_is_price_times_power_times_probability() -> None:
    hour = RiskHour(T0, T0 + timedelta(hours=1), 0.25)
    peak = CoincidentPeak("triad", 45.0, (hour,))
    drawn = _readings(1e6, 1e6, 2e6, 2e6, 5e6)
    assert coincident_cost(peak, drawn) == pytest.approx(45 * 1500 * 0.25)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.sampled_from([900, 1800, 3600]))
def test_peak_lies_between_the_mean_and_the_highest_reading(
    power_w: list[float], window_s: int
) -> None:
    per_window = window_s // 900
    whole = power_w[: len(power_w) // per_window * per_window] or power_w[:1] * per_window
    peak = find_peak(TARIFF, DemandCharge("d", 1.0, window_s), MARCH, _readings(*whole), LONDON)
    assert peak.power_w is not None
    assert sum(whole) / len(whole) - 1e-6 <= peak.power_w <= max(whole) + 1e-6
