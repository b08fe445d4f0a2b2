from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.mix import (
    DIRECT_G_PER_KWH,
    LIFECYCLE_G_PER_KWH,
    Fuel,
    Generation,
    average_intensities,
    fuel_of,
)

START_AT = datetime(2025, 3, 1, tzinfo=UTC)


def give(
    fuel: Fuel,
    power_mw: float | None,
    start_min: int = 0,
    minutes: int = 60,
    *,
    series: str = "",
    out: bool = False,
) -> Generation:
    start_at = START_AT + timedelta(minutes=start_min)
    interval = Interval(start_at, start_at + timedelta(minutes=minutes))
    return Generation(series or str(fuel), fuel, interval, power_mw, out)


def found(
    *mix: Generation, g_per_kwh: Mapping[Fuel, float] = LIFECYCLE_G_PER_KWH
) -> list[tuple[int, int, object]]:
    """Minute of the start, minutes, intensity."""
    return [
        (
            round((interval.start_at - START_AT).total_seconds() / 60),
            round(interval.duration_s / 60),
            pytest.approx(value),
        )
        for interval, value in average_intensities(mix, g_per_kwh)
    ]


def test_the_mean_is_weighted_by_energy() -> None:
    mix = (give(Fuel.COAL, 100), give(Fuel.WIND_ONSHORE, 300))
    assert found(*mix) == [(0, 60, (100 * 820 + 300 * 11) / 400)]
    assert found(*mix, g_per_kwh=DIRECT_G_PER_KWH) == [(0, 60, 190.0)]


def test_every_fuel_but_storage_has_both_factors_and_no_chimney_beats_its_life_cycle() -> None:
    assert set(LIFECYCLE_G_PER_KWH) == set(DIRECT_G_PER_KWH) == set(Fuel) - {Fuel.STORAGE}
    assert all(DIRECT_G_PER_KWH[fuel] < LIFECYCLE_G_PER_KWH[fuel] for fuel in LIFECYCLE_G_PER_KWH)


@pytest.mark.parametrize("storage_mw", [500.0, -500.0, None])
def test_storage_is_left_out_both_ways(storage_mw: float | None) -> None:
    gas = give(Fuel.GAS, 100)
    assert found(gas, give(Fuel.STORAGE, storage_mw)) == [(0, 60, 490.0)]
    assert found(gas, give(Fuel.STORAGE, 5, 60)) == [(0, 60, 490.0)]
    assert found(give(Fuel.STORAGE, 500)) == []


def test_consumption_is_subtracted_within_its_series_and_never_below_nothing() -> None:
    coal = give(Fuel.COAL, 100)
    both = (give(Fuel.SOLAR, 120), give(Fuel.SOLAR, 20, out=True))
    assert found(coal, *both) == [(0, 60, (820 + 48) / 2)]
    assert found(coal, give(Fuel.SOLAR, 1), give(Fuel.SOLAR, 50, out=True)) == [(0, 60, 820.0)]
    assert found(coal, give(Fuel.SOLAR, -50)) == [(0, 60, 820.0)]


def test_a_series_that_only_takes_has_a_value() -> None:
    mix = (
        give(Fuel.GAS, 10),
        give(Fuel.GAS, 10, 60),
        give(Fuel.SOLAR, 10),
        give(Fuel.SOLAR, 1, 60, out=True),
    )
    assert found(*mix) == [(0, 60, (490 + 48) / 2), (60, 60, 490.0)]


def test_two_series_of_one_fuel_stand_apart() -> None:
    one = give(Fuel.WIND_ONSHORE, 10, series="WND")
    other = give(Fuel.WIND_ONSHORE, -5, series="WNB")
    assert found(one, other, give(Fuel.COAL, 10)) == [(0, 60, (11 + 820) / 2)]
    assert found(one, give(Fuel.WIND_ONSHORE, None, series="WNB")) == []


def test_a_missing_value_is_a_gap_and_never_nothing() -> None:
    gas = [give(Fuel.GAS, 10, minute) for minute in (0, 60, 120)]
    assert found(*gas, give(Fuel.COAL, 10), give(Fuel.COAL, None, 60)) == [(0, 60, 655.0)]
    assert found(*gas, give(Fuel.COAL, 10), give(Fuel.COAL, 0, 120)) == [
        (0, 60, 655.0),
        (120, 60, 490.0),
    ]


def test_nothing_generated_is_a_gap() -> None:
    assert found(give(Fuel.GAS, 0), give(Fuel.SOLAR, -3)) == []
    assert found() == []


def test_the_grid_is_the_finest_that_all_share() -> None:
    quarters = [give(Fuel.GAS, power, 15 * at, 15) for at, power in enumerate((0, 0, 40, 40))]
    assert found(*quarters) == [(30, 15, 490.0), (45, 15, 490.0)]
    assert found(*quarters, give(Fuel.NUCLEAR, 20)) == [(0, 60, (490 + 12) / 2)]
    assert found(*quarters[1:], give(Fuel.NUCLEAR, 20)) == []
    later = [give(Fuel.GAS, 1, 60, 15), give(Fuel.NUCLEAR, 1, 60, 15)]
    assert found(*quarters, give(Fuel.NUCLEAR, 20), *later) == [
        (0, 60, (490 + 12) / 2),
        (60, 15, (490 + 12) / 2),
    ]


def test_one_time_has_one_value_and_the_same_one_twice_is_one() -> None:
    gas = give(Fuel.GAS, 10)
    assert found(gas, gas, give(Fuel.COAL, 10)) == [(0, 60, 655.0)]
    with pytest.raises(InvalidValue, match=r"gas at 2025-03-01T00:00:00\+00:00: must have one"):
        found(gas, give(Fuel.GAS, 11))
    with pytest.raises(InvalidValue, match="coal at 2025-03-01T00:30"):
        found(give(Fuel.COAL, 1), give(Fuel.COAL, 1, 30, 15))


@pytest.mark.parametrize("power_mw", [float("nan"), float("inf")])
def test_a_power_is_a_number(power_mw: float) -> None:
    with pytest.raises(InvalidValue, match="gas power_mw: must be finite"):
        give(Fuel.GAS, power_mw)


def test_an_unknown_fuel_is_named() -> None:
    assert fuel_of("psrType", "B04", {"B04": Fuel.GAS}) is Fuel.GAS
    with pytest.raises(InvalidValue, match="psrType: must be one of B04, got 'B99'"):
        fuel_of("psrType", "B99", {"B04": Fuel.GAS})


FUELS = st.sampled_from(sorted(set(Fuel) - {Fuel.STORAGE}))


@given(
    st.dictionaries(FUELS, st.lists(st.floats(0, 1e5), min_size=3, max_size=3), min_size=1),
    st.sampled_from([LIFECYCLE_G_PER_KWH, DIRECT_G_PER_KWH]),
)
def test_every_value_lies_between_the_factors_of_its_fuels(
    mix: dict[Fuel, list[float]], table: Mapping[Fuel, float]
) -> None:
    low, high = min(table[fuel] for fuel in mix), max(table[fuel] for fuel in mix)
    values = average_intensities(
        [
            give(fuel, power, 15 * at, 15)
            for fuel, powers in mix.items()
            for at, power in enumerate(powers)
        ],
        table,
    )
    assert all(low - 1e-9 <= value <= high + 1e-9 for _, value in values)
    assert all(one.end_at <= other.start_at for (one, _), (other, _) in pairwise(values))
