from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pals_grid_dashboards.console.local_time import LocalTime
from pals_grid_dashboards.console.tariff_form import blank_form, digest, read_form
from pals_grid_dashboards.console.tariff_words import (
    days_text,
    months_text,
    read_days,
    read_months,
    tariff_lines,
)

from pals_grid.core.errors import InvalidValue
from pals_grid.core.tariff import (
    Adder,
    CoincidentPeak,
    Conversion,
    DemandCharge,
    RiskHour,
    Tariff,
    Tax,
)
from pals_grid.core.time_of_use import DAYS, HolidayRule, Period

NOW = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
LOCAL = LocalTime(ZoneInfo("Europe/London"), NOW)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


def _hour(hour: int, ratio: float) -> RiskHour:
    return RiskHour(MIDNIGHT.replace(hour=hour), MIDNIGHT.replace(hour=hour + 1), ratio)


TARIFF = Tariff(
    name="large user",
    valid_from_at=MIDNIGHT,
    factor=1.02,
    adders=(Adder("network", 12.5), Adder("peak", 30.0, "evening")),
    taxes=(Tax("levy", price_per_mwh=5.5), Tax("VAT", ratio=0.2)),
    periods=(
        Period("evening", "16:00", "19:00", DAYS[:5], (1, 2, 11, 12), HolidayRule.NEVER),
        Period("all day"),
    ),
    holidays=(date(2026, 12, 25), date(2027, 1, 1)),
    demand_charges=(
        DemandCharge("capacity", 9.5, 1800, "evening", 0.8, 11),
        DemandCharge("plain", 1.0),
    ),
    coincident_peaks=(CoincidentPeak("triad", 45.0, (_hour(17, 0.1), _hour(18, 0.25))),),
    conversion=Conversion("EUR", 0.85, date(2026, 11, 20)),
)


def test_form_of_a_tariff_reads_back_as_that_tariff() -> None:
    form = read_form(blank_form(TARIFF, LOCAL).typed, LOCAL)
    assert form.errors == {}
    assert form.tariff == TARIFF


def test_blank_form_is_the_plain_tariff_from_today() -> None:
    form = read_form(blank_form(None, LOCAL).typed, LOCAL)
    assert form.tariff == Tariff("Tariff", datetime(2026, 11, 21, tzinfo=UTC))


def test_each_list_has_one_blank_row_more() -> None:
    form = blank_form(TARIFF, LOCAL)
    assert form.rows("adders") == [0, 1, 2]
    assert blank_form(None, LOCAL).rows("adders") == [0]


def test_emptied_row_is_left_out_and_the_rows_behind_it_stay_where_they_are() -> None:
    typed = blank_form(TARIFF, LOCAL).typed
    typed |= {"adders-0-name": "", "adders-0-price": "", "adders-1-period": "night"}
    form = read_form(typed, LOCAL)
    assert form.tariff is None
    assert list(form.errors) == ["adders-1-period"]
    assert form.errors["adders-1-period"].startswith("Must be one of the periods (evening,")


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"factor": ""}, "factor", "Must be filled in."),
        ({"factor": "1000"}, "factor", "Must be from -100 to 100, got 1000.0."),
        ({"valid_from": "soon"}, "valid_from", "Must be a date and a time."),
        ({"rate": "0"}, "rate", "Must be from 1e-06 to 1e+06, got 0.0."),
        ({"as_of": "then"}, "as_of", "Must be a date such as 2026-12-25, got then."),
        ({"holidays": "Christmas"}, "holidays", "Must be a date such as"),
        ({"taxes-0-amount": "1e9"}, "taxes-0-amount", "Must be from -1e+06 to 1e+06"),
        ({"taxes-1-amount": "2000"}, "taxes-1-amount", "Must be from 0 % to 1000 %, got 2000 %."),
        ({"periods-0-start": "25:00"}, "periods-0-start", "Must be a local time"),
        ({"periods-0-days": "lundi"}, "periods-0-days", "Must be of mon, tue"),
        ({"demand_charges-0-ratchet_months": ""}, "demand_charges-0-ratchet_months", "Must be"),
        ({"coincident_peaks-0-end": "2026-11-22T16:00"}, "coincident_peaks-0-end", "Must be after"),
        ({"name": ""}, "name", "Must have 1 to 100 characters"),
    ],
)
def test_each_error_stands_beside_its_field(
    changes: dict[str, str], place: str, message: str
) -> None:
    form = read_form({**blank_form(TARIFF, LOCAL).typed, **changes}, LOCAL)
    assert form.tariff is None
    assert list(form.errors) == [place]
    assert form.errors[place].startswith(message)


