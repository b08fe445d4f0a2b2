"""``pals-grid up``: service, console, demo site and one node agent, all in one go."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pals_grid.cli.agent_process import AgentProcess
    from pals_grid.service.context import Context
    from pals_grid.settings import Settings

NODE_NAME = "demo-node"
AGENT_STOP_S = 1.5
_log = logging.getLogger(__name__)


@click.command("up")
def command() -> None:
    """Start everything on this machine: database, service, console, a demo site and one node.

    Settings are environment variables: PALS_GRID_PORT, PALS_GRID_HOST, PALS_GRID_DATA_DIR,
    PALS_GRID_DATABASE_URL, PALS_GRID_ALLOWED_HOSTS, PALS_GRID_LOG_LEVEL. On a machine with GPUs
    the demo node only observes them, unless PALS_GRID_DEMO_ACTUATE=1.
    """
    from pals_grid.cli.environment import read_settings  # noqa: PLC0415
    from pals_grid.cli.running import run_service  # noqa: PLC0415

    settings = read_settings()
    run_service(settings, Demo(settings))


class Demo:
    """The demo site and its node, beside the service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._agent: AgentProcess | None = None

    def start(self, context: Context) -> None:
        """Make the site, start its node, and ask the feeds' providers in the background."""
        from pals_grid.cli.agent_process import AgentProcess  # noqa: PLC0415
        from pals_grid.service.demo import ensure_demo  # noqa: PLC0415
        from pals_grid.service.nodes import issue_enrolment_token  # noqa: PLC0415

        site = ensure_demo(context, fetch=False)
        write_secret(self._settings, issue_enrolment_token(context, site.policy.slug))
        self._agent = AgentProcess(agent_command(self._settings))
        self._agent.start()
        asking = threading.Thread(target=_ask_feeds, args=(context,), name="demo", daemon=True)
        asking.start()

    def stop(self) -> None:
        """Let the node restore its limits and deliver its rows."""
        if self._agent is not None:
            self._agent.stop(AGENT_STOP_S)


def write_secret(settings: Settings, token: str) -> None:
    """Leave the enrolment token where only this user can read it."""
    path = settings.token_file
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")


def agent_command(settings: Settings) -> list[str]:
    """Command line of the demo's node agent."""
    command_ = [sys.executable, "-m", "pals_grid.cli.main", "agent"]
    command_ += ["--url", settings.url, "--name", NODE_NAME]
    command_ += ["--token-file", str(settings.token_file)]
    command_ += ["--state-dir", str(settings.data_dir / "node")]
    command_ += ["--log-file", str(settings.logs_dir / "agent.log")]
    command_ += ["--log-level", settings.log_level]
    return command_ if settings.demo_actuate else [*command_, "--observe-gpus"]


def _ask_feeds(context: Context) -> None:
    from pals_grid.service.demo import ensure_demo  # noqa: PLC0415

    try:
        ensure_demo(context)
    except Exception:  # noqa: BLE001 - else a daemon thread's error is told to nobody
        _log.exception("the demo's feeds could not be set up")
