"""``pals-grid plant``: the calibrated plant, fitted and compared with measurements."""

from __future__ import annotations

from pathlib import Path

import click

from pals_grid.cli.arguments import require_folder_of
from pals_grid.cli.output import json_option, print_json
from pals_grid.cli.progress import progress_bar

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("plant")
def command() -> None:
    """Fit the simulated plant to published measurements, or show how far it is from them."""


@command.command("validate")
@click.option("--data", "folder", type=_FOLDER, required=True, help="Folder of measured sets.")
@click.option(
    "--fit",
    "fit_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of `plant fit`; default: the packaged one.",
)
@click.option(
    "--cross-validate",
    "cross",
    is_flag=True,
    help="Refit without limits, levels, models and groups, and judge on those.",
)
@json_option
def validate(*, folder: Path, fit_path: Path | None, cross: bool, as_json: bool) -> None:
    """Print the plant's error against every measured set in the folder."""
    from pals_grid.evaluate.plant_validation import (  # noqa: PLC0415
        render_validation,
        validate_plant,
    )
    from pals_grid.powermodel.fitted import decode_fit, packaged_fit  # noqa: PLC0415

    fit = packaged_fit() if fit_path is None else decode_fit(fit_path.read_bytes())
    if cross:
        with progress_bar("Refitting") as progress:
            result = validate_plant(folder, fit, cross=True, progress=progress)
    else:
        result = validate_plant(folder, fit)
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(render_validation(result))


@command.command("fit")
@click.option("--data", "folder", type=_FOLDER, required=True, help="Folder of measured sets.")
@click.option("--out", "path", type=_FILE, required=True, help="JSON to write.")
def fit(*, folder: Path, path: Path) -> None:
    """Fit the plant's coefficients; the same files give the same coefficients."""
    from pals_grid.powermodel.fitted import encode_fit  # noqa: PLC0415
    from pals_grid.powermodel.train.calibrate import calibrate  # noqa: PLC0415

    require_folder_of("out", path)
    fitted = calibrate(folder)
    path.write_bytes(encode_fit(fitted))
    click.echo(f"{len(fitted.engines)} engines and {len(fitted.groups)} groups in {path}")
