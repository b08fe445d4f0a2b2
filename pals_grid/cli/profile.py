"""``pals-grid profile``: from measured operating points to the table that a node looks up."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pals_grid.cli.arguments import Finite, require_folder_of
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table
from pals_grid.cli.profile_run import command as run
from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.powermodel.frontier_file import Provenance
    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.sampling import Cell
    from pals_grid.powermodel.train.fit import Kind
    from pals_grid.powermodel.train.scores import Mape, Scores

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_KINDS = click.Choice(["ensemble", "physics", "forest", "boosting"])
_MAX_BYTES = 256 * 2**20
_GZIP = b"\x1f\x8b"


@click.group("profile", cls=Commands)
def command() -> None:
    """Profiles of engines, and predictors from them."""


command.add_command(run)


@command.command()
@click.argument("profile", type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--model", help="Which model's rows to fit, where the profile has several.")
@click.option("--predictor", type=_KINDS, default="ensemble", show_default=True)
@click.option(
    "--prior",
    "prior_path",
    type=_FILE,
    help="A profile of other engines on this kind of GPU, to learn its answer to a limit from.",
)
@click.option(
    "--input-per-output",
    type=Finite(0, 1e5),
    help="Prompt tokens per output token, where the profile does not tell.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def fit(  # noqa: PLR0913 - each is one option
    *,
    profile: Path,
    out: Path,
    model: str | None,
    predictor: str,
    prior_path: Path | None,
    input_per_output: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Fit predictors on PROFILE and write the frontier table that `agent` looks up."""
    from pals_grid.powermodel.frontier_file import write_frontier  # noqa: PLC0415
    from pals_grid.powermodel.train.fit import Kind  # noqa: PLC0415
    from pals_grid.powermodel.train.frontier import fit_frontier  # noqa: PLC0415

    require_folder_of("out", out)
    raw = _read(profile)
    rows, others = _of_model(_parse(profile, raw), model)
    prior = [*others, *(_parse(prior_path, _read(prior_path)) if prior_path else ())]
    kind = Kind(predictor)
    clocks = sorted({row.sm_clock_mhz for row in rows}, key=lambda mhz: mhz or 0.0)
    table = fit_frontier(
        rows, sm_clocks_mhz=clocks, prior_rows=prior, input_per_output=input_per_output,
        kind=kind, seed=seed,
    )  # fmt: skip
    provenance = _provenance(raw, rows, prior, kind, seed)
    write_frontier(out, table, provenance)
    _show_fit(out, table, provenance, as_json=as_json)


@command.command()
@click.option("--train", "train_path", type=_FILE, required=True, help="Profile to fit on.")
@click.option("--test", "test_path", type=_FILE, help="Profile to compare with.")
@click.option(
    "--leave-one",
    type=click.Choice(["limit", "model", "batch"]),
    help="Leave each of these out of --train in turn, instead of --test; a model that is left "
    "out keeps its rows at its highest limit.",
)
@click.option("--predictor", type=_KINDS, default="ensemble", show_default=True)
@click.option(
    "--add-cells",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Cells to move from test to training, of each model known at one limit or not at all, "
    "as `profile run --cells` would choose them.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def evaluate(
    *,
    train_path: Path,
    test_path: Path | None,
    leave_one: str | None,
    predictor: str,
    add_cells: int,
    seed: int,
    as_json: bool,
) -> None:
    """Print how far predictions are from measured rows (MAPE): overall, by limit, by model."""
    from pals_grid.powermodel.train.fit import Kind  # noqa: PLC0415
    from pals_grid.powermodel.train.scores import Scores, leave_one_out, score  # noqa: PLC0415

    if (test_path is None) == (leave_one is None):
        raise click.UsageError("give either --test or --leave-one")
    train = _parse(train_path, _read(train_path))
    if test_path is not None:
        test = _parse(test_path, _read(test_path))
        scores = score(train, test, add_cells=add_cells, seed=seed)
    else:
        assert leave_one is not None
        turns = leave_one_out(train, leave_one, add_cells=add_cells, seed=seed)
        scores = Scores(len(train))
        with click.progressbar(turns, label=f"Leaving one {leave_one} out", file=sys.stderr) as bar:
            for turn in bar:
                scores.join(turn)
    kind = Kind(predictor)
    if as_json:
        print_json(_scores_json(scores, kind, leave_one))
    else:
        _show_scores(scores, kind)


def _read(path: Path) -> bytes:
    """Bytes of a profile; may be packed."""
    with path.open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
        if raw[:2] == _GZIP:
            try:
                with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                    raw = packed.read(_MAX_BYTES + 1)
            except (OSError, EOFError) as error:
                raise InvalidValue(path.name, str(error), "must be whole gzip") from error
    if len(raw) > _MAX_BYTES:
        raise InvalidValue(path.name, len(raw), f"must have {_MAX_BYTES} bytes or fewer")
    return raw


def _parse(path: Path, raw: bytes) -> list[ProfileRow]:
    from pals_grid.powermodel.profile_csv import load_profile  # noqa: PLC0415

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValue(path.name, str(error), "must be UTF-8") from error
    try:
        rows = load_profile(io.StringIO(text, newline=""))
    except InvalidValue as error:
        raise InvalidValue(f"{path.name}, {error.field}", error.value, error.bound) from error
    if not rows:
        raise InvalidValue(path.name, 0, "must have at least one row")
    return rows


