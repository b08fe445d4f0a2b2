"""One service per test, its database's clock in the test's hands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.service.live.live_world import LiveWorld

if TYPE_CHECKING:
    from pals_grid.store.engine import Database


@pytest.fixture
def live(database: Database) -> LiveWorld:
    return LiveWorld(database)
