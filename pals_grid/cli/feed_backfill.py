"""``pals-grid feed backfill``: the past of a feed, part by part, with its progress."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import InstantOrDay
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import ServiceRefused, exit_code_of
from pals_grid.cli.feed_advice import advise
from pals_grid.cli.feed_key import feed_id_of
from pals_grid.cli.output import json_option, print_json, show_instant
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import slots

if TYPE_CHECKING:
    from pals_grid.core.intervals import Interval

# A provider that is paced may take minutes over a part.
PART_TIMEOUT_S = 600.0
ATTEMPTS = 4
WAIT_S, WAIT_MAX_S = 5.0, 120.0


@click.command()
@click.argument("feed", metavar="ID|NAME")
@click.option("--from", "start_at", type=InstantOrDay(), required=True, help="Day or instant.")
@click.option("--to", "end_at", type=InstantOrDay(), help="Day or instant; now by default.")
@click.option(
    "--part-days",
    type=click.IntRange(1, 31),
    default=30,
    show_default=True,
    help="How much to ask for at a time.",
)
@url_option
@site_option
@json_option
def backfill(
    *,
    feed: str,
    start_at: datetime,
    end_at: datetime | None,
    part_days: int,
    url: str,
    site: str | None,
    as_json: bool,
) -> None:
    """Fetch a feed's past and store it; asking again stores nothing twice.

    Ends with 5 when the provider does not answer, and with 3 when it refuses. What came before
    stays: run it again.
    """
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    end = end_at or now
    if end <= start_at:
        raise InvalidValue("to", end.isoformat(), f"must be after {start_at.isoformat()}")
    client = ServiceClient(url)
    feed_id = feed_id_of(client, site, feed)
    parts = list(slots(start_at, end, timedelta(days=part_days)))
    total = {"feed_id": feed_id, "fetched": 0, "stored": 0}
    with click.progressbar(parts, label="backfill", file=sys.stderr) as bar:
        for part in bar:
            outcome = _fill(client, feed_id, part, begun_at=start_at)
            total["fetched"] += outcome["fetched"]
            total["stored"] += outcome["stored"]
    span = {"start_at": start_at.isoformat(), "end_at": end.isoformat()}
    if as_json:
        print_json(total | span)
        return
    shown = f"{show_instant(span['start_at'])} to {show_instant(span['end_at'])}"
    click.echo(f"{total['fetched']} values fetched, {total['stored']} new, {shown}")


def _fill(client: ServiceClient, feed_id: int, part: Interval, begun_at: datetime) -> Any:  # noqa: ANN401 - JSON
    """Fetch one part; a provider that does not answer is asked again."""
    body = {"start_at": part.start_at.isoformat(), "end_at": part.end_at.isoformat()}
    attempt = 1
    while True:
        try:
            return client.post(f"/feeds/{feed_id}/backfill", body, timeout_s=PART_TIMEOUT_S)
        except ServiceRefused as error:
            if error.kind != "feed-unavailable" or attempt == ATTEMPTS:
                done = "nothing" if part.start_at == begun_at else f"up to {body['start_at']}"
                click.echo(f"\nerror: {advise(error, None)}\nstored before that: {done}", err=True)
                raise click.exceptions.Exit(exit_code_of(error)) from None
            wish_s = error.retry_after_s or WAIT_S * 2.0 ** (attempt - 1)
        time.sleep(min(wish_s, WAIT_MAX_S))
        attempt += 1
