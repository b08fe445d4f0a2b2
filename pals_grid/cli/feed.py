"""``pals-grid feed``: add, list, test, fetch, backfill, remove; parse needs no service."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, read_pairs
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import NOT_FOUND, UNAVAILABLE, Commands, ServiceRefused, exit_code_of
from pals_grid.cli.feed_advice import advise, no_values
from pals_grid.cli.feed_backfill import backfill
from pals_grid.cli.feed_fallbacks import fallback_option, read_fallbacks, set_feed
from pals_grid.cli.feed_key import feed_id_of
from pals_grid.cli.output import (
    json_option,
    print_json,
    print_table,
    show_age,
    show_instant,
    show_short,
)
from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.core.series import Observation

GZIP_MAGIC = b"\x1f\x8b"
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024
#: A table longer than twice this shows its first and last lines.
EDGE_LINES = 12
# In a line there is room for the host, and not for all that was asked of it.
_HOST = re.compile(r"https?://([^/\s]+)\S*?(?=:?(?:\s|$))")

_connector = click.option("--connector", required=True, help="Name of the connector.")
_options = click.option(
    "--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the connector."
)
_secret_ref = click.option(
    "--secret-ref", help="Where the secret is: env:NAME or file:PATH; never the secret itself."
)


@click.group("feed", cls=Commands)
def command() -> None:
    """Signals: prices and carbon intensity."""


command.add_command(set_feed)
command.add_command(backfill)


def _settings(made: Callable[..., None]) -> Callable[..., None]:
    return _connector(_options(_secret_ref(url_option(site_option(json_option(made))))))


@command.command()
@_settings
@click.option("--name", required=True, help="Name of the feed at its site.")
@click.option("--poll-s", type=Finite(1, 86_400 * 7), default=900.0, show_default=True)
@click.option("--stale-after-s", type=Finite(1, 86_400 * 30), default=7200.0, show_default=True)
@fallback_option
def add(  # noqa: PLR0913 - each is one option
    *,
    url: str,
    site: str | None,
    name: str,
    connector: str,
    pairs: tuple[str, ...],
    secret_ref: str | None,
    poll_s: float,
    stale_after_s: float,
    fallbacks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add a feed to a site."""
    body = _body(site, name, connector, pairs, secret_ref)
    body |= {"poll_s": poll_s, "stale_after_s": stale_after_s}
    body |= {"fallbacks": read_fallbacks(fallbacks)}
    feed = ServiceClient(url).post("/feeds", body)
    if as_json:
        print_json(feed)
    else:
        click.echo(f"feed {feed['id']} ({feed['name']}) added: {feed['quantity']}")


@command.command("list")
@url_option
@site_option
@json_option
def list_feeds(*, url: str, site: str | None, as_json: bool) -> None:
    """List a site's feeds and how they do."""
    feeds = ServiceClient(url).get_all("/feeds", site=site)
    if as_json:
        print_json(feeds)
        return
    head = (
        *("id", "name", "connector", "quantity", "now", "unit", "kind"),
        *("age", "24 h", "48 h", "state"),
    )
    print_table(head, [_feed_line(feed) for feed in feeds])


def _feed_line(feed: dict[str, Any]) -> tuple[object, ...]:
    current, health = feed["current"] or {}, feed["health"]
    state = health["last_error"] or _quiet_state(feed)
    return (
        feed["id"],
        feed["name"],
        feed["connector"],
        feed["quantity"],
        current.get("value"),
        current.get("unit"),
        current.get("kind"),
        show_age(feed["age_s"]),
        f"{feed['coverage_24h_ratio']:.0%}",
        f"{feed['coverage_48h_ratio']:.0%}",
        show_short(_HOST.sub(r"\1", state)),
    )


def _quiet_state(feed: dict[str, Any]) -> str:
    """State of a feed without an error."""
    if feed["stale"]:
        return "stale"
    return "late" if feed["late"] else "ok"


