"""The composition root: ports meet their implementations here and nowhere else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pals_grid_dashboards.console.routes import build_console

from pals_grid.api.app import build_api
from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import ConfigurationError
from pals_grid.feeds.addresses import AddressRule
from pals_grid.feeds.backoff import BackOff
from pals_grid.feeds.cache import Answers
from pals_grid.feeds.http import RequestsHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.store.embedded import EmbeddedPostgres
from pals_grid.store.engine import Database
from pals_grid.store.listen import Notifications

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from pals_grid.settings import Settings


@contextmanager
def open_database_url(settings: Settings) -> Iterator[str]:
    """URL of the operator's database, or of the embedded one while it runs."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    make_data_dir(settings.data_dir)
    with EmbeddedPostgres(settings.data_dir) as url:
        yield url


def make_data_dir(path: Path) -> None:
    """Make the data directory.

    Raises:
        ConfigurationError: when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"PALS_GRID_DATA_DIR: must be a directory that can be made, got {str(path)!r}"
        raise ConfigurationError(f"{message}: {error.strerror}") from error


@contextmanager
def open_context(url: str, settings: Settings) -> Iterator[Context]:
    """Everything that the use cases need."""
    clock = SystemClock()
    database = Database(url)
    try:
        yield Context(
            database=database,
            clock=clock,
            registry=ConnectorRegistry(),
            http=RequestsHttp(
                clock=clock,
                rule=AddressRule(settings.feed_networks),
                ca_file=settings.feed_ca_file,
            ),
            planner=plan_power_budget,
            answers=Answers(clock),
            back_off=BackOff(
                settings.feed_retry_min_s,
                settings.feed_retry_max_s,
                settings.feed_breaker_failures,
            ),
            feed_folders=settings.feed_folders,
        )
    finally:
        database.dispose()


def build_app(context: Context, settings: Settings) -> FastAPI:
    """API and console as one application."""
    notifications = Notifications(context.database.url)
    app = build_api(context, notifications, hosts=(settings.host, *settings.allowed_hosts))
    app.include_router(build_console(context, notifications))
    return app
