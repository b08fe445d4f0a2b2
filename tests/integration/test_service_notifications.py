"""What a listener hears of each use case, at commit and not before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from pals_grid.core.events import EventRequest
from pals_grid.service.events import cancel_event, create_event
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.nodes import authenticate_node, record_status
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import T0, World, batch, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.core.budget import PlanRequest, PowerBudget
    from pals_grid.store.engine import Database


class Listener:
    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection

    def heard(self) -> list[str]:
        # What was committed before is delivered with the next answer of the server.
        self._connection.execute("SELECT 1")
        return sorted(item.payload for item in self._connection.notifies(timeout=0.05))


@pytest.fixture
def listener(database: Database) -> Iterator[Listener]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("LISTEN pals_grid")
        yield Listener(connection)


def test_each_change_is_told_once(database: Database, listener: Listener) -> None:
    world = World(database)
    site = world.make_site()
    feed = world.make_feed()
    assert listener.heard() == [f"feed:{feed.id}"]
    node = authenticate_node(world.context, world.register().node_token)
    assert listener.heard() == [f"node:{site.id}", f"plan:{site.id}"]
    record_status(world.context, node, status())
    assert listener.heard() == [f"node:{site.id}"]
    ingest(world.context, node, batch(T0 - timedelta(minutes=1), 2))
    assert listener.heard() == [f"telemetry:{site.id}"]
    ingest(world.context, node, batch(T0 - timedelta(minutes=1), 2))
    assert listener.heard() == []
    order = EventRequest("e", T0, T0 + timedelta(hours=1), limit_w=600.0)
    event = create_event(world.context, "oslo", order)
    assert listener.heard() == [f"event:{site.id}", f"plan:{site.id}"]
    cancel_event(world.context, event.id, event.version)
    assert listener.heard() == [f"event:{site.id}", f"plan:{site.id}"]
    world.price.say(80)
    fetch_feed(world.context, feed.id)
    assert listener.heard() == [f"feed:{feed.id}", f"plan:{site.id}"]
    fetch_feed(world.context, feed.id)
    assert listener.heard() == [f"feed:{feed.id}"]


def test_nothing_is_told_of_what_was_rolled_back(database: Database, listener: Listener) -> None:
    def fail(request: PlanRequest) -> PowerBudget:
        raise RuntimeError(f"no plan for {request.policy.slug}")

    world = World(database)
    world.make_site()
    broken = replace(world.context, planner=fail)
    order = EventRequest("e", T0, T0 + timedelta(hours=1), limit_w=600.0)
    with pytest.raises(RuntimeError, match="no plan for oslo"):
        create_event(broken, "oslo", order)
    assert listener.heard() == []