def test_digest_tells_tariffs_apart() -> None:
    assert digest(TARIFF) == digest(replace(TARIFF))
    assert digest(TARIFF) != digest(replace(TARIFF, factor=1.03))


def test_words_say_every_part() -> None:
    told = {line.name: line.text for line in tariff_lines(TARIFF, "GBP", LOCAL)}
    assert told["Feed's price"] == "× 1.02; EUR × 0.85 = GBP, the rate of 20 Nov 2026"
    assert told["peak"] == (
        "+ 30.00\u202fGBP/MWh, 16:00 to 19:00, mon-fri, nov-feb, not on public holidays"
    )
    assert told["VAT"] == "+ 20 % of all above"
    assert told["capacity"].endswith("at least 80\u202f% of the highest of the 11 months before")
    assert told["triad"] == (
        "45.00\u202fGBP/kW drawn at the grid's peak, which may be at "
        "22 Nov 17:00 (10\u202f%), 22 Nov 18:00 (25\u202f%)"
    )


@given(st.sets(st.integers(1, 12), min_size=1))
def test_months_are_read_back_as_written(months: set[int]) -> None:
    assert read_months(months_text(sorted(months))) == sorted(months)


@given(st.sets(st.sampled_from(DAYS), min_size=1))
def test_days_are_read_back_as_written(days: set[str]) -> None:
    assert set(read_days(days_text(sorted(days)))) == days


def test_days_as_people_type_them() -> None:
    assert read_days("Monday - Wed, sun") == ["mon", "tue", "wed", "sun"]
    assert read_days("sat-mon") == ["mon", "sat", "sun"]
    assert read_months(" ") == list(range(1, 13))
    with pytest.raises(InvalidValue, match="months: must be of jan"):
        read_months("13")


def test_no_row_is_lost_however_many_there_are() -> None:
    adders = tuple(Adder(f"adder {i}", float(i)) for i in range(45))
    hours = tuple(
        RiskHour(MIDNIGHT + timedelta(hours=i), MIDNIGHT + timedelta(hours=i + 1), 0.1)
        for i in range(200)
    )
    tariff = Tariff("t", MIDNIGHT, adders=adders, coincident_peaks=(CoincidentPeak("p", 1, hours),))
    form = blank_form(tariff, LOCAL)
    assert form.rows("adders") == list(range(46))
    assert read_form(form.typed, LOCAL).tariff == tariff
    over = {f"adders-{i}-{name}": "1" for i in range(51) for name in ("name", "price")}
    assert read_form({**form.typed, **over}, LOCAL).errors == {
        "form": "Must be at most 50, got 51."
    }


def test_a_bound_is_in_per_cent_beside_its_own_row() -> None:
    typed = blank_form(TARIFF, LOCAL).typed
    for name, text, bound in (
        ("taxes-1-amount", "2000", "Must be from 0 % to 1000 %, got 2000 %."),
        ("demand_charges-0-ratchet", "120", "Must be from 0 % to 100 %, got 120 %."),
        ("coincident_peaks-1-probability", "150", "Must be from 0 % to 100 %, got 150 %."),
        ("demand_charges-0-window", "nan", "Must be a finite number, got nan."),
        ("valid_from", "0001-01-01T00:00", "Must be in the years 1970 to 2199."),
    ):
        assert read_form({**typed, name: text}, LOCAL).errors == {name: bound}
