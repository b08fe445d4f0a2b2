from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.pricing import PLAIN, DatedTariff, Pricing, StepPricing, energy_price
from pals_grid.core.tariff import (
    Adder,
    CoincidentPeak,
    Conversion,
    DemandCharge,
    RiskHour,
    Tariff,
    Tax,
)
from pals_grid.core.tariff_document import read_tariff, write_tariff
from pals_grid.core.time_of_use import DAYS, Period

LONDON = ZoneInfo("Europe/London")
SITE = ("GBP", LONDON)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
NOON = Interval(datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(2026, 3, 2, 13, tzinfo=UTC))
PEAK = Period("peak", "16:00", "19:00", days=DAYS[:5])
TARIFF = Tariff(
    name="large user",
    valid_from_at=T0,
    factor=1.02,
    adders=(Adder("network", 12.0), Adder("network, peak", 30.0, in_period="peak")),
    taxes=(Tax("levy", price_per_mwh=5.0), Tax("VAT", ratio=0.2)),
    periods=(PEAK,),
    holidays=(date(2026, 12, 25),),
    demand_charges=(DemandCharge("capacity", 9.5, 1800, "peak", 0.8, 11),),
    coincident_peaks=(CoincidentPeak("triad", 45.0, (RiskHour(NOON.start_at, NOON.end_at, 0.5),)),),
    conversion=Conversion("EUR", 0.85, date(2026, 2, 27)),
)


def _hour(hour: int, minute: int = 0, length_min: int = 60) -> Interval:
    start_at = datetime(2026, 3, 2, hour, minute, tzinfo=UTC)
    return Interval(start_at, start_at + timedelta(minutes=length_min))


def test_price_is_the_sum_that_its_sentence_spells() -> None:
    price = energy_price(TARIFF, _hour(17), 61.2, "GBP/MWh", SITE)
    assert price.price_per_mwh == pytest.approx((61.2 * 1.02 + 12 + 30 + 5) * 1.2)
    assert price.sentence() == (
        "131.31 = 61.20 × 1.02 + 12.00 network + 30.00 network, peak + 5.00 levy + 21.88 VAT"
    )


def test_another_currency_is_converted_by_the_stated_rate() -> None:
    price = energy_price(TARIFF, _hour(12), 100.0, "EUR/MWh", SITE)
    assert price.price_per_mwh == pytest.approx((100 * 0.85 * 1.02 + 12 + 5) * 1.2)
    assert price.sentence().startswith("124.44 = 100.00 EUR × 0.85 × 1.02 + 12.00 network")
    with pytest.raises(InvalidValue, match=r"unit: must be GBP/MWh, or a tariff .* got 'NOK/MWh'"):
        energy_price(TARIFF, _hour(12), 100.0, "NOK/MWh", SITE)


def test_adder_counts_by_the_part_of_the_slot_that_it_holds_for() -> None:
    price = energy_price(TARIFF, _hour(15, 45), 0.0, "GBP/MWh", SITE)
    by_name = {part.name: part.price_per_mwh for part in price.parts}
    assert by_name["network, peak"] == pytest.approx(30 * 0.75)


def test_negative_prices_work_through() -> None:
    price = energy_price(TARIFF, _hour(12), -100.0, "GBP/MWh", SITE)
    assert price.price_per_mwh == pytest.approx((-102 + 12 + 5) * 1.2)
    assert "- 17.00 VAT" in price.sentence()


def test_no_tariff_is_the_feeds_own_price() -> None:
    price = energy_price(PLAIN, _hour(12), 61.2, "GBP/MWh", SITE)
    assert (price.price_per_mwh, price.parts) == (61.2, ())


@given(
    feed=st.floats(-1e4, 1e5),
    hours=st.integers(0, 24 * 365 * 2),
    quarters=st.integers(1, 96),
)
def test_parts_add_up_and_slots_average_to_the_whole(
    feed: float, hours: int, quarters: int
) -> None:
    start_at = T0 + timedelta(hours=hours)
    quarter = timedelta(minutes=15)
    whole = Interval(start_at, start_at + quarters * quarter)
    price = energy_price(TARIFF, whole, feed, "GBP/MWh", SITE)
    parts = sum(part.price_per_mwh for part in price.parts)
    assert price.price_per_mwh == pytest.approx(feed * 1.02 + parts, abs=1e-6)
    cut = [
        energy_price(
            TARIFF,
            Interval(start_at + i * quarter, start_at + (i + 1) * quarter),
            feed,
            "GBP/MWh",
            SITE,
        ).price_per_mwh
        for i in range(quarters)
    ]
    assert sum(cut) / quarters == pytest.approx(price.price_per_mwh, abs=1e-6)


@given(low=st.floats(-1e4, 1e5), more=st.floats(0, 1e4))
def test_a_dearer_feed_is_never_a_cheaper_price(low: float, more: float) -> None:
    prices = [
        energy_price(TARIFF, NOON, feed, "GBP/MWh", SITE).price_per_mwh
        for feed in (low, low + more)
    ]
    assert prices[0] <= prices[1]


def test_risk_of_a_coincident_peak_is_an_expected_cost_per_mwh() -> None:
    assert TARIFF.risk_per_mwh(NOON) == pytest.approx(45 * 1000 * 0.5)
    half_outside = Interval(NOON.start_at, NOON.end_at + timedelta(hours=1))
    assert TARIFF.risk_per_mwh(half_outside) == pytest.approx(45 * 1000 * 0.5 / 2)
    assert TARIFF.risk_per_mwh(_hour(20)) == 0


