from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, floor_to, format_minute, parse_instant, slots

NINE = datetime(2026, 3, 29, 9, tzinfo=UTC)
INSTANTS = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def test_an_interval_is_half_open() -> None:
    interval = Interval(NINE, NINE + timedelta(hours=1))
    assert interval.contains(interval.start_at)
    assert not interval.contains(interval.end_at)
    assert interval.duration_s == 3600
    assert interval.overlap_s(Interval(interval.end_at, NINE + timedelta(hours=2))) == 0
    assert (
        interval.overlap_s(Interval(NINE - timedelta(hours=1), NINE + timedelta(hours=9))) == 3600
    )


@pytest.mark.parametrize("length_s", [0, -1])
def test_an_empty_or_reversed_interval_is_refused_by_name(length_s: int) -> None:
    with pytest.raises(InvalidValue, match="end_at: must be after start_at") as caught:
        Interval(NINE, NINE + timedelta(seconds=length_s))
    assert caught.value.field == "end_at"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InvalidValue, match="start_at: must carry a UTC offset"):
        Interval(NINE.replace(tzinfo=None), NINE)


def test_an_instant_keeps_its_meaning_in_utc() -> None:
    assert parse_instant("at", "2026-03-29T11:00:00+02:00") == NINE
    assert parse_instant("at", "2026-03-29T09:00:00Z").tzinfo is UTC
    for text in ("2026-03-29T09:00:00", "yesterday", ""):
        with pytest.raises(InvalidValue, match=r"^at: "):
            parse_instant("at", text)


def test_floor_is_on_the_grid_of_the_epoch_in_utc() -> None:
    odd = datetime(2026, 3, 29, 15, 17, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    assert floor_to(odd.astimezone(UTC), timedelta(minutes=30)) == NINE + timedelta(minutes=30)


@given(
    start_at=INSTANTS,
    length_s=st.integers(1, 200_000),
    step_s=st.sampled_from([60, 300, 900, 1800, 3600]),
)
def test_slots_cover_without_gap_and_start_on_the_grid(
    start_at: datetime, length_s: int, step_s: int
) -> None:
    step = timedelta(seconds=step_s)
    end_at = start_at + timedelta(seconds=length_s)
    cut = list(slots(start_at, end_at, step))
    assert (cut[0].start_at, cut[-1].end_at) == (start_at, end_at)
    assert all(a.end_at == b.start_at for a, b in pairwise(cut))
    assert all(floor_to(slot.start_at, step) == slot.start_at for slot in cut[1:])
    assert all(slot.duration_s <= step_s for slot in cut)


def test_an_instant_is_written_in_utc_to_the_minute() -> None:
    at = datetime(2026, 3, 29, 1, 30, 59, tzinfo=timezone(timedelta(hours=2)))
    assert format_minute(at) == "2026-03-28T23:30Z"
