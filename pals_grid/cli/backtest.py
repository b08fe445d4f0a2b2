"""``pals-grid backtest``: months of real signals under the planner and its rivals."""

from __future__ import annotations

import json
import os
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pals_grid.cli.arguments import require_folder_of
from pals_grid.cli.output import json_option
from pals_grid.cli.progress import progress_bar

if TYPE_CHECKING:
    from datetime import datetime

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command("backtest")
@click.option("--site", "sites", type=_FILE, multiple=True, required=True, help="May be repeated.")
@click.option("--from", "start", type=_DAY, required=True, help="First day, UTC.")
@click.option("--to", "end", type=_DAY, required=True, help="Day after the last, UTC.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--data", "data", type=_FOLDER, help="Where the series lie; else beside the site.")
@click.option("--jobs", type=click.IntRange(1), default=None, help="Processes; else all cores.")
@click.option(
    "--validate",
    "validate_hours",
    type=click.IntRange(0, 168),
    default=0,
    help="Hours of the first month to serve on a simulated node as well.",
)
@json_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="For JSON and PNGs.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the page.")
def command(  # noqa: PLR0913 - each is one option
    *,
    sites: tuple[Path, ...],
    start: datetime,
    end: datetime,
    policies: tuple[str, ...],
    data: Path | None,
    jobs: int | None,
    validate_hours: int,
    as_json: bool,
    out: Path | None,
    markdown: Path | None,
) -> None:
    """Run the real planner over past months with only what was known at each moment.

    Beside it: no control, a static limit, price and carbon thresholds, perfect foresight; all at
    equal tokens. Power is modelled, at node boundary.
    """
    from pals_grid.evaluate.backtest import names, report  # noqa: PLC0415
    from pals_grid.evaluate.backtest.runner import Request, backtest  # noqa: PLC0415
    from pals_grid.evaluate.suite.suite import check_pictures  # noqa: PLC0415

    require_folder_of("markdown", markdown)
    if out is not None or markdown is not None:
        check_pictures()
    request = Request(
        sites=sites,
        start_at=start.replace(tzinfo=UTC),
        end_at=end.replace(tzinfo=UTC),
        policies=policies or names.POLICIES,
        folder=data,
        processes=jobs if jobs is not None else os.cpu_count() or 1,
        validate_hours=validate_hours,
    )
    with progress_bar("Backtesting") as progress:
        results = backtest(request, progress)
    if out is not None:
        report.write(results, out)
    if markdown is not None:
        report.write_markdown(results, markdown)
    if as_json:
        click.echo(json.dumps(report.to_json(results), indent=2, ensure_ascii=False))
    else:
        click.echo(report.to_text(results))
