"""``pals-grid plan``: the power budget."""

from __future__ import annotations

import click

from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_instant, show_power


@click.group("plan", cls=Commands)
def command() -> None:
    """The site's power budget."""


@command.command()
@click.option("--version", type=click.IntRange(1), help="A version; the latest when left out.")
@url_option
@site_option
@json_option
def show(*, version: int | None, url: str, site: str | None, as_json: bool) -> None:
    """Show a plan: each interval's limit and its reason."""
    plan = ServiceClient(url).get(f"/plans/{version or 'latest'}", site=site)
    if as_json:
        print_json(plan)
        return
    made = show_instant(plan["created_at"])
    click.echo(f"plan {plan['version']}, made {made} by {plan['planner']}: {plan['trigger']}")
    head = ("start_at", "end_at", "limit", "price/MWh", "gCO2/kWh", "tokens/s", "reason", "")
    lines = [
        (
            show_instant(item["start_at"]),
            show_instant(item["end_at"]),
            show_power(item["limit_w"]),
            item["price_per_mwh"],
            item["carbon_g_per_kwh"],
            item["planned_tokens_per_s"],
            item["reason"],
            item["explanation"],
        )
        for item in plan["intervals"]
    ]
    print_table(head, lines)
