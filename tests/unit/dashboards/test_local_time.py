from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from pals_grid_dashboards.console.local_time import LocalTime

from pals_grid.core.errors import InvalidValue

SUMMER = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
LONDON = LocalTime(ZoneInfo("Europe/London"), SUMMER)


def test_the_zone_is_named_with_what_holds_now() -> None:
    assert LONDON.zone_name == "Europe/London (BST)"
    assert LocalTime(ZoneInfo("UTC"), SUMMER).zone_name == "UTC"
    assert LocalTime(ZoneInfo("America/Sao_Paulo"), SUMMER).zone_name == (
        "America/Sao_Paulo (UTC-03)"
    )


def test_a_time_is_local_on_its_face_and_utc_in_its_tooltip() -> None:
    assert LONDON.tag(SUMMER) == (
        '<time datetime="2026-07-01T12:00:00Z" title="2026-07-01 12:00:00 UTC">13:00</time>'
    )


def test_another_day_is_named_and_not_twice() -> None:
    start = datetime(2026, 7, 2, 22, 30, tzinfo=UTC)
    text = LONDON.span(start, datetime(2026, 7, 2, 22, 50, 50, tzinfo=UTC)).striptags()
    assert text == "2 Jul 23:30–23:50:50"
    over_midnight = LONDON.span(start, datetime(2026, 7, 3, 0, 0, tzinfo=UTC)).striptags()
    assert over_midnight == "2 Jul 23:30–3 Jul 01:00"


def test_a_form_value_comes_back_as_the_same_instant() -> None:
    assert LONDON.instant("start", LONDON.form_value(SUMMER)) == SUMMER


def test_of_an_hour_that_comes_twice_the_first_is_taken() -> None:
    assert LONDON.instant("start", "2026-10-25T01:30") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-03-29T01:30", "tomorrow", ""])
def test_a_time_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="start"):
        LONDON.instant("start", text)


def test_days_have_23_and_25_hours() -> None:
    spring, autumn = date(2026, 3, 29), date(2026, 10, 25)
    assert LONDON.days(spring, spring).duration_s == 23 * 3600
    assert LONDON.days(autumn, autumn).duration_s == 25 * 3600
    with pytest.raises(InvalidValue, match="must not be before"):
        LONDON.days(autumn, spring)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("text", ["9999-12-31T23:59", "0001-01-01T00:00", "9999-12-31T23:59Z"])
def test_a_time_whose_neighbours_cannot_be_told_is_refused(zone: str, text: str) -> None:
    with pytest.raises(InvalidValue, match="from: must be in the years 1970 to 2199, got"):
        LocalTime(ZoneInfo(zone), SUMMER).instant("from", text)


@pytest.mark.parametrize("text", ["9999-12-31", "0001-01-01"])
def test_a_day_whose_midnights_cannot_be_told_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="to: must be in the years 1970 to 2199, got"):
        LONDON.day("to", text)
