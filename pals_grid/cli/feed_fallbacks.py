"""``pals-grid feed set``, and how a fallback is written on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pals_grid.cli.client import ServiceClient, url_option
from pals_grid.cli.output import json_option, print_json
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fallback import (
    FromConstant,
    FromFeed,
    FromLastWeek,
    read_fallback,
    write_fallback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pals_grid.core.fallback import Fallback

fallback_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="feed:NAME|last-week[:WEEKS]|constant:VALUE",
    help="What stands in where the feed has no value; in order, may be given again.",
)


def read_fallbacks(texts: Iterable[str]) -> list[dict[str, object]]:
    """Read ``feed:NAME``, ``last-week``, ``last-week:4`` and ``constant:80`` as the API takes them.

    Raises:
        InvalidValue: for what is none of them, or out of bounds.
    """
    return [write_fallback(_read(text)) for text in texts]


def _read(text: str) -> Fallback:
    kind, separator, rest = text.partition(":")
    try:
        if kind == "feed" and rest:
            return FromFeed(rest)
        if kind == "last-week" and (rest or not separator):
            return FromLastWeek(int(rest)) if rest else FromLastWeek()
        if kind == "constant" and rest:
            return FromConstant(float(rest))
    except ValueError:
        pass
    bound = "must be feed:NAME, last-week, last-week:WEEKS or constant:VALUE"
    raise InvalidValue("fallback", text, bound)


@click.command("set")
@click.argument("feed_id", type=click.IntRange(1))
@fallback_option
@click.option("--no-fallback", is_flag=True, help="Let nothing stand in by choice.")
@url_option
@json_option
def set_feed(
    *, feed_id: int, fallbacks: tuple[str, ...], no_fallback: bool, url: str, as_json: bool
) -> None:
    """Change what stands in for a feed; the plan follows at once."""
    if bool(fallbacks) is no_fallback:
        raise click.UsageError("give either --fallback or --no-fallback")
    body = {"fallbacks": read_fallbacks(fallbacks)}
    feed = ServiceClient(url).patch(f"/feeds/{feed_id}", body)
    if as_json:
        print_json(feed)
        return
    chain = ", then ".join(show_fallback(read_fallback(item)) for item in feed["fallbacks"])
    click.echo(f"feed {feed['id']} ({feed['name']}): {chain or 'no fallback of its own'}")


def show_fallback(item: Fallback) -> str:
    """One entry of a chain as it is written on the command line."""
    if isinstance(item, FromFeed):
        return f"feed:{item.feed}"
    if isinstance(item, FromLastWeek):
        return f"last-week:{item.weeks}"
    return f"constant:{item.value:g}"
