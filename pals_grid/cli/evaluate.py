"""``pals-grid evaluate``: scenarios x strategies x seeds on the simulated plant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from pals_grid.cli.arguments import require_folder_of
from pals_grid.cli.output import json_option
from pals_grid.cli.progress import progress_bar
from pals_grid.core.errors import InvalidValue

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command("evaluate")
@click.option("--scenario", "scenarios", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--trace", "trace_path", type=_FILE, help="CSV of requests.")
@click.option("--data", "data_path", type=_FOLDER, help="Folder that holds llm-traces/.")
@click.option("--seeds", type=int, default=5, show_default=True, help="Runs of each case.")
@click.option("--jobs", type=int, default=None, help="Processes; all cores by default.")
@click.option("--quick", is_flag=True, help="Short runs of few cases, to see that it works.")
@json_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="For JSON and PNGs.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the page.")
def command(  # noqa: PLR0913 - each is one option
    *,
    scenarios: tuple[str, ...],
    strategies: tuple[str, ...],
    trace_path: Path | None,
    data_path: Path | None,
    seeds: int,
    jobs: int | None,
    quick: bool,
    as_json: bool,
    out: Path | None,
    markdown: Path | None,
) -> None:
    """Compare strategies on the simulated plant; print tables and bars.

    Every strategy drives the production control loop. The result is the same for the same seeds,
    however many processes there are.
    """
    from pals_grid.evaluate.suite.suite import Request, check_pictures, evaluate  # noqa: PLC0415

    require_folder_of("markdown", markdown)
    if out is not None or markdown is not None:
        check_pictures()
    request = Request(
        scenarios=scenarios,
        strategies=strategies,
        trace_path=trace_path or _trace_in(data_path),
        seeds=seeds,
        processes=jobs if jobs is not None else os.cpu_count() or 1,
        quick=quick,
    )
    with progress_bar("Simulating") as progress:
        result = evaluate(request, progress)
    if out is not None:
        result.write(out)
    if markdown is not None:
        result.write_markdown(markdown)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo(result.to_text())


def _trace_in(data_path: Path | None) -> Path | None:
    from pals_grid.evaluate.suite.loads import TRACE_IN_DATA  # noqa: PLC0415

    if data_path is None:
        return None
    path = data_path.joinpath(*TRACE_IN_DATA)
    if not path.is_file():
        raise InvalidValue("data", str(data_path), f"must hold {'/'.join(TRACE_IN_DATA)}")
    return path
