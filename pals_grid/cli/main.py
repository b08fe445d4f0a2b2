"""``pals-grid``: every command; heavy packages are imported only by the commands that need them."""

from __future__ import annotations

import click

from pals_grid import __version__
from pals_grid.cli.exits import EXIT_CODES, Commands


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="pals-grid")
def main() -> None:
    """Power budgets for LLM inference fleets, from grid signals to watts."""


def _add_commands() -> None:
    # After `main`, so that each module stays importable by itself.
    from pals_grid.cli import (  # noqa: PLC0415
        agent,
        backtest,
        db,
        doctor,
        evaluate,
        event,
        feed,
        forecast,
        helper,
        meter,
        node,
        plan,
        plant,
        profile,
        replay,
        report,
        serve,
        site,
        tariff,
        up,
        what_if,
    )

    for module in (
        up,
        serve,
        agent,
        helper,
        db,
        site,
        node,
        meter,
        feed,
        tariff,
        forecast,
        event,
        plan,
        plant,
        profile,
        report,
        replay,
        what_if,
        backtest,
        evaluate,
        doctor,
    ):
        main.add_command(module.command)


_add_commands()

if __name__ == "__main__":
    main()
