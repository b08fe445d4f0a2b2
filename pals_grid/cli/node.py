"""``pals-grid node``: who takes part, and tokens with which nodes join."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pals_grid.cli.arguments import Slug
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_instant, show_power
from pals_grid.core.errors import InvalidValue
from pals_grid.node.files import write_durably


@click.group("node", cls=Commands)
def command() -> None:
    """Nodes: list them, make a token for a new one."""


@command.command("list")
@url_option
@site_option
@json_option
def list_nodes(*, url: str, site: str | None, as_json: bool) -> None:
    """List a site's nodes and what they do now."""
    nodes = ServiceClient(url).get_all("/nodes", site=site)
    if as_json:
        print_json(nodes)
        return
    head = ("id", "name", "state", "draw", "envelope", "planned", "grant", "range")
    print_table((*head, "hardware", "origin", "last seen"), [_node_line(node) for node in nodes])


def _node_line(node: dict[str, Any]) -> tuple[object, ...]:
    # What a node said before it went silent is no longer so.
    status = (node["status"] or {}) if node["online"] else {}
    return (
        node["id"],
        node["name"],
        status.get("mode", "offline"),
        show_power(status.get("node_power_w")),
        show_power(status.get("power_envelope_w")),
        _planned(node["planned"]),
        _granted(node),
        f"{show_power(node['power_min_w'])} to {show_power(node['power_max_w'])}",
        node["hardware"],
        node["origin"],
        show_instant(node["last_seen_at"]),
    )


def _planned(planned: dict[str, Any] | None) -> str:
    """What the plan in force allows now, and why."""
    return "" if planned is None else f"{show_power(planned['power_max_w'])}, {planned['reason']}"


def _granted(node: dict[str, Any]) -> str:
    """The live grant, and whether the node has taken it."""
    if node["grant"] is None:
        return ""
    taken = "" if node["held_grant_w"] is not None else ", not taken"
    return f"{show_power(node['grant']['power_w'])}{taken}"


@command.command()
@url_option
@click.option(
    "--site", type=Slug(), help="Slug of the site; may be left out where there is only one."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this file, readable by you alone, instead of printing it.",
)
@json_option
def token(*, url: str, site: str | None, out: Path | None, as_json: bool) -> None:
    """Make an enrolment token, with which nodes join a site; it is shown this once."""
    if out is not None and not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise InvalidValue("out", str(out), "must be in a directory that can be written")
    client = ServiceClient(url)
    slug = site or client.only_site()
    made = str(client.post(f"/sites/{slug}/enrolment-tokens")["enrolment_token"])
    if out is None:
        if as_json:
            print_json({"site": slug, "enrolment_token": made})
        else:
            click.echo(made)
        return
    try:
        write_durably(out, f"{made}\n".encode())
    except OSError as error:
        raise InvalidValue("out", str(out), f"must be writable: {error.strerror}") from error
    if as_json:
        print_json({"site": slug, "file": str(out)})
    else:
        click.echo(f"token for site {slug} is in {out}")
