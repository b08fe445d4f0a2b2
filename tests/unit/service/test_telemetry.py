from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import text

from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.series import ValueKind
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.paging import Page
from pals_grid.service.reports import energy_report
from pals_grid.service.telemetry import (
    ingest,
    load_engine_rows,
    load_power_series,
    maintain_partitions,
)
from pals_grid.store.partitions import oldest_partition_day
from tests.unit.service.world import T0, batch

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node
    from tests.unit.service.world import World

START = T0 - timedelta(minutes=10)
PAST_HOUR = Interval(T0 - timedelta(hours=1), T0)


@pytest.fixture
def node(world: World) -> Node:
    world.make_site()
    return authenticate_node(world.context, world.register().node_token)


def test_batch_sent_twice_counts_once(world: World, node: Node) -> None:
    sent = batch(START, 24)
    assert ingest(world.context, node, sent).engine_rows_inserted == 24
    assert ingest(world.context, node, sent).engine_rows_inserted == 0
    total = energy_report(world.context, "oslo", PAST_HOUR, frozenset()).total
    assert total.node_energy_kwh == pytest.approx(24 * 5000 / 3.6e6)
    assert total.tokens_out == pytest.approx(24 * 250)


def test_bad_row_leaves_nothing_of_its_batch(world: World, node: Node) -> None:
    good = batch(START, 2)
    bad = msgspec.structs.replace(good.engine_rows[0], end_at=START - timedelta(seconds=1))
    torn = msgspec.structs.replace(good, engine_rows=[*good.engine_rows, bad])
    with pytest.raises(InvalidValue, match=r"engine_rows\[2\].end_at"):
        ingest(world.context, node, torn)
    assert load_engine_rows(world.context, "oslo", PAST_HOUR, Page()).items == ()
    assert ingest(world.context, node, good).engine_rows_inserted == 2


def test_rows_come_in_pages(world: World, node: Node) -> None:
    sent = batch(START, 5)
    ingest(world.context, node, sent)
    first = load_engine_rows(world.context, "oslo", PAST_HOUR, Page(limit=3), node_id=node.id)
    page = Page(limit=3, cursor=first.next_cursor)
    rest = load_engine_rows(world.context, "oslo", PAST_HOUR, page)
    assert [item.row for item in (*first.items, *rest.items)] == sent.engine_rows
    assert {item.node for item in first.items} == {"gpu-1"}
    assert load_engine_rows(world.context, "oslo", PAST_HOUR, Page(), node_id=99).items == ()


def test_power_series_of_a_site(world: World, node: Node) -> None:
    ingest(world.context, node, batch(START, 24, power_w=700.0))
    points = load_power_series(world.context, "oslo", PAST_HOUR, 60.0)
    assert [point.start_at for point in points] == [START, START + timedelta(minutes=1)]
    assert points[0].node_power_w == pytest.approx(700)
    assert points[0].tokens_out_per_s == pytest.approx(50)
    with pytest.raises(NotFound, match="site 'nowhere'"):
        load_power_series(world.context, "nowhere", PAST_HOUR, 60.0)


def test_partitions_are_made_ahead_and_dropped_by_age(world: World, node: Node) -> None:
    ingest(world.context, node, batch(START, 1))
    maintain_partitions(world.context)
    world.clock.advance(40 * 86_400)
    maintain_partitions(world.context)
    with world.database.read() as connection:
        assert oldest_partition_day(connection) == world.clock.now().date()


def test_notes_of_batches_are_kept_as_long_as_rows_are_taken(world: World, node: Node) -> None:
    sent = batch(START, 1)
    ingest(world.context, node, sent)
    count = text("SELECT count(*) FROM ingest_batch")
    kept = []
    for days in (0, 31, 5):
        world.clock.advance(days * 86_400)
        maintain_partitions(world.context)
        with world.database.read() as connection:
            kept.append(connection.execute(count).scalar_one())
    assert kept == [1, 1, 0]
    with pytest.raises(InvalidValue, match="must not be older than 30 days"):
        ingest(world.context, node, sent)


def test_report_is_grouped_priced_and_totalled(world: World, node: Node) -> None:
    price, carbon = world.make_feed(), world.make_feed("carbon", "c")
    world.price.say(100, start_at=T0 - timedelta(minutes=30))
    world.carbon.say(200, start_at=T0 - timedelta(minutes=30), unit="gCO2eq/kWh", kind="measured")
    fetch_feed(world.context, price.id)
    fetch_feed(world.context, carbon.id)
    ingest(world.context, node, batch(START, 120))
    report = energy_report(world.context, "oslo", PAST_HOUR, frozenset({"node", "model", "hour"}))
    (row,) = report.rows
    assert (row.node, row.model, row.start_at) == ("gpu-1", "llama", T0 - timedelta(hours=1))
    assert (report.site, report.currency) == ("oslo", "EUR")
    total = report.total
    assert (total.node, total.model, total.start_at) == (None, None, None)
    energy_kwh = 1000 * 600 / 3.6e6
    assert total.node_energy_kwh == pytest.approx(energy_kwh)
    assert total.gpu_energy_kwh == pytest.approx(0.8 * energy_kwh)
    assert total.cost == pytest.approx(energy_kwh / 1000 * 100)
    assert total.carbon_g == pytest.approx(energy_kwh * 200)
    assert total.node_energy_j_per_token == pytest.approx(20)
    assert total.gpu_energy_j_per_token == pytest.approx(16)
    assert total.priced_ratio == pytest.approx(1)
    assert total.carbon_ratio == pytest.approx(1)
    assert total.origins == {Origin.SIMULATED}
    assert total.price_kinds == {ValueKind.FORECAST}
    assert total.carbon_kinds == {ValueKind.MEASURED}


def test_report_of_nothing_has_no_figures(world: World) -> None:
    world.make_site()
    report = energy_report(world.context, "oslo", PAST_HOUR, frozenset({"hour"}))
    assert report.rows == ()
    assert (report.total.node_energy_kwh, report.total.cost) == (0, None)
    assert report.total.node_energy_j_per_token is None


def test_unknown_grouping_is_refused(world: World) -> None:
    world.make_site()
    with pytest.raises(InvalidValue, match="by: must be of hour, model, node"):
        energy_report(world.context, "oslo", PAST_HOUR, frozenset({"day"}))
