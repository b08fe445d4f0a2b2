from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import structs

from pals_grid.core.budget import Constraint
from pals_grid.core.intervals import Interval
from pals_grid.core.site import ServiceTier
from pals_grid.core.tariff import DemandCharge, Tariff
from pals_grid.core.time_of_use import Period
from pals_grid.forecast.issued import ForecastValue
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.nodes import (
    authenticate_node,
    issue_enrolment_token,
    record_status,
    register_node,
)
from pals_grid.service.plan_inputs import load_peak_charges
from pals_grid.service.plans import load_envelopes, load_plan, replan
from pals_grid.service.tariffs import set_tariff
from pals_grid.service.telemetry import ingest
from pals_grid.store.forecasts import ForecastRepository
from pals_grid.store.nodes import NodeRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.tariffs import TariffRepository
from pals_grid.wire.messages import GpuStatus
from tests.unit.service.test_forecasting import load_forecaster
from tests.unit.service.world import HALF_HOUR, T0, batch, registration, status

if TYPE_CHECKING:
    from pals_grid.core.budget import Finding, PeakCharge, PlanRequest, PowerBudget
    from pals_grid.wire.messages import NodeStatus
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def charges_at(world: World, now: datetime, hours: float) -> tuple[PeakCharge, ...]:
    with world.database.read() as connection:
        site = SiteRepository(connection).load("oslo")
        pricing = TariffRepository(connection).load_pricing(site)
        horizon = Interval(now, now + hours * HOUR)
        return load_peak_charges(connection, site, pricing, horizon, now)


def measure(world: World, at: datetime, power_w: float) -> None:
    """An hour of telemetry of one node."""
    node = authenticate_node(world.context, world.register().node_token)
    world.clock.at = at + HOUR
    ingest(world.context, node, batch(at, 360, power_w=power_w))


def test_without_a_charge_nothing_is_read(world: World) -> None:
    world.make_site()
    assert charges_at(world, T0, 36) == ()


def test_each_month_has_its_charge_and_the_peak_that_is_billed_already(world: World) -> None:
    world.make_site(timezone="UTC")
    ratchet = DemandCharge("capacity", 10.0, 900, ratchet_ratio=0.5, ratchet_months=1)
    last = datetime(2026, 3, 31, 6, tzinfo=UTC)
    measure(world, last, 1500.0)
    set_tariff(world.context, "oslo", Tariff("t", T0, demand_charges=(ratchet,)))
    march, april = charges_at(world, last + 6 * HOUR, 36)
    assert (march.name, april.name) == ("capacity 2026-03", "capacity 2026-04")
    assert march.intervals[0].end_at == april.intervals[0].start_at
    assert april.intervals[0].end_at == last + 42 * HOUR
    assert march.reached_w == pytest.approx(1500.0)
    assert april.reached_w == pytest.approx(750.0)
    assert (march.price_per_kw, march.window_s) == (10.0, 900)


def test_a_charge_of_some_hours_counts_in_those_alone(world: World) -> None:
    world.make_site(timezone="UTC")
    tariff = Tariff(
        "t",
        T0,
        periods=(Period("evening", "17:00", "20:00"),),
        demand_charges=(DemandCharge("evening", 5.0, 900, in_period="evening"),),
    )
    set_tariff(world.context, "oslo", tariff)
    (charge,) = charges_at(world, T0, 48)
    assert [item.start_at.hour for item in charge.intervals] == [17, 17]
    assert {item.duration_s for item in charge.intervals} == {3 * 3600.0}


@dataclass
class Listening:
    """The planner, and what it was asked."""

    asked: list[PlanRequest] = field(default_factory=list)

    def __call__(self, request: PlanRequest) -> PowerBudget:
        self.asked.append(request)
        return plan_power_budget(request)


def test_plan_hears_of_peaks_and_of_marginal_carbon_where_it_counts(world: World) -> None:
    site = world.make_site(marginal_carbon_ratio=1.0, carbon_price_per_tonne=100.0)
    world.marginal.say(400, 500, unit="gCO2eq/kWh")
    fetch_feed(world.context, world.make_feed("marginal", "moer").id)
    world.register()
    world.price.say(*[100.0] * 4)
    fetch_feed(world.context, world.make_feed().id)
    tariff = Tariff("t", T0, demand_charges=(DemandCharge("capacity", 10.0, 900),))
    set_tariff(world.context, "oslo", tariff)
    listening = Listening()
    replan(replace(world.context, planner=listening), site.id, "schedule")
    (request,) = listening.asked
    assert [item.name for item in request.peak_charges] == ["capacity 2026-03"]
    marginal = [slot.marginal_carbon_g_per_kwh for slot in request.slots]
    assert marginal[:3] == [400, 500, None]
    assert {slot.carbon_g_per_kwh for slot in request.slots} == {None}
    assert {slot.demand_high_tokens_per_s for slot in request.slots} == {None}


