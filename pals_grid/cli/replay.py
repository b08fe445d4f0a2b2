"""``pals-grid replay``: a past day through the same code, in simulated time."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from pals_grid.cli.arguments import Finite, Instant, read_pairs, require_folder_of
from pals_grid.cli.output import json_option
from pals_grid.cli.progress import progress_bar
from pals_grid.core.site import DEFAULT_RESERVE_RATIO

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("replay")
@click.option("--price", "price_path", type=_FILE, required=True, help="CSV of prices; may be .gz.")
@click.option("--carbon", "carbon_path", type=_FILE, required=True, help="CSV of carbon intensity.")
@click.option("--trace", "trace_path", type=_FILE, required=True, help="CSV of requests.")
@click.option("--start", "start_at", type=Instant(), required=True, help="A full hour, ISO 8601.")
@click.option("--hours", type=click.IntRange(1, 744), default=24, show_default=True)
@click.option(
    "--price-column",
    "price_pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the file connector (unit=..., start_column=..., value_column=...).",
)
@click.option(
    "--carbon-column", "carbon_pairs", multiple=True, metavar="KEY=VALUE", help="The same, carbon."
)
@click.option("--currency", default="GBP", show_default=True)
@click.option("--timezone", default="Europe/London", show_default=True)
@click.option("--carbon-price-per-tonne", type=Finite(0, 1e6), default=0.0, show_default=True)
@click.option(
    "--deferrable-ratio",
    type=Finite(0, 1),
    default=0.2,
    show_default=True,
    help="Share of the requests that may wait up to six hours.",
)
@click.option(
    "--reserve-ratio",
    type=Finite(0, 10),
    default=DEFAULT_RESERVE_RATIO,
    show_default=True,
    help="Margin of throughput above the expected demand.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture.")
@json_option
def command(  # noqa: PLR0913 - each is one option
    *,
    price_path: Path,
    carbon_path: Path,
    trace_path: Path,
    start_at: datetime,
    hours: int,
    price_pairs: tuple[str, ...],
    carbon_pairs: tuple[str, ...],
    currency: str,
    timezone: str,
    carbon_price_per_tonne: float,
    deferrable_ratio: float,
    reserve_ratio: float,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run real prices and carbon through planner, service and node; compare with going without."""
    from pals_grid.cli.environment import read_settings  # noqa: PLC0415
    from pals_grid.evaluate.plot import plot_replay  # noqa: PLC0415
    from pals_grid.evaluate.render import render_text  # noqa: PLC0415
    from pals_grid.evaluate.replay import ReplayConfig, replay  # noqa: PLC0415

    require_folder_of("plot", plot)
    config = ReplayConfig(
        price_path=price_path,
        carbon_path=carbon_path,
        trace_path=trace_path,
        start_at=start_at,
        hours=hours,
        price_mapping=read_pairs("price-column", price_pairs) or None,
        carbon_mapping=read_pairs("carbon-column", carbon_pairs) or None,
        currency=currency,
        timezone=timezone,
        carbon_price_per_tonne=carbon_price_per_tonne,
        deferrable_ratio=deferrable_ratio,
        reserve_ratio=reserve_ratio,
        seed=seed,
        database_url=read_settings().database_url,
    )
    with progress_bar(f"Replaying {hours} h") as progress:
        result = replay(config, progress)
    if plot is not None:
        plot_replay(result, plot)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, default=_plain))
    else:
        click.echo(render_text(result))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")
