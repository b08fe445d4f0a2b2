"""The service as one process: database, migrations, jobs, HTTP; started and stopped in order."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import click

from pals_grid.cli import compose
from pals_grid.cli.logs import open_logs
from pals_grid.cli.port import take_port
from pals_grid.cli.stopping import Stopper
from pals_grid.granting import GrantLoop
from pals_grid.jobs import Jobs
from pals_grid.store import migrate

if TYPE_CHECKING:
    from pals_grid.service.context import Context
    from pals_grid.settings import Settings

_log = logging.getLogger(__name__)


class Companion(Protocol):
    """What runs beside the service for as long as it does."""

    def start(self, context: Context) -> None:
        """Begin once the database is ready and the address is taken; must not take long."""
        ...

    def stop(self) -> None:
        """End while the service still answers; called twice on some ways out."""
        ...


class Alone:
    """No companion."""

    def start(self, context: Context) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""


def run_service(settings: Settings, companion: Companion | None = None) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP.

    Raises:
        ConfigurationError: for a taken port, a data directory that cannot be made, a database
            that does not answer.
    """
    beside = companion or Alone()
    stopper = Stopper()
    with stopper.installed(), ExitStack() as stack:
        listening = stack.enter_context(take_port(settings))
        compose.make_data_dir(settings.data_dir)
        open_logs(settings.log_level, settings.logs_dir / "service.log")
        url = stack.enter_context(compose.open_database_url(settings))
        migrate.upgrade(url)
        context = stack.enter_context(compose.open_context(url, settings))
        app = compose.build_app(context, settings)
        jobs = Jobs(context, plans_at_once=settings.plans_at_once)
        grants = GrantLoop(context)
        stack.callback(jobs.stop)
        jobs.start()
        stack.callback(grants.stop)
        grants.start()
        stack.callback(beside.stop)
        beside.start(context)
        stopper.serve(
            app,
            listening,
            on_started=lambda: _say_started(settings),
            on_stop=beside.stop,
        )
    _log.info("stopped")


def _say_started(settings: Settings) -> None:
    click.echo(f"PALS Grid is at {settings.url}  (Ctrl-C stops it)")
    click.echo(f"Data and logs are in {settings.data_dir}")
