from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.tariff import Adder, CoincidentPeak, Conversion, DemandCharge, RiskHour, Tariff
from pals_grid.core.tariff import Tax as TariffTax
from pals_grid.core.time_of_use import Period
from pals_grid.service.demand import load_demand_charges
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.plans import load_plan, replan
from pals_grid.service.reports import energy_report
from pals_grid.service.sites import update_site
from pals_grid.service.tariffs import list_tariffs, preview_tariff, set_tariff
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import HALF_HOUR, T0, batch

if TYPE_CHECKING:
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)
TARIFF = Tariff(
    name="large user",
    valid_from_at=T0,
    factor=1.1,
    adders=(Adder("network", 12.0), Adder("peak", 30.0, in_period="afternoon")),
    taxes=(TariffTax("VAT", ratio=0.2),),
    periods=(Period("afternoon", "12:30", "13:00"),),
    demand_charges=(DemandCharge("capacity", 10.0, 900),),
)


def test_tariff_is_stored_once_more_and_the_newest_of_a_day_holds(world: World) -> None:
    world.make_site()
    first = set_tariff(world.context, "oslo", TARIFF)
    later = set_tariff(
        world.context, "oslo", replace(TARIFF, name="next", valid_from_at=T0 + 30 * HOUR)
    )
    mended = set_tariff(world.context, "oslo", replace(TARIFF, factor=1.2))
    assert set_tariff(world.context, "oslo", replace(TARIFF, factor=1.2)) == mended
    view = list_tariffs(world.context, "oslo")
    assert [item.id for item in view.tariffs] == [mended.id, later.id, first.id]
    assert view.in_force == mended
    world.clock.advance(31 * 3600)
    assert list_tariffs(world.context, "oslo").in_force == later
    assert view.tariffs[-1].tariff == TARIFF