@command.command()
@_settings
def test(
    *,
    url: str,
    site: str | None,
    connector: str,
    pairs: tuple[str, ...],
    secret_ref: str | None,
    as_json: bool,
) -> None:
    """Fetch once with these settings and store nothing.

    Ends with 0 when there are values, 3 when a setting, a key or a zone is wrong, 4 when the
    provider answers without any value, 5 when it does not answer or answers something else.
    """
    body = _body(site, "test", connector, pairs, secret_ref)
    try:
        found = ServiceClient(url).post("/feeds/preview", body)["observations"]
    except ServiceRefused as refused:
        click.echo(f"error: {advise(refused, secret_ref)}", err=True)
        raise click.exceptions.Exit(exit_code_of(refused)) from None
    if as_json:
        print_json(found)
    elif found:
        _print_values(found)
        click.echo(_summary(found))
    if not found:
        click.echo(f"error: {no_values('6 h ago', 'in 48 h')}", err=True)
        raise click.exceptions.Exit(NOT_FOUND)


def _summary(found: Sequence[dict[str, Any]]) -> str:
    """How many values of each kind, and how far ahead they reach."""
    kinds = Counter(str(item["kind"]) for item in found)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    last = max(datetime.fromisoformat(item["end_at"]) for item in found)
    if last <= datetime.now(UTC) + timedelta(hours=1):
        return f"{counts}; nothing is known ahead, so a plan has no value from this feed"
    return f"{counts}; known up to {last:%Y-%m-%d %H:%MZ}"


@command.command()
@click.argument("feed", metavar="ID|NAME")
@url_option
@site_option
def remove(*, feed: str, url: str, site: str | None) -> None:
    """Take a feed out of use; its values stay, since plans were made from them."""
    client = ServiceClient(url)
    feed_id = feed_id_of(client, site, feed)
    client.delete(f"/feeds/{feed_id}")
    click.echo(f"feed {feed_id} removed; its values stay")


@command.command()
@click.argument("feed", metavar="ID|NAME")
@url_option
@site_option
@json_option
def fetch(*, feed: str, url: str, site: str | None, as_json: bool) -> None:
    """Fetch a feed now; exits with 5 when the provider failed."""
    client = ServiceClient(url)
    outcome = client.post(f"/feeds/{feed_id_of(client, site, feed)}/fetch")
    if as_json:
        print_json(outcome)
    elif outcome["error"] is None:
        click.echo(f"{outcome['fetched']} values fetched, {outcome['stored']} new")
    if outcome["error"] is not None:
        click.echo(f"error: {outcome['error']}", err=True)
        raise click.exceptions.Exit(UNAVAILABLE)


@command.command()
@_connector
@_options
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The recorded payload; .gz is unpacked; - is standard input.",
)
@json_option
def parse(*, connector: str, pairs: tuple[str, ...], path: Path, as_json: bool) -> None:
    """Print the normalised intervals of one recorded payload; needs no service."""
    from pals_grid.feeds.guard import parse_guarded  # noqa: PLC0415
    from pals_grid.feeds.registry import ConnectorRegistry  # noqa: PLC0415

    made = ConnectorRegistry().create(connector, read_pairs("option", pairs))
    found = [_interval(item) for item in parse_guarded(made, _read(path), datetime.now(UTC))]
    if as_json:
        print_json(found)
    else:
        _print_values(found, edge=len(found))


def _read(path: Path) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        if not raw.startswith(GZIP_MAGIC):
            return raw
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
            payload = packed.read(MAX_PAYLOAD_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidValue("file", str(path), f"must be readable: {error}") from error
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidValue("file", str(path), f"must unpack to at most {MAX_PAYLOAD_BYTES} bytes")
    return payload


def _interval(item: Observation) -> dict[str, object]:
    return {
        "start_at": _text(item.start_at),
        "end_at": _text(item.end_at),
        "value": item.value,
        "unit": item.unit,
        "kind": str(item.kind),
    }


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _print_values(values: Sequence[dict[str, Any]], edge: int = EDGE_LINES) -> None:
    lines: list[tuple[object, ...]] = [
        (
            show_instant(item["start_at"]),
            show_instant(item["end_at"]),
            float(item["value"]),
            item["unit"],
            item["kind"],
        )
        for item in values
    ]
    if len(lines) > 2 * edge:
        lines[edge:-edge] = [(f"... {len(lines) - 2 * edge} more", "", "", "", "")]
    print_table(("start_at", "end_at", "value", "unit", "kind"), lines)


def _body(
    site: str | None, name: str, connector: str, pairs: tuple[str, ...], secret_ref: str | None
) -> dict[str, object]:
    return {
        "site": site,
        "name": name,
        "connector": connector,
        "options": read_pairs("option", pairs),
        "secret_ref": secret_ref,
    }
