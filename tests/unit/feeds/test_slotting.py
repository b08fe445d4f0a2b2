from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.intervals import Interval, slots
from pals_grid.core.series import Observation, ValueKind
from pals_grid.feeds.slotting import best_values, slot_means

START_AT = datetime(2025, 3, 1, tzinfo=UTC)
RANK = {
    ValueKind.MEASURED: 3,
    ValueKind.FORECAST: 2,
    ValueKind.MODELLED: 1,
    ValueKind.SYNTHETIC: 0,
}


def at(minutes: float) -> datetime:
    return START_AT + timedelta(minutes=minutes)


def value(
    start: float,
    end: float,
    amount: float,
    kind: ValueKind = ValueKind.MEASURED,
    known: float = 0,
) -> Observation:
    return Observation(at(start), at(end), amount, "EUR/MWh", kind, at(known))


def means(values: list[Observation], minutes: float, step: float = 30) -> list[float | None]:
    grid = list(slots(START_AT, at(minutes), timedelta(minutes=step)))
    return slot_means(values, grid)


def test_finer_values_are_averaged_and_coarser_ones_repeated() -> None:
    quarters = [value(0, 15, 10), value(15, 30, 20)]
    assert means([*quarters, value(30, 90, 7)], 90) == [15.0, 7.0, 7.0]


def test_gaps_stay_gaps_and_a_part_stands_for_its_slot() -> None:
    assert means([value(0, 10, 3), value(60, 90, 5)], 120) == [3.0, None, 5.0, None]
    assert means([], 30) == [None]


def test_measured_goes_before_forecast_before_synthetic_also_across_lengths() -> None:
    values = [
        value(0, 120, 1, ValueKind.SYNTHETIC, known=9),
        value(0, 60, 2, ValueKind.FORECAST),
        value(30, 60, 3),
    ]
    assert means(values, 120) == [2.0, 3.0, 1.0, 1.0]


def test_the_latest_known_value_holds() -> None:
    assert means([value(0, 30, 1, known=5), value(0, 30, 2, known=6)], 30) == [2.0]


def test_a_worse_value_fills_what_is_left_on_both_sides() -> None:
    found = best_values([value(0, 90, 1, ValueKind.FORECAST), value(30, 60, 2)])
    assert [(item.start_at, item.end_at, item.value) for item in found] == [
        (at(0), at(30), 1),
        (at(30), at(60), 2),
        (at(60), at(90), 1),
    ]


VALUES = st.builds(
    lambda start, length, amount, kind, known: value(start, start + length, amount, kind, known),
    st.integers(0, 60),
    st.integers(1, 40),
    st.integers(-9, 9),
    st.sampled_from(ValueKind),
    st.integers(0, 1000),
)


@given(st.lists(VALUES, max_size=12, unique_by=lambda item: item.known_at))
def test_every_minute_has_the_best_value_that_covers_it(values: list[Observation]) -> None:
    found = best_values(values)
    assert all(one.end_at <= other.start_at for one, other in pairwise(found))
    for minute in range(100):
        covering = [item for item in values if item.interval.contains(at(minute))]
        best = max(covering, key=lambda item: (RANK[item.kind], item.known_at), default=None)
        held = [item.value for item in found if item.interval.contains(at(minute))]
        assert held == ([] if best is None else [best.value])


@given(st.lists(VALUES, max_size=12, unique_by=lambda item: item.known_at), st.integers(5, 45))
def test_energy_weighted_sum_is_kept(values: list[Observation], step: int) -> None:
    best = best_values(values)
    grid = list(slots(START_AT, at(100), timedelta(minutes=step)))
    total = 0.0
    for slot, mean in zip(grid, slot_means(values, grid), strict=True):
        covered_s = sum(slot.overlap_s(item.interval) for item in best)
        assert (mean is None) == (covered_s == 0)
        total += (mean or 0.0) * covered_s
    whole = Interval(START_AT, at(100))
    expected = sum(whole.overlap_s(item.interval) * item.value for item in best)
    assert total == pytest.approx(expected)