def _of_model(
    rows: Sequence[ProfileRow], model: str | None
) -> tuple[list[ProfileRow], list[ProfileRow]]:
    """Rows of the one model wanted, and the others."""
    models = sorted({row.model for row in rows})
    if model is None and len(models) > 1:
        raise InvalidValue("model", None, f"must be given: one of {', '.join(models)}")
    chosen = model or models[0]
    if chosen not in models:
        raise InvalidValue("model", chosen, f"must be one of {', '.join(models)}")
    mine = [row for row in rows if row.model == chosen]
    return mine, [row for row in rows if row.model != chosen]


def _provenance(
    raw: bytes, rows: list[ProfileRow], prior: list[ProfileRow], kind: Kind, seed: int
) -> Provenance:
    """Errors on the fitted rows and, limits left out in turn, on rows that were not."""
    from pals_grid.powermodel.frontier_file import Provenance  # noqa: PLC0415
    from pals_grid.powermodel.train.scores import Scores, score  # noqa: PLC0415

    inside = score([*rows, *prior], rows, kinds=(kind,), seed=seed).overall(kind)
    outside = Scores(len(rows))
    for limit_w in sorted({row.power_limit_w for row in rows}):
        left = [row for row in rows if row.power_limit_w != limit_w]
        test = [row for row in rows if row.power_limit_w == limit_w]
        if left:
            outside.join(score([*left, *prior], test, kinds=(kind,), seed=seed))
    crossed = outside.overall(kind) if outside.rows else None
    return Provenance(
        fitted_at=datetime.now(UTC),
        predictor=str(kind),
        rows=len(rows),
        source_sha256=hashlib.sha256(raw).hexdigest(),
        throughput_mape_ratio=inside.throughput_mape_ratio,
        power_mape_ratio=inside.power_mape_ratio,
        cross_validated_throughput_mape_ratio=crossed.throughput_mape_ratio if crossed else None,
        cross_validated_power_mape_ratio=crossed.power_mape_ratio if crossed else None,
    )


def _show_fit(out: Path, table: FrontierTable, provenance: Provenance, *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 - with the command

    if as_json:
        facts = {"out": str(out), "model": table.model, "points": len(table.points)}
        print_json(facts | msgspec.to_builtins(provenance))
        return
    click.echo(
        f"{out}: {len(table.points)} points of {table.model} on {table.gpu_count} x "
        f"{table.gpu_model}, fitted on {provenance.rows} {table.origin} rows "
        f"({provenance.predictor})"
    )
    inside = (provenance.throughput_mape_ratio, provenance.power_mape_ratio)
    click.echo(f"on these rows: throughput {inside[0]:.1%}, power {inside[1]:.1%} (MAPE)")
    crossed = (
        provenance.cross_validated_throughput_mape_ratio,
        provenance.cross_validated_power_mape_ratio,
    )
    if crossed[0] is not None and crossed[1] is not None:
        click.echo(f"limits left out: throughput {crossed[0]:.1%}, power {crossed[1]:.1%} (MAPE)")


def _scores_json(scores: Scores, kind: Kind, leave_one: str | None) -> dict[str, object]:
    """The result as `docs/howto/profile.md` documents it."""
    from pals_grid.powermodel.train.scores import Mape  # noqa: PLC0415

    def one(chosen: Kind) -> dict[str, object]:
        unseen = scores.unseen_errors[chosen]
        return {
            "overall": scores.overall(chosen).to_json() if scores.rows else None,
            "by_limit_w": {f"{k:g}": v.to_json() for k, v in scores.by_limit(chosen).items()},
            "by_model": {k: v.to_json() for k, v in scores.by_model(chosen).items()},
            "unseen_models": Mape.of(unseen).to_json() if unseen else None,
        }

    return {
        "format_version": 1,
        "leave_one": leave_one,
        "train_rows": scores.train_rows,
        "test_rows": len(scores.rows) + len(scores.unseen),
        "predictor": str(kind),
        **one(kind),
        "predictors": {str(each): one(each) for each in scores.errors or scores.unseen_errors},
        "added_cells": {
            model: [_cell_json(cell) for cell in cells] for model, cells in scores.added.items()
        },
    }


def _cell_json(cell: Cell) -> dict[str, object]:
    return {
        "power_limit_w": cell.power_limit_w,
        "max_num_seqs": cell.max_num_seqs,
        "sm_clock_mhz": cell.sm_clock_mhz,
    }


def _show_scores(scores: Scores, kind: Kind) -> None:
    from pals_grid.powermodel.train.scores import Mape  # noqa: PLC0415

    def line(name: str, mape: Mape) -> tuple[object, ...]:
        speed, power = 100 * mape.throughput_mape_ratio, 100 * mape.power_mape_ratio
        return (name, mape.n, f"{speed:.2f}", f"{power:.2f}")

    for model, cells in scores.added.items():
        shown = ", ".join(f"{cell.power_limit_w:g} W x {cell.max_num_seqs}" for cell in cells)
        click.echo(f"added to training of {model}: {shown or 'nothing'}")
    head = (f"MAPE, {kind}", "rows", "throughput %", "power %")
    lines = []
    if scores.rows:
        lines.append(line("overall", scores.overall(kind)))
        lines += [line(f"{limit:g} W", m) for limit, m in scores.by_limit(kind).items()]
        lines += [line(model, m) for model, m in scores.by_model(kind).items()]
    if scores.unseen:
        lines.append(line("models without a row in training", Mape.of(scores.unseen_errors[kind])))
    if scores.rows:
        lines += [line(f"{each}, overall", scores.overall(each)) for each in scores.errors]
    print_table(head, lines)
