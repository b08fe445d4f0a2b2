"""``pals-grid db``: the database's schema."""

from __future__ import annotations

import click

from pals_grid.cli.exits import Commands


@click.group("db", cls=Commands)
def command() -> None:
    """Look after the database."""


@command.command()
def upgrade() -> None:
    """Migrate the database to this release's schema."""
    from pals_grid.cli.compose import open_database_url  # noqa: PLC0415
    from pals_grid.cli.environment import read_settings  # noqa: PLC0415
    from pals_grid.store import migrate  # noqa: PLC0415

    with open_database_url(read_settings()) as url:
        before = migrate.current_revision(url)
        migrate.upgrade(url)
        after = migrate.current_revision(url)
    click.echo(f"database is at revision {after} (was {before or 'empty'})")