def test_plan_hears_of_the_loads_upper_quantile_while_the_model_is_used(world: World) -> None:
    site = world.make_site()
    world.register()
    begin_s = int(T0.timestamp())
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(load_forecaster(site.id))
        value = ForecastValue(begin_s, begin_s + 3600, 50.0, 70.0, 99.0, None)
        repository.add_values(made.id, T0, [value])
    listening = Listening()
    replan(replace(world.context, planner=listening), site.id, "schedule")
    (request,) = listening.asked
    found = [(s.demand_tokens_per_s, s.demand_high_tokens_per_s) for s in request.slots[:3]]
    assert found == [(70, 99), (70, 99), (100, None)]


def ask(world: World, site_id: int) -> PlanRequest:
    listening = Listening()
    replan(replace(world.context, planner=listening), site_id, "schedule")
    return listening.asked[0]


def test_a_cap_counts_what_the_local_day_has_had(world: World) -> None:
    """Oslo's day began at 23:00 UTC: an hour before it is not the day's, nor is the slot's own."""
    site = world.make_site(timezone="Europe/Oslo", carbon_cap_kg_per_day=10.0)
    midnight = datetime(2026, 3, 1, 23, tzinfo=UTC)
    world.carbon.say(*[500.0] * 30, start_at=midnight - HOUR, unit="gCO2eq/kWh", kind="measured")
    fetch_feed(world.context, world.make_feed("carbon", "co2").id)
    node = authenticate_node(world.context, world.register().node_token)
    for seq, at in enumerate((midnight - HOUR, midnight + HOUR, T0 - HOUR, T0 + HOUR / 2)):
        world.clock.at = at + HOUR
        ingest(world.context, node, batch(at, 360, power_w=1000.0, seq=seq))
    world.clock.at = T0 + HOUR / 2
    # Two half hours at 1 kW and 500 g/kWh; a batch of half an hour is 360 rows of 5 s.
    assert ask(world, site.id).carbon_spent_kg == pytest.approx(0.5)


def test_a_day_that_has_spent_its_cap_plans_less(world: World) -> None:
    tiers = (ServiceTier("sheddable", 1.0, loss_ratio=1.0, value_per_mtoken=1.0),)
    site = world.make_site(
        carbon_cap_kg_per_day=3.0, tiers=tiers, demand_tokens_per_s=1000.0, minimum_w=0.0
    )
    world.carbon.say(*[500.0] * 80, start_at=T0 - HOUR * 2, unit="gCO2eq/kWh")
    fetch_feed(world.context, world.make_feed("carbon", "co2").id)
    node = authenticate_node(world.context, world.register().node_token)
    world.price.say(*[50.0] * 80)
    fetch_feed(world.context, world.make_feed().id)

    def planned_today() -> float:
        budget = replan(world.context, site.id, "schedule").budget
        return sum(item.expected_power_w for item in budget.intervals[:24])

    before_w = planned_today()
    ingest(world.context, node, batch(T0 - HOUR, 360, power_w=2000.0))
    assert planned_today() < before_w - 2000.0


def test_a_ramp_counts_from_what_the_nodes_drew_before_the_slot(world: World) -> None:
    site = world.make_site(ramp_w_per_min=10.0, minimum_w=900.0)
    assert ask(world, site.id).power_before_w is None
    node = authenticate_node(world.context, world.register().node_token)
    expected_w = load_plan(world.context, "oslo").budget.intervals[0].expected_power_w
    world.clock.at = T0 + HALF_HOUR
    record_status(world.context, node, status(world.clock.at))
    assert ask(world, site.id).power_before_w == pytest.approx(expected_w)
    ingest(world.context, node, batch(world.clock.at - HOUR / 10, 72, power_w=500.0))
    plan = replan(world.context, site.id, "schedule")
    assert ask(world, site.id).power_before_w == pytest.approx(500.0)
    # Half a slot's minutes away: 500 W and 15 min at 10 W.
    assert plan.budget.intervals[0].limit_w == pytest.approx(650.0)
    world.clock.advance(20 * 60)
    record_status(world.context, node, status(world.clock.at))
    ingest(world.context, node, batch(world.clock.at - HOUR / 10, 72, power_w=650.0, seq=2))
    # In the middle of a slot it still counts from before it, else each plan would add a step.
    assert ask(world, site.id).power_before_w == pytest.approx(500.0)


