from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pals_grid_connectors.market_time import (
    days_of,
    from_clock,
    known_days,
    known_end,
    midnight,
    read_naive,
)

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval

CENTRAL = ZoneInfo("America/Chicago")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_flag_chooses_between_two_hours_of_one_name() -> None:
    one = from_clock("at", local("2021-11-07T01:00"), CENTRAL, repeated=False)
    other = from_clock("at", local("2021-11-07T01:00"), CENTRAL, repeated=True)
    assert one == datetime(2021, 11, 7, 6, tzinfo=UTC)
    assert other - one == timedelta(hours=1)


def test_a_skipped_time_and_a_wrong_flag_are_refused() -> None:
    with pytest.raises(InvalidValue, match="at: must exist in America/Chicago"):
        from_clock("at", local("2021-03-14T02:30"), CENTRAL, repeated=False)
    with pytest.raises(InvalidValue, match="flagged as repeated"):
        from_clock("at", local("2021-11-07T02:00"), CENTRAL, repeated=True)
    with pytest.raises(InvalidValue, match="years 1 to 9999"):
        from_clock("at", datetime.max, CENTRAL, repeated=False)  # noqa: DTZ901 - the edge itself


def test_local_days_of_a_window() -> None:
    begin = midnight(date(2021, 3, 14), CENTRAL)
    assert begin == datetime(2021, 3, 14, 6, tzinfo=UTC)
    end = midnight(date(2021, 3, 15), CENTRAL)
    assert end - begin == timedelta(hours=23)
    assert days_of(begin, end, CENTRAL) == [date(2021, 3, 14)]
    second = timedelta(seconds=1)
    assert days_of(begin - second, end + second, CENTRAL) == [
        date(2021, 3, 13),
        date(2021, 3, 14),
        date(2021, 3, 15),
    ]
    assert days_of(end, begin, CENTRAL) == []


def test_what_can_be_known_ends_now_or_with_tomorrow() -> None:
    now = datetime(2021, 3, 13, 20, tzinfo=UTC)
    window = Interval(now - timedelta(hours=1), now + timedelta(days=7))
    assert known_end(window, now, CENTRAL, day_ahead=False) == now
    after_tomorrow = midnight(date(2021, 3, 15), CENTRAL)
    assert known_end(window, now, CENTRAL, day_ahead=True) == after_tomorrow
    today, tomorrow = date(2021, 3, 13), date(2021, 3, 14)
    assert known_days(window, now, CENTRAL, day_ahead=True) == [today, tomorrow]
    assert known_days(window, now, CENTRAL, day_ahead=False) == [today]
    short = Interval(now - timedelta(hours=2), now - timedelta(hours=1))
    for day_ahead in (True, False):
        assert known_end(short, now, CENTRAL, day_ahead=day_ahead) == short.end_at


def test_patterns_are_tried_in_turn() -> None:
    patterns = ("%m/%d/%Y", "%Y-%m-%d")
    assert read_naive("day", "2021-03-14", patterns) == local("2021-03-14")
    with pytest.raises(InvalidValue, match="day: must be a time of the format %m/%d/%Y or %Y"):
        read_naive("day", "14.3.2021", patterns)