def test_tariff_in_force_is_the_last_that_has_begun_and_the_last_stored_of_a_day() -> None:
    later = replace(TARIFF, name="next", valid_from_at=T0 + timedelta(days=60), factor=2.0)
    mended = replace(later, name="mended", factor=3.0)
    stored = [DatedTariff(1, later), DatedTariff(2, TARIFF), DatedTariff(3, mended)]
    pricing = Pricing.of("GBP", LONDON, stored)
    assert pricing.at(T0 - timedelta(seconds=1)) == DatedTariff(0, PLAIN)
    assert pricing.at(T0).id == 2
    assert pricing.at(T0 + timedelta(days=60)).id == 3
    assert pricing.currencies() == {"GBP", "EUR"}


def test_edges_are_where_the_price_of_a_flat_feed_changes() -> None:
    begins_at = datetime(2026, 3, 2, 10, tzinfo=UTC)
    stored = [DatedTariff(1, replace(TARIFF, valid_from_at=begins_at))]
    pricing = Pricing.of("GBP", LONDON, stored)
    day = Interval(begins_at - timedelta(hours=10), begins_at + timedelta(hours=14))
    assert sorted(edge.hour for edge in pricing.edges(day)) == [10, 16, 19]


@given(feed=st.floats(-1e4, 1e5), quarter=st.integers(0, 95))
def test_steps_between_edges_have_the_price_of_their_interval(feed: float, quarter: int) -> None:
    pricing = Pricing.of("GBP", LONDON, [DatedTariff(1, TARIFF)])
    day_at = datetime(2026, 3, 2, tzinfo=UTC)
    steps = StepPricing(pricing, Interval(day_at, day_at + timedelta(days=1)))
    start_at = day_at + quarter * timedelta(minutes=15)
    step = Interval(start_at, start_at + timedelta(minutes=15))
    for unit in ("GBP/MWh", "EUR/MWh"):
        expected = pricing.price(step, feed, unit).price_per_mwh
        assert steps.price_at(start_at, feed, unit) == pytest.approx(expected, abs=1e-6)
    assert steps.price_at(start_at, feed, "NOK/MWh") is None


def test_document_is_read_back_the_same() -> None:
    assert read_tariff(write_tariff(TARIFF)) == TARIFF
    assert read_tariff({"name": "n", "valid_from_at": "2026-01-01T00:00:00Z"}) == Tariff("n", T0)


def test_example_of_the_how_to_is_a_tariff() -> None:
    page = Path(__file__).parents[3] / "docs" / "howto" / "tariffs.md"
    example = page.read_text(encoding="utf-8").partition("```json")[2].partition("```")[0]
    tariff = read_tariff(json.loads(example))
    assert (tariff.periods[0].name, tariff.taxes[1].ratio) == ("evening", 0.2)


_LEAST = {"name": "n", "valid_from_at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_from_at": "2026-01-01T00:00:00"}, "valid_from_at: must carry a UTC offset"),
        ({"factor": True}, "factor: must be a finite number, got True"),
        ({"factor": 101}, "factor: must be from -100 to 100, got 101"),
        ({"format": 2}, "format: must be 1, got 2"),
        ({"vat": 1}, "vat: is not known: must be of name, valid_from_at"),
        ({"adders": {}}, "adders: must be a list"),
        ({"adders": [{"name": "a"}]}, r"adders\[0\].price_per_mwh: is required, got None"),
        (
            {"adders": [{"name": "a", "price_per_mwh": 1, "in_period": "peak"}]},
            r"adders\[0\].in_period: must be one of the periods \(there is none\), got 'peak'",
        ),
        ({"taxes": [{"name": "t"}]}, r"taxes\[0\].ratio: give either ratio or price_per_mwh"),
        ({"taxes": [{"name": "t", "ratio": 20}]}, r"taxes\[0\].ratio: must be from 0 to 10, got"),
        ({"periods": [{"name": "p", "end": "25:00"}]}, r"periods\[0\].end: must be a local time"),
        ({"periods": [{"name": "p"}, {"name": "p"}]}, r"periods\[1\]: must be named once"),
        ({"holidays": ["Christmas"]}, r"holidays\[0\]: must be a date such as 2026-12-25"),
        (
            {"demand_charges": [{"name": "d", "price_per_kw": 1, "window_s": 600}]},
            r"demand_charges\[0\].window_s: must be 900, 1800 or 3600, got 600",
        ),
        (
            {"demand_charges": [{"name": "d", "price_per_kw": 1, "ratchet_ratio": 0.8}]},
            r"demand_charges\[0\].ratchet_months: must be above 0 exactly where",
        ),
        (
            {"conversion": {"from_currency": "EUR", "rate": 0, "as_of": "2026-01-01"}},
            "conversion.rate: must be from 1e-06 to",
        ),
        (
            {"coincident_peaks": [{"name": "c", "price_per_kw": 1, "hours": [{}]}]},
            r"coincident_peaks\[0\].hours\[0\].start_at: is required",
        ),
    ],
)
def test_bad_documents_are_named_by_path(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        read_tariff({**_LEAST, **changes})


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidValue, match="tariff: must be an object, got 3"):
        read_tariff(3)