def test_nodes_that_did_not_report_count_like_the_others(world: World) -> None:
    site = world.make_site(ramp_w_per_min=10.0)
    nodes = [
        authenticate_node(world.context, world.register(name, scale=scale).node_token)
        for name, scale in (("a", 3.0), ("b", 1.0), ("silent", 1.0))
    ]
    world.clock.at = T0 + HALF_HOUR
    for node in nodes[:2]:
        record_status(world.context, node, status(world.clock.at))
    ingest(world.context, nodes[0], batch(world.clock.at - HOUR / 10, 72, power_w=1500.0))
    request = ask(world, site.id)
    reserved_w = request.slots[0].reserved_w
    assert reserved_w > 0
    assert request.power_before_w == pytest.approx(1500.0 * 4 / 3 + reserved_w)


def throttled(at: datetime, power_w: float, *reasons: str) -> NodeStatus:
    """One GPU of a limit of up to 700 W that draws 400."""
    gpu = GpuStatus(
        gpu_uuid="GPU-0",
        power_draw_w=400.0,
        power_limit_w=600.0,
        temperature_c=90.0,
        clock_reasons=list(reasons),
    )
    return msgspec.structs.replace(status(at, power_w), gpus=[gpu])


def test_a_node_that_heat_throttles_is_asked_for_less_until_an_hour_later(world: World) -> None:
    site = world.make_site(demand_tokens_per_s=2500.0)
    hot, cool = (
        authenticate_node(world.context, world.register(name).node_token) for name in ("hot", "b")
    )

    def most_w() -> tuple[dict[int, float], dict[int, float], tuple[Finding, ...]]:
        plan = replan(world.context, site.id, "schedule")
        found: dict[datetime, dict[int, float]] = {}
        for item in load_envelopes(world.context, "oslo"):
            found.setdefault(item.interval.start_at, {})[item.node_id] = item.power_max_w
        thermal = [f for f in plan.budget.findings if f.constraint is Constraint.THERMAL]
        starts = sorted(found)
        return found[starts[0]], found[starts[4]], tuple(thermal)

    def tell(*reasons: str) -> None:
        record_status(world.context, hot, throttled(world.clock.at, 1650.0, *reasons))
        record_status(world.context, cool, throttled(world.clock.at, 1650.0, "power_limit"))

    tell("power_limit")
    now, _, found = most_w()
    assert now[hot.id] == pytest.approx(2000.0)
    assert not found
    tell("power_limit", "thermal")
    now, later, (finding,) = most_w()
    assert now == pytest.approx({hot.id: 1700.0, cool.id: 2000.0})
    assert later[hot.id] == pytest.approx(2000.0)
    assert (finding.name, finding.amount, finding.unit) == ("hot", 300.0, "W")
    assert finding.interval.end_at == T0 + HOUR
    assert "1.70 kW of 2.00 kW until 2026-03-02 13:00" in finding.explanation
    world.clock.advance(1800)
    tell("power_limit")
    now, _, (finding,) = most_w()
    assert now[hot.id] == pytest.approx(1700.0)
    assert finding.interval.end_at == T0 + HOUR
    world.clock.advance(1800)
    tell("power_limit")
    now, _, found = most_w()
    assert now[hot.id] == pytest.approx(2000.0)
    assert not found


def test_heat_holds_a_node_whose_curve_ends_below_its_most_power_at_one_limit(
    world: World,
) -> None:
    site = world.make_site(demand_tokens_per_s=2500.0)
    token = issue_enrolment_token(world.context, "oslo")
    hungry = structs.replace(registration("hot"), power_max_w=2200.0)
    reply = register_node(world.context, token, hungry)
    hot = authenticate_node(world.context, reply.node_token)
    record_status(world.context, hot, throttled(T0, 1500.0, "thermal"))
    limits_w = []
    for _ in range(3):
        replan(world.context, site.id, "schedule")
        limits_w.append(load_envelopes(world.context, "oslo")[0].power_max_w)
        world.clock.advance(600)
        record_status(world.context, hot, throttled(world.clock.at, 1500.0, "power_limit"))
    assert limits_w == pytest.approx([1900.0] * 3)


def test_a_hot_nodes_limit_is_never_below_what_it_draws(world: World) -> None:
    world.make_site(demand_tokens_per_s=2500.0)
    node = authenticate_node(world.context, world.register().node_token)
    record_status(world.context, node, throttled(T0, 1900.0, "thermal"))
    with world.database.read() as connection:
        found = NodeRepository(connection).load_throttled_w(node.site_id, T0 - HOUR)
        assert found == {node.id: 1900.0}
        assert NodeRepository(connection).load_throttled_w(node.site_id, T0) == {}
