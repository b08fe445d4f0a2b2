"""``pals-grid serve``: service, console and jobs, without a node."""

from __future__ import annotations

import click


@click.command("serve")
def command() -> None:
    """Run the service without a node agent; nodes join with an enrolment token."""
    from pals_grid.cli.environment import read_settings  # noqa: PLC0415
    from pals_grid.cli.running import run_service  # noqa: PLC0415

    run_service(read_settings())
