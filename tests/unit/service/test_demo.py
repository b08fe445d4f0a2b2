from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pals_grid_connectors.synthetic import Synthetic

from pals_grid.core.errors import FeedUnavailable
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.service.demo import ensure_demo
from pals_grid.service.feeds import fetch_feed, list_feeds
from pals_grid.service.paging import Page
from pals_grid.service.plans import list_plans, load_plan, replan
from tests.unit.service.world import T0, World, connector_type

if TYPE_CHECKING:
    from pals_grid.service.feeds import FeedView
    from pals_grid.store.engine import Database


@pytest.fixture
def demo_world(database: Database) -> World:
    world = World(database)
    price = connector_type(world.price, Quantity.PRICE, secret=False)
    carbon = connector_type(world.carbon, Quantity.AVERAGE_INTENSITY, secret=False)
    registry = ConnectorRegistry(
        {"octopus_agile": lambda: price, "neso": lambda: carbon, "synthetic": lambda: Synthetic}
    )
    world.context = replace(world.context, registry=registry)
    return world


def feeds(world: World) -> dict[str, FeedView]:
    return {view.feed.name: view for view in list_feeds(world.context, "demo", Page()).items}


def test_live_feeds_alone_where_they_answer(demo_world: World) -> None:
    demo_world.price.say(80, unit="GBP/MWh")
    demo_world.carbon.say(150, unit="gCO2eq/kWh")
    site = ensure_demo(demo_world.context)
    assert site.policy.currency == "GBP"
    assert set(feeds(demo_world)) == {"octopus_agile", "neso"}
    first = load_plan(demo_world.context, "demo").budget.intervals[0]
    assert (first.price_per_mwh, first.carbon_g_per_kwh) == (80, 150)


def test_synthetic_beside_a_live_feed_that_fails(demo_world: World) -> None:
    demo_world.price.error = FeedUnavailable("no route to host")
    demo_world.carbon.say(150, unit="gCO2eq/kWh")
    site = ensure_demo(demo_world.context)
    found = feeds(demo_world)
    assert set(found) == {"octopus_agile", "neso", "synthetic-price"}
    assert found["octopus_agile"].health.last_error == "no route to host"
    kinds = {item.feed: item.kinds for item in load_plan(demo_world.context, "demo").inputs}
    assert kinds["synthetic-price"] == (ValueKind.SYNTHETIC,)
    assert kinds["octopus_agile"] == ()
    asked = len(demo_world.price.windows)
    ensure_demo(demo_world.context)
    assert len(demo_world.price.windows) == asked
    demo_world.price.say(80, unit="GBP/MWh")
    fetch_feed(demo_world.context, found["octopus_agile"].feed.id)
    plan = replan(demo_world.context, site.id, "schedule")
    assert plan.budget.intervals[0].price_per_mwh == 80
    assert plan.budget.intervals[1].price_per_mwh not in {80, None}


def test_second_start_makes_nothing_and_asks_nobody(demo_world: World) -> None:
    demo_world.price.say(80, unit="GBP/MWh")
    demo_world.carbon.say(150, unit="gCO2eq/kWh")
    first = ensure_demo(demo_world.context)
    plans = list_plans(demo_world.context, "demo", Page())
    asked = len(demo_world.price.windows)
    assert ensure_demo(demo_world.context) == first
    assert len(demo_world.price.windows) == asked
    assert list_plans(demo_world.context, "demo", Page()) == plans


def test_without_fetching_there_is_a_site_with_a_plan(demo_world: World) -> None:
    ensure_demo(demo_world.context, fetch=False)
    assert demo_world.price.windows == []
    assert set(feeds(demo_world)) == {"octopus_agile", "neso"}
    plan = load_plan(demo_world.context, "demo")
    assert plan.budget.intervals[0].interval.start_at == T0
