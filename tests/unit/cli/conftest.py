"""The command line against a service that answers on loopback."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvicorn
from click.testing import CliRunner

from pals_grid.api.app import build_api
from pals_grid.cli.main import main
from pals_grid.cli.port import take_port
from pals_grid.settings import Settings
from pals_grid.store.listen import Notifications
from tests.unit.service.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    from pals_grid.store.engine import Database


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``pals-grid`` with these arguments and nothing of ours in the environment."""
    for name in ("PALS_GRID_URL", "PALS_GRID_PORT", "PALS_GRID_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PALS_GRID_DATA_DIR", str(tmp_path))

    def invoke(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), input=stdin)

    return invoke


@dataclass
class Serving:
    world: World
    url: str


@pytest.fixture
def serving(database: Database, tmp_path: Path, free_port: int) -> Iterator[Serving]:
    world = World(database)
    listening = take_port(Settings(tmp_path, port=free_port))
    app = build_api(world.context, Notifications(database.url))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Serving(world, f"http://127.0.0.1:{free_port}")
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
