"""``pals-grid plan``: the power budget."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_instant, show_power
from pals_grid.core.fallback import Absence, SlotSource, SourceKind
from pals_grid.core.substitution import absence_words, source_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_QUANTITIES = {
    "price": "Price",
    "average_intensity": "Carbon",
    "marginal_intensity": "Marginal carbon",
}


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
    _print_inputs(plan["inputs"])
    _print_findings(plan["findings"])
    _print_substitutions(plan["substitutions"])


def _print_inputs(inputs: Sequence[Mapping[str, Any]]) -> None:
    """Say how the values of each feed that the plan used are known."""
    for item in inputs:
        if item["kinds"]:
            name = _QUANTITIES.get(item["quantity"], item["quantity"])
            covered = f"{item['coverage_ratio']:.0%} of the time"
            click.echo(f"{name} from {item['feed']}: {', '.join(item['kinds'])}; {covered}")


def _print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Say what the plan cannot keep, by how much, and what it does instead."""
    for item in findings:
        start, end = show_instant(item["start_at"]), show_instant(item["end_at"])
        click.echo(f"cannot keep, {start} to {end}: {item['explanation']}")


def _print_substitutions(substitutions: Sequence[Mapping[str, Any]]) -> None:
    """Say what stands in for a feed, when and why; nothing is printed where nothing does."""
    for item in substitutions:
        name = _QUANTITIES.get(item["quantity"], item["quantity"])
        start, end = show_instant(item["start_at"]), show_instant(item["end_at"])
        source = _source(item["source"])
        why = absence_words(source, lambda at: show_instant(at.isoformat()))
        click.echo(f"{name} {start} to {end}: {source_words(source)}: {why}")


def _source(document: Mapping[str, Any]) -> SlotSource:
    since = document["silent_since_at"]
    return SlotSource(
        kind=SourceKind(document["kind"]),
        feed_id=document["feed_id"],
        feed=document["feed"],
        value=document["value"],
        unit=document["unit"],
        weeks_back=document["weeks_back"],
        primary=document["primary"],
        absence=None if document["absence"] is None else Absence(document["absence"]),
        silent_since_at=None if since is None else datetime.fromisoformat(since),
    )
