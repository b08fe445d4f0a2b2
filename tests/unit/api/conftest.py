"""The API over a service in the test's hands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.api.app import build_api
from pals_grid.store.listen import Notifications
from tests.unit.api.client import TestClient
from tests.unit.service.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.store.engine import Database


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    app = build_api(world.context, Notifications(world.database.url))
    with TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as found:
        yield found
