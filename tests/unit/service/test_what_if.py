from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.budget import Constraint
from pals_grid.core.errors import Busy, Conflict, InvalidValue
from pals_grid.core.events import EventRequest
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind
from pals_grid.core.site import ServiceTier
from pals_grid.core.tariff import Adder, DemandCharge, Tariff
from pals_grid.counterfactual import names
from pals_grid.forecast.issued import ForecastValue
from pals_grid.forecast.scoring import Score
from pals_grid.service import what_if as module
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.nodes import issue_enrolment_token, register_node
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, replan
from pals_grid.service.what_if import AS_IT_STANDS, FORESIGHT, WITH_CHANGES, what_if
from pals_grid.service.what_if_changes import Changes
from pals_grid.sim.demo import DEMO_SPEC
from pals_grid.store.forecasts import ForecastRepository
from pals_grid.store.observations import ObservationRepository
from tests.unit.service.test_forecasting import load_forecaster
from tests.unit.service.world import T0, registration

if TYPE_CHECKING:
    from pals_grid.core.site import Site
    from pals_grid.service.what_if import WhatIf
    from pals_grid.store.forecasts import Forecaster
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2026, 3, 3, tzinfo=UTC)
PRICES = [120.0 if 6 <= (i // 2) % 24 < 12 else 40.0 for i in range(72)]
CLEAN = [400.0 if 6 <= (i // 2) % 24 < 12 else 50.0 for i in range(72)]
DIRTY_WHEN_CHEAP = [50.0 if 6 <= (i // 2) % 24 < 12 else 600.0 for i in range(72)]


def _better_forecaster(site_id: int) -> Forecaster:
    """A model that beats its rival at all leads."""
    made = load_forecaster(site_id)
    assert made.learned is not None
    return replace(made, learned=replace(made.learned, hold_out=[Score(0, 48, 200, 1, 2, 0.8)]))


def _ready(world: World, carbon: list[float] | None = None, **policy: Any) -> Site:  # noqa: ANN401
    site = world.make_site(demand_tokens_per_s=600.0, deferrable_ratio=0.4, **policy)
    price, intensity = world.make_feed(), world.make_feed("carbon", "c")
    world.register()
    world.price.say(*PRICES)
    world.carbon.say(*(carbon or CLEAN), unit="gCO2eq/kWh")
    for feed in (price, intensity):
        assert fetch_feed(world.context, feed.id).fetched
    return site


def _ask(world: World, **changes: Any) -> WhatIf:  # noqa: ANN401 - fields of Changes
    return what_if(world.context, "oslo", Changes(**changes))


def test_without_changes_it_is_the_plan_that_would_be_stored(world: World) -> None:
    site = _ready(world)
    before = list_plans(world.context, "oslo", Page()).items
    found = _ask(world)
    assert list_plans(world.context, "oslo", Page()).items == before
    stored = replan(world.context, site.id, "test").budget
    assert [item.limit_w for item in found.budget.intervals] == [
        item.limit_w for item in stored.intervals
    ]
    assert found.changed_budget is None
    assert [item.name for item in found.alternatives if not item.changed] == [
        AS_IT_STANDS,
        names.NO_CONTROL,
        names.AS_IT_COMES,
        names.PRICE_THRESHOLD,
        names.CARBON_THRESHOLD,
    ]


def test_the_next_local_day_is_counted_as_far_as_the_plan_reaches(world: World) -> None:
    _ready(world, timezone="Europe/Oslo")
    found = _ask(world)
    assert found.interval == Interval(MIDNIGHT - HOUR, MIDNIGHT + 23 * HOUR)
    assert found.notes[0].startswith("There is no model of the engines of gpu-1")
    world.clock.at = MIDNIGHT + 2 * HOUR
    world.register("gpu-2")
    late = _ask(world)
    assert late.interval == Interval(MIDNIGHT + 23 * HOUR, MIDNIGHT + 38 * HOUR)
    assert "36 h ahead: tomorrow is counted up to there" in late.notes[0]


def test_sums_are_those_of_the_plan_s_slots(world: World) -> None:
    _ready(world)
    found = _ask(world)
    outcome = found.alternative(AS_IT_STANDS).outcome
    items = [i for i in found.budget.intervals if found.interval.overlap_s(i.interval) > 0]
    hours = 0.5
    assert outcome.energy_kwh == pytest.approx(
        sum(i.expected_power_w for i in items) / 1000 * hours
    )
    assert outcome.cost == pytest.approx(
        sum(i.expected_power_w / 1e6 * hours * (i.price_per_mwh or 0) for i in items)
    )
    assert outcome.peak_w == max(i.expected_power_w for i in items)
    assert outcome.tokens_served == pytest.approx(sum(i.planned_tokens_per_s * 1800 for i in items))


def test_over_the_whole_plan_all_serve_the_same_and_the_plan_costs_least(world: World) -> None:
    _ready(world)
    found = _ask(world)
    assert len({round(item.whole.tokens_served) for item in found.alternatives}) == 1
    worth = {item.name: item.whole.worth or 0.0 for item in found.alternatives}
    assert min(worth, key=worth.__getitem__) == AS_IT_STANDS
    assert worth[names.PRICE_THRESHOLD] <= worth[names.AS_IT_COMES] * (1 + 1e-9)
    assert worth[names.AS_IT_COMES] < worth[names.NO_CONTROL]


def test_a_carbon_price_of_1000_shifts_energy_to_clean_hours(world: World) -> None:
    _ready(world, DIRTY_WHEN_CHEAP)
    found = _ask(world, policy={"carbon_price_per_tonne": 1000.0})
    held, changed = found.alternative(AS_IT_STANDS), found.alternative(WITH_CHANGES)
    assert changed.changed
    assert changed.whole.tokens_served == pytest.approx(held.whole.tokens_served, rel=1e-6)
    assert (changed.whole.carbon_kg or 0) < 0.95 * (held.whole.carbon_kg or 0)
    assert (changed.whole.cost or 0) > (held.whole.cost or 0)


def test_an_impossible_event_is_a_finding_and_breaks_the_rivals(world: World) -> None:
    _ready(world)
    event = EventRequest("drill", MIDNIGHT + 6 * HOUR, MIDNIGHT + 8 * HOUR, limit_w=100.0)
    found = _ask(world, event=event)
    changed = found.alternative(WITH_CHANGES)
    (finding,) = (i for i in changed.course.findings if i.constraint is Constraint.EVENT)
    assert (finding.name, finding.amount, finding.unit) == ("drill", 200.0, "W")
    assert changed.outcome.tokens_lost > 0
    assert (changed.outcome.floor_misses_tokens or 0) > 0
    (breach,) = found.alternative(names.NO_CONTROL).course.findings
    assert breach.interval == event.event_interval
    assert breach.amount > 500
    assert found.alternative(AS_IT_STANDS).course.findings == ()


def test_a_reduction_counts_from_what_a_stored_event_would(world: World) -> None:
    _ready(world)
    event = EventRequest("drill", MIDNIGHT, MIDNIGHT + HOUR, reduction_ratio=0.25)
    found = _ask(world, event=event)
    at = next(i for i in found.budget.intervals if i.interval.start_at == MIDNIGHT)
    course = found.alternative(WITH_CHANGES).course
    assert course.limit_w is not None
    where = [slot.interval.start_at for slot in course.slots].index(MIDNIGHT)
    assert course.limit_w[where] <= 0.75 * at.expected_power_w + 1e-6


def test_demand_and_tariff_change_every_rival_too(world: World) -> None:
    _ready(world)
    tariff = Tariff(
        "dear",
        MIDNIGHT + 300 * HOUR,
        adders=(Adder("network", 100.0),),
        demand_charges=(DemandCharge("capacity", 10.0, 1800),),
    )
    found = _ask(world, demand_ratio=1.5, tariff=tariff)
    held, rival = found.alternative(AS_IT_STANDS), found.alternative(names.NO_CONTROL)
    assert rival.changed
    assert rival.outcome.tokens_arrived == pytest.approx(1.5 * held.outcome.tokens_arrived)
    assert rival.outcome.demand_charge == pytest.approx(10 * rival.outcome.peak_w / 1000)
    assert held.outcome.demand_charge == 0
    prices = [slot.price_per_mwh for slot in rival.course.slots]
    assert prices[0] == PRICES[0] + 100
    assert any("whatever it is valid from" in note for note in found.notes)


def test_tiers_are_tried_on_a_site_without_any(world: World) -> None:
    _ready(world)
    tiers = (ServiceTier("chat", 0.6), ServiceTier("bulk", 0.4, 1.0, 0.0001))
    found = _ask(world, policy={"tiers": tiers})
    assert found.alternative(WITH_CHANGES).outcome.tokens_lost > 0


def test_what_is_not_there_says_why(world: World) -> None:
    world.make_site(demand_tokens_per_s=600.0)
    world.register()
    reasons = {item.name: item.reason for item in _ask(world).absent}
    assert set(reasons) == {
        FORESIGHT,
        names.STATIC,
        names.PRICE_THRESHOLD,
        names.CARBON_THRESHOLD,
    }
    assert "nothing is known beyond the forecast" in reasons[FORESIGHT]
    assert reasons[names.PRICE_THRESHOLD] == "no price is known or forecast for these hours"
    assert reasons[names.STATIC].startswith("there is no model of the nodes' engines")
    outcome = _ask(world).alternative(AS_IT_STANDS).outcome
    assert (outcome.cost, outcome.carbon_kg, outcome.cost_per_mtoken) == (None, None, None)


def test_a_node_that_the_plant_knows_has_every_rival(world: World) -> None:
    world.make_site(demand_tokens_per_s=900.0)
    known = registration("a100", 1.0)
    gpu = replace_gpu(known.gpus[0], DEMO_SPEC.gpu_model)
    request = type(known)(
        name="a100",
        hardware="4 x A100",
        agent_version="1",
        origin=Origin.SIMULATED,
        gpus=[gpu] * DEMO_SPEC.gpu_count,
        models=[DEMO_SPEC.model],
        power_min_w=known.power_min_w,
        power_max_w=known.power_max_w,
        curve=known.curve,
    )
    register_node(world.context, issue_enrolment_token(world.context, "oslo"), request)
    found = _ask(world)
    free, static = (found.alternative(name) for name in (names.NO_CONTROL, names.STATIC))
    assert free.course.settings == "400 W"
    assert static.outcome.energy_kwh <= free.outcome.energy_kwh
    assert found.alternative(AS_IT_STANDS).outcome.energy_kwh < static.outcome.energy_kwh
    assert not any("no model" in note for note in found.notes)


def replace_gpu(gpu: Any, model: str) -> Any:  # noqa: ANN401 - a message of the wire
    return type(gpu)(
        uuid=gpu.uuid, model=model, limit_min_w=100, limit_max_w=400, limit_default_w=400
    )


def test_sources_are_told_with_their_hours(world: World) -> None:
    _ready(world)
    shares = {(i.quantity, i.kind): i for i in _ask(world).sources}
    assert shares["price", "forecast"].hours == 24
    assert shares["price", "forecast"].words == "from p (forecast)"
    assert shares["demand", "stated"].hours == 24


@pytest.mark.parametrize(
    ("changes", "span", "field"),
    [
        ({"policy": {"horizon_s": 3600.0}}, {}, "horizon_s"),
        ({"policy": {"maximum_w": 1e9}}, {}, "maximum_w"),
        ({"demand_ratio": -1.0}, {}, "demand_ratio"),
        ({"demand_ratio": float("nan")}, {}, "demand_ratio"),
        ({}, {"start_at": T0 - HOUR}, "start_at"),
        ({}, {"end_at": T0 + 37 * HOUR}, "end_at"),
        ({}, {"start_at": T0 + 2 * HOUR, "end_at": T0 + HOUR}, "end_at"),
        ({"event": EventRequest("e", T0 - 2 * HOUR, T0 - HOUR, limit_w=1.0)}, {}, "event.end_at"),
        (
            {"event": EventRequest("e", T0 + 90 * HOUR, T0 + 91 * HOUR, limit_w=1.0)},
            {},
            "event.start_at",
        ),
    ],
)
def test_what_cannot_be_asked_is_named(
    world: World, changes: dict[str, Any], span: dict[str, datetime], field: str
) -> None:
    _ready(world)
    with pytest.raises(InvalidValue) as refused:
        what_if(world.context, "oslo", Changes(**changes), **span)
    assert refused.value.field == field


def test_a_site_without_a_node_online_has_nothing_to_plan_with(world: World) -> None:
    world.make_site()
    with pytest.raises(Conflict, match="no node of site 'oslo' is online"):
        _ask(world)


def test_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _ready(world)
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    inside, leave = threading.Event(), threading.Event()
    planner = world.context.planner

    def slow(request: Any) -> Any:  # noqa: ANN401 - a planner
        inside.set()
        leave.wait(180)
        return planner(request)

    waiting = replace(world.context, planner=slow)
    other = threading.Thread(target=what_if, args=(waiting, "oslo", Changes()))
    other.start()
    assert inside.wait(180)
    with pytest.raises(Busy):
        _ask(world)
    leave.set()
    other.join()
    assert _ask(world).alternatives


def test_edges_of_our_own_forecasts_are_a_range(world: World) -> None:
    site = _ready(world)
    begin_s = int(T0.timestamp())
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(_better_forecaster(site.id))
        steps = [
            ForecastValue(at_s, at_s + 3600, 300.0, 600.0, 1200.0, None)
            for at_s in range(begin_s, begin_s + 40 * 3600, 3600)
        ]
        repository.add_values(made.id, T0, steps)
    found = _ask(world, demand_ratio=1.1)
    rival = found.alternative(names.AS_IT_COMES)
    assert rival.low is not None
    assert rival.high is not None
    day_s = 24 * 3600
    arrived = (rival.low.tokens_arrived, rival.outcome.tokens_arrived, rival.high.tokens_arrived)
    assert arrived == pytest.approx((330 * day_s, 660 * day_s, 1320 * day_s))
    assert (rival.low.cost or 0) < (rival.outcome.cost or 0) < (rival.high.cost or 0)
    assert {i.kind for i in found.sources if i.quantity == "demand"} == {"model"}


def test_prices_that_our_model_forecasts_have_edges_by_the_tariff(world: World) -> None:
    site = world.make_site(demand_tokens_per_s=600.0)
    feed = world.make_feed()
    world.register()
    world.price.say(*[80.0] * 4)
    fetch_feed(world.context, feed.id)
    hours = [T0 + HOUR * i for i in range(2, 40)]
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(replace(load_forecaster(site.id), feed_id=feed.id))
        values = [
            Observation(at, at + HOUR, 100.0, "EUR/MWh", ValueKind.MODELLED, T0) for at in hours
        ]
        ObservationRepository(connection).add(feed.id, values, T0)
        steps = [
            ForecastValue(int(at.timestamp()), int(at.timestamp()) + 3600, 50.0, 100.0, 200.0, None)
            for at in hours
        ]
        repository.add_values(made.id, T0, steps)
    tariff = Tariff("t", T0, adders=(Adder("network", 10.0),))
    found = _ask(world, tariff=tariff)
    changed = found.alternative(WITH_CHANGES)
    assert changed.low is not None
    assert changed.high is not None
    assert (changed.low.cost or 0) / (changed.outcome.cost or 1) == pytest.approx(60 / 110)
    assert (changed.high.cost or 0) / (changed.outcome.cost or 1) == pytest.approx(210 / 110)
    assert {i.kind for i in found.sources if i.quantity == "price"} == {"model"}
    assert (changed.whole.cost or 0) > (changed.outcome.cost or 0)
