from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pals_grid_dashboards.console.event_form import blank_form, read_form
from pals_grid_dashboards.console.local_time import LocalTime

from pals_grid.core.errors import InvalidValue

NOW = datetime(2026, 7, 1, 12, 20, tzinfo=UTC)
LOCAL = LocalTime(ZoneInfo("Europe/Berlin"), NOW)
GOOD = {
    "name": "Peak",
    "start": "2026-07-01T18:00",
    "end": "2026-07-01T19:00",
    "order": "limit",
    "limit_kw": "2,5",
    "reduction_pct": "ignored",
    "notice": "",
    "ramp_min": "5",
}


def test_local_times_and_kilowatts_become_an_order() -> None:
    order = read_form(GOOD, LOCAL).request
    assert order is not None
    assert order.start_at == datetime(2026, 7, 1, 16, 0, tzinfo=UTC)
    assert (order.limit_w, order.reduction_ratio, order.ramp_s) == (2500.0, None, 300.0)


def test_a_reduction_is_in_per_cent() -> None:
    order = read_form({**GOOD, "order": "reduction", "reduction_pct": "30"}, LOCAL).request
    assert order is not None
    assert (order.limit_w, order.reduction_ratio) == (None, 0.3)


@pytest.mark.parametrize(
    ("change", "field", "error"),
    [
        ({"name": " "}, "name", "Give it a name."),
        ({"start": "soon"}, "start", "Must be a date and a time."),
        ({"start": ""}, "start", "Must be filled in."),
        ({"end": "2026-07-01T18:00"}, "end", "Must be after the start."),
        ({"limit_kw": "lots"}, "limit_kw", "Must be a number."),
        ({"limit_kw": "-1"}, "limit_kw", "Must be from 0 to 10 000 000 kW."),
        ({"limit_kw": "nan"}, "limit_kw", "Must be from 0 to 10 000 000 kW."),
        ({"order": "reduction", "reduction_pct": "101"}, "reduction_pct", "above 0 and at most"),
        ({"notice": "2026-07-01T18:30"}, "notice", "Must not be after the start."),
        ({"ramp_min": "2000"}, "ramp_min", "Must be from 0 to 1440 minutes."),
        ({"start": "2026-03-29T02:30"}, "start", "does not exist in Europe/Berlin"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_what_was_typed_stays(
    change: dict[str, str], field: str, error: str
) -> None:
    form = read_form({**GOOD, **change}, LOCAL)
    assert form.request is None
    assert list(form.errors) == [field]
    assert error.casefold() in form.errors[field].casefold()
    assert form.typed == {name: text.strip() for name, text in {**GOOD, **change}.items()}


def test_everything_wrong_is_said_at_once() -> None:
    form = read_form({}, LOCAL)
    assert set(form.errors) == {"name", "start", "end", "limit_kw"}


def test_an_error_of_the_service_finds_its_field() -> None:
    form = read_form(GOOD, LOCAL)
    form.refuse(InvalidValue("end_at", "x", "must be after now"))
    form.refuse(InvalidValue("elsewhere", "x", "must be so"))
    assert form.errors == {"end": "Must be after now.", "form": "Must be so."}


def test_a_blank_form_proposes_an_hour_ahead() -> None:
    form = blank_form(LOCAL)
    assert form.typed["start"] == "2026-07-01T16:00"
    start, end = (LOCAL.instant(name, form.typed[name]) for name in ("start", "end"))
    assert end - start == timedelta(hours=1)
