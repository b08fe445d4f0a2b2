"""A site with nodes, and telemetry rows to give to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec
import pytest
from sqlalchemy import insert

from pals_grid.core.fleet import Origin
from pals_grid.core.site import SitePolicy
from pals_grid.store.tables import node, site
from pals_grid.wire.messages import EngineRow

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pals_grid.store.engine import Database

T0 = datetime(2026, 3, 29, 11, 58, tzinfo=UTC)
ROW_S = 5.0


@dataclass(frozen=True)
class Fleet:
    """A site and its nodes, by id."""

    site_id: int
    node_ids: tuple[int, ...]


class MakeRow(Protocol):
    """Makes the ``index``-th five seconds of an engine, at a constant power."""

    def __call__(
        self,
        index: int,
        *,
        power_w: float = 1000.0,
        engine: str = "e0",
        model: str = "llama",
        origin: Origin = Origin.MEASURED,
    ) -> EngineRow: ...


@pytest.fixture
def fleet(database: Database) -> Fleet:
    with database.begin() as connection:
        site_id = _insert_site(connection, "oslo")
        nodes = [_insert_node(connection, site_id, f"n{k}") for k in range(3)]
    return Fleet(site_id, tuple(nodes))


@pytest.fixture
def make_row() -> MakeRow:
    return _make_row


@pytest.fixture
def start_at() -> datetime:
    return T0


def _make_row(
    index: int,
    *,
    power_w: float = 1000.0,
    engine: str = "e0",
    model: str = "llama",
    origin: Origin = Origin.MEASURED,
) -> EngineRow:
    start_at = T0 + timedelta(seconds=ROW_S * index)
    return EngineRow(
        engine=engine,
        model=model,
        start_at=start_at,
        end_at=start_at + timedelta(seconds=ROW_S),
        ticks=10,
        gpu_energy_j=power_w * ROW_S * 0.75,
        node_energy_j=power_w * ROW_S,
        idle_energy_j=power_w * ROW_S * 0.25,
        energy_origin=origin,
        node_energy_origin=origin,
        power_draw_w=power_w,
        power_draw_max_w=power_w + index,
        power_limit_w=power_w * 2,
        power_envelope_w=power_w * 3,
        ticks_over_envelope=1,
        max_num_seqs=64,
        requests_running=4.5,
        requests_waiting=0.5,
        tokens_in=500.0,
        tokens_out=100.0 + index,
        requests_finished=3,
        ttft_misses=1,
        itl_misses=0,
    )


def _insert_site(connection: Connection, slug: str) -> int:
    policy = SitePolicy(
        slug=slug, name=slug, grid_connection_w=1e6, minimum_w=0.0, safe_limit_w=0.0
    )
    document = msgspec.to_builtins(policy)
    values = {"slug": slug, "version": 1, "policy": document, "created_at": T0}
    found: int = connection.execute(insert(site).values(values).returning(site.c.id)).scalar_one()
    return found


def _insert_node(connection: Connection, site_id: int, name: str) -> int:
    values = {
        "site_id": site_id,
        "name": name,
        "token_sha256": name.encode(),
        "hardware": "test",
        "origin": "simulated",
        "agent_version": "0",
        "gpus": [],
        "models": [],
        "power_min_w": 0.0,
        "power_max_w": 1.0,
        "curve": [],
        "registered_at": T0,
    }
    found: int = connection.execute(insert(node).values(values).returning(node.c.id)).scalar_one()
    return found
