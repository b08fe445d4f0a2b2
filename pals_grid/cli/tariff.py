"""``pals-grid tariff``: what a site pays for energy and for its peaks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import (
    json_option,
    print_json,
    print_table,
    show_instant,
    show_origins,
    show_power,
)
from pals_grid.core.errors import InvalidValue
from pals_grid.core.tariff_document import read_tariff, write_tariff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_file: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The tariff as JSON; - is standard input.",
)


@click.group("tariff", cls=Commands)
def command() -> None:
    """Tariffs: show, preview, set."""


@command.command()
@url_option
@site_option
@json_option
def show(*, url: str, site: str | None, as_json: bool) -> None:
    """Show the tariff in force and those before and after it; --json is what `set` takes."""
    client = ServiceClient(url)
    found = client.get(f"/sites/{site or client.only_site()}/tariffs")
    if as_json:
        print_json(found)
        return
    head = ("id", "name", "valid from", "stored", "in force")
    lines = [
        (
            item["id"],
            item["tariff"]["name"],
            show_instant(item["tariff"]["valid_from_at"]),
            show_instant(item["recorded_at"]),
            item["id"] == found["in_force_id"],
        )
        for item in found["tariffs"]
    ]
    if not lines:
        click.echo(f"site {found['site']} has no tariff: it pays what its price feed says")
        return
    print_table(head, lines)
    click.echo(f"version {found['version']}")
    held = (item for item in found["tariffs"] if item["id"] == found["in_force_id"])
    for item in held:
        print_json(item["tariff"])


@command.command()
@_file
@url_option
@site_option
@json_option
def preview(*, path: Path, url: str, site: str | None, as_json: bool) -> None:
    """Show what a tariff would change, and store nothing."""
    document, client = _read(path), ServiceClient(url)
    found = client.post(f"/sites/{site or client.only_site()}/tariffs/preview", document)
    if as_json:
        print_json(found)
    else:
        _print_preview(found)


@command.command("set")
@_file
@click.option("--version", type=click.IntRange(0), help="Only if none was stored since this one.")
@url_option
@site_option
@json_option
def set_tariff(
    *, path: Path, version: int | None, url: str, site: str | None, as_json: bool
) -> None:
    """Store a tariff; it holds from its valid_from_at on, and the plan follows."""
    document, client = _read(path), ServiceClient(url)
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    stored = client.put(f"/sites/{site or client.only_site()}/tariffs", document, headers)
    if as_json:
        print_json(stored)
        return
    since = show_instant(stored["tariff"]["valid_from_at"])
    click.echo(f"tariff {stored['id']} ({stored['tariff']['name']}) set, valid from {since}")


def _read(path: Path) -> dict[str, Any]:
    """Read and check a file before anything is sent."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidValue("file", str(path), f"must be readable JSON: {error}") from error
    return write_tariff(read_tariff(document))


def _print_preview(found: Mapping[str, Any]) -> None:
    currency = found["currency"]
    click.echo(f"Energy, {currency}/MWh; nothing is stored")
    lines = [
        (
            show_instant(slot["start_at"]),
            slot["before"]["price_per_mwh"] if slot["before"] else None,
            slot["after"]["price_per_mwh"] if slot["after"] else None,
            slot["risk_after_per_mwh"] or None,
            slot["after"]["sentence"] if slot["after"] else "no feed has a price",
        )
        for slot in found["slots"]
    ]
    head = ("start_at", "before", "after", "risk of the grid's peak", "after, part by part")
    print_table(head, lines)
    month = found["month_after"]
    since = show_instant(month["start_at"])
    origins = show_origins(month["origins"])
    click.echo(f"\nDemand charges of the month from {since}, on the power of the nodes{origins}")
    for title, key in (("before", "month_before"), ("after", "month_after")):
        for charge in found[key]["charges"]:
            cost = "unknown" if charge["cost"] is None else f"{charge['cost']:,.2f} {currency}"
            peak = show_power(charge["peak"]["power_w"])
            billed = show_power(charge["billed_w"])
            click.echo(f"{title}: {charge['name']}: peak {peak}, billed {billed}, {cost}")
        if not found[key]["charges"]:
            click.echo(f"{title}: none")
        if found[key]["coincident_cost"]:
            cost = f"{found[key]['coincident_cost']:,.2f} {currency}"
            click.echo(f"{title}: expected coincident-peak charge: {cost}")
