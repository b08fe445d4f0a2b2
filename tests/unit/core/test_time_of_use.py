from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.time_of_use import (
    DAYS,
    HolidayRule,
    Period,
    clock_floor,
    month_before,
    month_of,
    months_touching,
)

LONDON = ZoneInfo("Europe/London")
AMSTERDAM = ZoneInfo("Europe/Amsterdam")
KOLKATA = ZoneInfo("Asia/Kolkata")
ZONES = (ZoneInfo("UTC"), LONDON, KOLKATA, ZoneInfo("America/New_York"))
HOUR = timedelta(hours=1)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _hours(spans: list[Interval]) -> float:
    return sum(span.duration_s for span in spans) / 3600


def _day(zone: ZoneInfo, day: date) -> Interval:
    start_at = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    following = day + timedelta(days=1)
    end_at = datetime(following.year, following.month, following.day, tzinfo=zone)
    return Interval(start_at, end_at.astimezone(UTC))


def test_evening_of_weekdays_in_local_summer_time() -> None:
    period = Period("peak", "16:00", "19:00", days=DAYS[:5])
    week = Interval(_utc("2026-07-06"), _utc("2026-07-13"))
    spans = period.spans(week, LONDON)
    assert spans[0] == Interval(_utc("2026-07-06T15:00"), _utc("2026-07-06T18:00"))
    assert _hours(spans) == 15


def test_period_past_midnight_belongs_to_the_day_it_begins_on() -> None:
    period = Period("friday night", "22:00", "06:00", days=("fri",))
    week = Interval(_utc("2026-01-05"), _utc("2026-01-12"))
    assert period.spans(week, LONDON) == [
        Interval(_utc("2026-01-09T22:00"), _utc("2026-01-10T06:00"))
    ]


def test_days_of_23_and_25_hours_are_whole_days() -> None:
    whole, night = Period("all"), Period("night", "00:00", "06:00")
    spring, autumn = (_day(AMSTERDAM, date(2026, *day)) for day in ((3, 29), (10, 25)))
    assert (_hours(whole.spans(spring, AMSTERDAM)), _hours(night.spans(spring, AMSTERDAM))) == (
        23,
        5,
    )
    assert (_hours(whole.spans(autumn, AMSTERDAM)), _hours(night.spans(autumn, AMSTERDAM))) == (
        25,
        7,
    )


def test_hour_that_comes_twice_is_inside_twice_and_a_skipped_one_never() -> None:
    period = Period("odd", "02:30", "03:00")
    autumn, spring = (_day(AMSTERDAM, date(2026, *day)) for day in ((10, 25), (3, 29)))
    assert period.spans(autumn, AMSTERDAM) == [
        Interval(_utc("2026-10-25T00:30"), _utc("2026-10-25T01:00")),
        Interval(_utc("2026-10-25T01:30"), _utc("2026-10-25T02:00")),
    ]
    assert period.spans(spring, AMSTERDAM) == []


@pytest.mark.parametrize(
    ("rule", "hours"),
    [(HolidayRule.AS_USUAL, 24), (HolidayRule.NEVER, 0), (HolidayRule.ALWAYS, 24)],
)
def test_holiday_on_a_friday(rule: HolidayRule, hours: float) -> None:
    christmas = date(2026, 12, 25)
    weekday = Period("weekday", days=DAYS[:5], holidays=rule)
    assert _hours(weekday.spans(_day(LONDON, christmas), LONDON, [christmas])) == hours
    weekend = Period("weekend", days=DAYS[5:], holidays=rule)
    expected = 24 if rule is HolidayRule.ALWAYS else 0
    assert _hours(weekend.spans(_day(LONDON, christmas), LONDON, [christmas])) == expected


def test_only_the_months_named() -> None:
    winter = Period("winter", months=(11, 12, 1, 2))
    year = Interval(_utc("2026-01-01"), _utc("2027-01-01"))
    assert _hours(winter.spans(year, ZoneInfo("UTC"))) == (31 + 28 + 30 + 31) * 24


@given(
    zone=st.sampled_from(ZONES),
    start_at=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants it so
    quarters=st.integers(1, 400),
    clock=st.tuples(st.integers(0, 23), st.integers(0, 23)),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
)
def test_spans_are_what_the_clock_says_minute_by_minute(
    zone: ZoneInfo, start_at: datetime, quarters: int, clock: tuple[int, int], days: set[str]
) -> None:
    start_at = start_at.replace(minute=0, second=0, microsecond=0)
    interval = Interval(start_at, start_at + quarters * timedelta(minutes=15))
    begin, end = clock
    period = Period("p", f"{begin:02}:00", f"{end:02}:00", days=tuple(sorted(days)))
    spans = period.spans(interval, zone)
    for i in range(quarters):
        at = start_at + i * timedelta(minutes=15)
        local = at.astimezone(zone)
        day, hour = local.date(), local.hour
        if end > begin:
            inside = begin <= hour < end and DAYS[day.weekday()] in days
        else:
            yesterday = day - timedelta(days=1)
            inside = (hour >= begin and DAYS[day.weekday()] in days) or (
                hour < end and DAYS[yesterday.weekday()] in days
            )
        assert any(span.contains(at) for span in spans) is inside
    assert all(a.end_at < b.start_at for a, b in itertools.pairwise(spans))


def test_months_of_a_clock_that_changes() -> None:
    march = month_of(_utc("2026-03-15"), LONDON)
    assert march == Interval(_utc("2026-03-01"), _utc("2026-03-31T23:00"))
    assert month_before(march, LONDON).start_at == _utc("2026-02-01")
    touching = months_touching(Interval(_utc("2026-03-31T22:00"), _utc("2026-05-01")), LONDON)
    assert [month.start_at for month in touching] == [
        _utc("2026-03-01"),
        _utc("2026-03-31T23:00"),
        _utc("2026-04-30T23:00"),
    ]


def test_windows_stand_on_the_wall_clock() -> None:
    assert clock_floor(_utc("2026-03-02T10:40"), HOUR, KOLKATA) == _utc("2026-03-02T10:30")
    assert clock_floor(_utc("2026-03-02T10:40"), HOUR, LONDON) == _utc("2026-03-02T10:00")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "24:00"}, "start: must be a local time from 00:00 to 23:59, got '24:00'"),
        ({"end": "7"}, "end: must be a local time from 00:00 to 24:00, got '7'"),
        ({"days": ("mon", "lundi")}, "days: must be of mon, tue.*got 'lundi'"),
        ({"days": ()}, r"days: must name at least one of mon.*got \[\]"),
        ({"months": (13,)}, "months: must be of months from 1 to 12, got 13"),
        ({"name": " "}, "name: must have 1 to 100 characters"),
    ],
)
def test_bad_periods_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Period(**{"name": "p", **changes})  # type: ignore[arg-type]
