"""``pals-grid report``: what the energy did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Instant
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import print_json, print_table, show_instant, show_origins, show_power

if TYPE_CHECKING:
    from datetime import datetime


@click.group("report", cls=Commands)
def command() -> None:
    """Reports."""


@command.command()
@url_option
@site_option
@click.option("--by", default="node", show_default=True, help="Any of node,model,hour.")
@click.option("--start", "start_at", type=Instant(), help="Default: 24 h before the end.")
@click.option("--end", "end_at", type=Instant(), help="Default: now.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
def energy(
    *,
    url: str,
    site: str | None,
    by: str,
    start_at: datetime | None,
    end_at: datetime | None,
    output: str,
    as_json: bool,
) -> None:
    """KWh, cost, gCO2, tokens and joules per token."""
    client = ServiceClient(url)
    params = {
        "site": site,
        "by": by,
        "start_at": start_at.isoformat() if start_at else None,
        "end_at": end_at.isoformat() if end_at else None,
    }
    if output == "csv" and not as_json:
        click.echo(client.get_text("/reports/energy", **params, format="csv"), nl=False)
        return
    report = client.get("/reports/energy", **params)
    if as_json or output == "json":
        print_json(report)
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    start, end = show_instant(report["start_at"]), show_instant(report["end_at"])
    click.echo(f"{report['site']}, {start} to {end}")
    head = (
        *report["by"],
        "kWh",
        "GPU kWh",
        "idle kWh",
        report["currency"],
        "gCO2",
        "tokens in",
        "tokens out",
        "J/token",
        "GPU J/token",
        "TTFT misses",
        "ITL misses",
        "origin",
    )
    rows = [*report["rows"], report["total"]] if report["by"] else [report["total"]]
    print_table(head, [_line(row, report["by"]) for row in rows])
    for month in report["demand_charges"]:
        _print_month(month)


def _print_month(month: dict[str, Any]) -> None:
    """Demand charges of a whole month; they are no part of the cost above."""
    since, currency = show_instant(month["start_at"]), month["currency"]
    so_far = " so far" if month["running"] else ""
    click.echo(f"demand charges, month from {since}{so_far}, not in the cost above:")
    click.echo(f"  on the power of the nodes{show_origins(month['origins'])}")
    for charge in month["charges"]:
        cost = "unknown" if charge["cost"] is None else f"{charge['cost']:,.2f} {currency}"
        peak, billed = (show_power(charge["peak"]["power_w"]), show_power(charge["billed_w"]))
        click.echo(f"  {charge['name']}: peak {peak}, billed {billed}, {cost}")
    if month["coincident_cost"]:
        click.echo(f"  expected coincident-peak charge: {month['coincident_cost']:,.2f} {currency}")


def _line(row: dict[str, Any], by: list[str]) -> tuple[object, ...]:
    keys = {
        "node": row["node"] or "total",
        "model": row["model"] or "",
        "hour": show_instant(row["start_at"]) if row["start_at"] else "",
    }
    return (
        *(keys[key] for key in by),
        row["node_energy_kwh"],
        row["gpu_energy_kwh"],
        row["idle_energy_kwh"],
        row["cost"],
        row["carbon_g"],
        row["tokens_in"],
        row["tokens_out"],
        row["node_energy_j_per_token"],
        row["gpu_energy_j_per_token"],
        row["ttft_misses"],
        row["itl_misses"],
        "+".join(row["origins"]),
    )
