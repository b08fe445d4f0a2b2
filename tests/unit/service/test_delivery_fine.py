"""Delivery is measured by rows of five seconds, and only since the order was given."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import EventRequest
from pals_grid.service.events import create_event, load_delivery
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.telemetry import ingest

from .world import T0, batch

if TYPE_CHECKING:
    from .world import World


def send(world: World, start_s: float, rows: int, power_w: float, seq: int) -> None:
    node = authenticate_node(world.context, world.register().node_token)
    sent = batch(T0 + timedelta(seconds=start_s), rows)
    changed = [
        msgspec.structs.replace(row, node_energy_j=power_w * 5, gpu_energy_j=0.0, idle_energy_j=0.0)
        for row in sent.engine_rows
    ]
    ingest(world.context, node, msgspec.structs.replace(sent, seq=seq, engine_rows=changed))


def test_an_event_inside_two_minutes_is_measured_exactly(world: World) -> None:
    world.make_site()
    start_at, end_at = T0 + timedelta(seconds=30), T0 + timedelta(seconds=70)
    event = create_event(
        world.context, "oslo", EventRequest("short", start_at, end_at, limit_w=900.0)
    )
    send(world, 0, 6, 1000.0, 1)
    send(world, 30, 8, 880.0, 2)
    send(world, 70, 10, 1000.0, 3)
    world.clock.advance(600)
    delivery = load_delivery(world.context, event.id)
    assert delivery.mean_power_w == pytest.approx(880.0)
    assert (delivery.covered_s, delivery.within_limit_ratio) == (40.0, 1.0)


def test_time_before_the_order_does_not_count(world: World) -> None:
    world.make_site()
    send(world, 0, 24, 1000.0, 1)
    world.clock.advance(60)
    event = create_event(
        world.context,
        "oslo",
        EventRequest("late", T0, T0 + timedelta(seconds=120), limit_w=1100.0),
    )
    world.clock.advance(600)
    delivery = load_delivery(world.context, event.id)
    assert delivery.covered_s == 60.0
    assert delivery.points[0].start_at == T0 + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tokens_out": 1e15}, "tokens_out"),
        ({"node_energy_j": 9e12}, "node_energy_j"),
        ({"idle_energy_j": 1e9}, "idle_energy_j"),
        ({"gpu_energy_j": 1e9}, "gpu_energy_j"),
        ({"end_at": T0 + timedelta(days=1)}, "end_at"),
    ],
)
def test_a_row_that_cannot_be_is_refused_whole(
    world: World, change: dict[str, float], field: str
) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    world.clock.advance(3600)
    sent = batch(T0, 3)
    bad = [*sent.engine_rows[:2], msgspec.structs.replace(sent.engine_rows[2], **change)]
    with pytest.raises(InvalidValue, match=rf"engine_rows\[2\]\.{field}"):
        ingest(world.context, node, msgspec.structs.replace(sent, engine_rows=bad))
    assert ingest(world.context, node, sent).engine_rows_inserted == 3
