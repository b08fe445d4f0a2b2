"""``pals-grid event``: demand-response events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, Instant
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_instant, show_power

if TYPE_CHECKING:
    from datetime import datetime


@click.group("event", cls=Commands)
def command() -> None:
    """Demand-response events: order, list, cancel."""


@command.command()
@url_option
@site_option
@click.option("--name", default="manual", show_default=True)
@click.option("--start", "start_at", type=Instant(), required=True, help="ISO 8601 with offset.")
@click.option("--end", "end_at", type=Instant(), help="ISO 8601 with offset; or --minutes.")
@click.option("--minutes", type=Finite(0.1, 60 * 24 * 7), help="Length instead of --end.")
@click.option("--limit-kw", type=Finite(0, 1e7), help="The site's limit in kW.")
@click.option("--reduction-pct", type=Finite(0, 100), help="Reduction in % of the reference.")
@click.option("--notice", "notice_at", type=Instant(), help="When it was announced.")
@click.option("--ramp-s", type=Finite(0, 86_400), default=0.0, show_default=True)
@json_option
def add(  # noqa: PLR0913 - each is one option
    *,
    url: str,
    site: str | None,
    name: str,
    start_at: datetime,
    end_at: datetime | None,
    minutes: float | None,
    limit_kw: float | None,
    reduction_pct: float | None,
    notice_at: datetime | None,
    ramp_s: float,
    as_json: bool,
) -> None:
    """Order a limit in kW or a reduction in %; the plan and every node follow at once."""
    if (limit_kw is None) == (reduction_pct is None):
        raise click.UsageError("give exactly one of --limit-kw and --reduction-pct")
    if (end_at is None and minutes is None) or (end_at is not None and minutes is not None):
        raise click.UsageError("give exactly one of --end and --minutes")
    end = end_at if end_at is not None else start_at + timedelta(minutes=minutes or 0.0)
    body = {
        "site": site,
        "name": name,
        "start_at": start_at.isoformat(),
        "end_at": end.isoformat(),
        "limit_w": None if limit_kw is None else limit_kw * 1000,
        "reduction_ratio": None if reduction_pct is None else reduction_pct / 100,
        "notice_at": None if notice_at is None else notice_at.isoformat(),
        "ramp_s": ramp_s,
    }
    event = ServiceClient(url).post("/events", body)
    if as_json:
        print_json(event)
    else:
        limit = show_power(event["ordered_w"])
        reference = f"{show_power(event['reference_w'])}, {event['reference_origin']}"
        click.echo(f"event {event['id']} ordered: at most {limit} (reference {reference})")


@command.command("list")
@url_option
@site_option
@json_option
def list_events(*, url: str, site: str | None, as_json: bool) -> None:
    """List a site's events."""
    events = ServiceClient(url).get_all("/events", site=site)
    if as_json:
        print_json(events)
        return
    head = ("id", "name", "status", "start_at", "end_at", "limit", "reference", "ramp_s")
    print_table(head, [_event_line(event) for event in events])


def _event_line(event: dict[str, Any]) -> tuple[object, ...]:
    return (
        event["id"],
        event["name"],
        event["status"],
        show_instant(event["start_at"]),
        show_instant(event["end_at"]),
        show_power(event["ordered_w"]),
        show_power(event["reference_w"]),
        event["ramp_s"],
    )


@command.command()
@click.argument("event_id", type=click.IntRange(1))
@click.option("--version", type=click.IntRange(1), help="Cancel only if it is still this version.")
@url_option
@json_option
def cancel(*, event_id: int, version: int | None, url: str, as_json: bool) -> None:
    """Cancel an event."""
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    event = ServiceClient(url).post(f"/events/{event_id}/cancel", headers=headers)
    if as_json:
        print_json(event)
    else:
        click.echo(f"event {event['id']} ({event['name']}) is {event['status']}")
