"""Since when announced values are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pals_grid.forecast.announced import announce
from pals_grid.forecast.issued import History

BERLIN = "Europe/Berlin"
ZONE = ZoneInfo(BERLIN)
FIRST = datetime(2026, 3, 20, tzinfo=ZONE)  # the clocks change on the 29th
BACKFILLED = datetime(2026, 4, 1, 9, tzinfo=ZONE)


def hourly(days: int) -> History:
    begin_s = FIRST.timestamp()
    end_s = (FIRST + timedelta(days=days)).timestamp()
    starts = [begin_s + 3600.0 * i for i in range(round((end_s - begin_s) / 3600))]
    return History(starts, [s + 3600 for s in starts], [float(i) for i in range(len(starts))])


def local(start_s: float) -> datetime:
    return datetime.fromtimestamp(start_s, ZONE)


def noon_before(start_s: float) -> float:
    day = local(start_s).date() - timedelta(days=1)
    return datetime(day.year, day.month, day.day, 13, tzinfo=ZONE).timestamp()


def test_what_was_backfilled_counts_as_known_when_the_market_usually_publishes() -> None:
    history = hourly(20)
    fetched_s = [max(noon_before(s), BACKFILLED.timestamp()) for s in history.starts_s]
    found = announce(history, fetched_s, BERLIN)
    assert found is not None
    for start_s, at_s in zip(found.starts_s, found.known_s, strict=True):
        assert at_s <= start_s
        # Never before its publication, but for the hour by which a change of clocks moves it.
        assert at_s >= noon_before(start_s) - 3600
    late = [a - noon_before(s) for s, a in zip(found.starts_s, found.known_s, strict=True)]
    assert max(late[48:]) <= 3600


def test_prices_of_the_moment_announce_nothing() -> None:
    history = hourly(30)
    assert announce(history, history.ends_s, BERLIN) is None
    assert announce(history, [s - 900 for s in history.starts_s], BERLIN) is None
    assert announce(History([], [], []), [], BERLIN) is None


def test_one_evening_of_live_prices_is_enough_and_careful() -> None:
    history = hourly(10)
    evening_s = datetime(2026, 3, 28, 20, tzinfo=ZONE).timestamp()  # for the 29th
    found = announce(history, [evening_s] * len(history.starts_s), BERLIN)
    assert found is not None
    day_s = datetime(2026, 3, 24, tzinfo=ZONE).timestamp()
    known_s = dict(zip(found.starts_s, found.known_s, strict=True))[day_s]
    assert known_s == pytest.approx(day_s - 4 * 3600)
