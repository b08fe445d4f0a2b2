"""One service per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.service.world import World

if TYPE_CHECKING:
    from pals_grid.store.engine import Database


@pytest.fixture
def world(database: Database) -> World:
    return World(database)