def test_plan_follows_at_once_with_what_the_site_pays(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.register()
    world.price.say(100, 100, -50)
    fetch_feed(world.context, feed.id)
    stored = set_tariff(world.context, "oslo", TARIFF)
    plan = load_plan(world.context, "oslo")
    assert plan.trigger == "tariff large user set"
    prices = [item.price_per_mwh for item in plan.budget.intervals[:4]]
    assert prices == pytest.approx([(110 + 12) * 1.2, (110 + 42) * 1.2, (-55 + 12) * 1.2, None])
    source = plan.budget.intervals[0].price_source
    assert source is not None
    assert (source.value, source.unit, source.tariff_id) == (100, "EUR/MWh", stored.id)
    assert plan.budget.intervals[3].price_source is None


def test_later_tariff_prices_only_its_own_slots(world: World) -> None:
    site = world.make_site()
    feed = world.make_feed()
    world.price.say(100, 100)
    fetch_feed(world.context, feed.id)
    later = replace(TARIFF, valid_from_at=T0 + HALF_HOUR, periods=(), adders=(), taxes=())
    set_tariff(world.context, "oslo", later)
    plan = replan(world.context, site.id, "schedule")
    prices = [item.price_per_mwh for item in plan.budget.intervals[:2]]
    assert prices == pytest.approx([100, 110])


def test_risk_of_the_grids_peak_moves_work_and_stands_beside_the_price(world: World) -> None:
    world.make_site(deferrable_ratio=0.5, demand_tokens_per_s=600.0)
    feed = world.make_feed()
    world.register()
    world.price.say(*[100.0] * 20)
    fetch_feed(world.context, feed.id)
    hour = RiskHour(T0, T0 + HOUR, 0.2)
    risky = Tariff("t", T0, coincident_peaks=(CoincidentPeak("triad", 45.0, (hour,)),))
    set_tariff(world.context, "oslo", risky)
    plan = load_plan(world.context, "oslo")
    first, third = plan.budget.intervals[0], plan.budget.intervals[2]
    assert first.peak_risk_per_mwh == pytest.approx(9000)
    assert (first.price_per_mwh, third.price_per_mwh) == (100, 100)
    assert third.peak_risk_per_mwh == 0
    assert first.planned_tokens_per_s < third.planned_tokens_per_s
    assert "9000.00 EUR/MWh for the risk of the grid's peak" in first.explanation


def test_feed_in_another_currency_needs_a_stated_conversion(world: World) -> None:
    site = world.make_site(currency="GBP")
    feed = world.make_feed()
    world.price.say(100, 200)
    refused = fetch_feed(world.context, feed.id)
    assert refused.error is not None
    assert "unit: must be GBP/MWh, as its site's or as a tariff converts it" in refused.error
    conversion = Conversion("EUR", 0.85, date(2026, 3, 1))
    set_tariff(world.context, "oslo", Tariff("t", T0, conversion=conversion))
    assert fetch_feed(world.context, feed.id).error is None
    plan = load_plan(world.context, "oslo")
    assert plan.budget.intervals[0].price_per_mwh == pytest.approx(85)
    # Without the conversion the stored values mean nothing; they are not taken as pounds.
    set_tariff(world.context, "oslo", Tariff("none", T0))
    plan = replan(world.context, site.id, "schedule")
    assert plan.budget.intervals[0].price_per_mwh is None


def test_preview_shows_both_prices_and_stores_nothing(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    reply = world.register()
    node = authenticate_node(world.context, reply.node_token)
    world.price.say(100)
    fetch_feed(world.context, feed.id)
    february = datetime(2026, 2, 28, 9, tzinfo=UTC)
    world.clock.at = february + HOUR
    ingest(world.context, node, batch(february, 360, power_w=1500.0))
    world.clock.at = T0
    before = load_plan(world.context, "oslo").version
    preview = preview_tariff(world.context, "oslo", TARIFF)
    assert len(preview.slots) == 96
    slot = preview.slots[0]
    assert slot.before is not None
    assert slot.after is not None
    assert slot.before.price_per_mwh == 100
    assert slot.after.price_per_mwh == pytest.approx(146.4)
    assert slot.after.sentence() == "146.40 = 100.00 × 1.1 + 12.00 network + 24.40 VAT"
    assert preview.slots[1].after is None
    assert preview.month_before.charges == ()
    (charge,) = preview.month_after.charges
    assert charge.peak.power_w == pytest.approx(1500)
    assert charge.peak.start_at == february
    assert charge.cost == pytest.approx(15)
    assert list_tariffs(world.context, "oslo").tariffs == ()
    assert load_plan(world.context, "oslo").version == before


def test_report_prices_energy_by_the_tariff_of_its_time(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    node = authenticate_node(world.context, world.register().node_token)
    world.price.say(100, 100)
    fetch_feed(world.context, feed.id)
    set_tariff(world.context, "oslo", TARIFF)
    world.clock.advance(3600)
    ingest(world.context, node, batch(T0, 720, power_w=1200.0))
    report = energy_report(world.context, "oslo", Interval(T0, T0 + HOUR), frozenset())
    assert report.total.node_energy_kwh == pytest.approx(1.2)
    mean_price = ((110 + 12) + (110 + 42)) / 2 * 1.2
    assert report.total.cost == pytest.approx(1.2 / 1000 * mean_price)
    cheaper = replace(TARIFF, valid_from_at=T0 + HALF_HOUR, factor=0.0, adders=(), taxes=())
    set_tariff(world.context, "oslo", cheaper)
    report = energy_report(world.context, "oslo", Interval(T0, T0 + HOUR), frozenset())
    assert report.total.cost == pytest.approx(0.6 / 1000 * (110 + 12) * 1.2)


def test_demand_charge_of_the_running_month_is_a_line_of_its_own(world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    assert load_demand_charges(world.context, "oslo", Interval(T0, T0 + HOUR)) == ()
    set_tariff(world.context, "oslo", TARIFF)
    world.clock.advance(3600)
    ingest(world.context, node, batch(T0, 720, power_w=1200.0))
    (month,) = load_demand_charges(world.context, "oslo", Interval(T0, T0 + HOUR))
    assert (month.running, month.currency, month.tariff) == (True, "EUR", "large user")
    assert month.charges[0].cost == pytest.approx(12)
    assert month.month.start_at == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tariff", "message"),
    [
        (
            Tariff("t", T0, conversion=Conversion("EUR", 1.0, date(2026, 3, 1))),
            "conversion.from_currency: must be another currency than the site's, EUR, got 'EUR'",
        ),
        (
            Tariff("t", T0, conversion=Conversion("GBP", 1.0, date(2026, 4, 1))),
            "conversion.as_of: must not be after today, 2026-03-02, got '2026-04-01'",
        ),
        (Tariff("t", T0 - timedelta(days=4000)), "valid_from_at: must be within 1098 days of now"),
    ],
)
def test_tariff_that_the_site_cannot_have(world: World, tariff: Tariff, message: str) -> None:
    world.make_site()
    with pytest.raises(InvalidValue, match=message):
        set_tariff(world.context, "oslo", tariff)
    with pytest.raises(InvalidValue, match=message):
        preview_tariff(world.context, "oslo", tariff)


def test_site_with_a_tariff_keeps_its_currency(world: World) -> None:
    site = world.make_site()
    set_tariff(world.context, "oslo", TARIFF)
    with pytest.raises(InvalidValue, match="must stay EUR while the site has the tariff 'large"):
        update_site(world.context, "oslo", replace(site.policy, currency="GBP"), None)
