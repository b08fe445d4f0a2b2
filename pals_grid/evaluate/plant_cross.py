"""Cross-validation of the plant's fit: refitted without the rows that it is judged on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from pals_grid.evaluate.plant_errors import CrossReport, SetReport
from pals_grid.evaluate.plant_sets import compare_levels, compare_limits
from pals_grid.powermodel import measured
from pals_grid.powermodel.train.calibrate_a100 import fit_a100
from pals_grid.powermodel.train.calibrate_levels import fit_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pals_grid.evaluate.plant_errors import RowError
    from pals_grid.powermodel.fitted import FittedPlant
    from pals_grid.powermodel.measured import LevelRow, LimitRow

_GROUP_FOLDS = 6
_THIRD = 3


def cross_validate(
    folder: Path, fit: FittedPlant, progress: Callable[[float], None]
) -> list[CrossReport]:
    """Every way of leaving out, over the sets in ``folder``; nothing is judged on its own fit."""
    reports: list[CrossReport] = []
    if (folder / measured.A100_TABLE).is_file():
        rows = measured.read_limits(folder / measured.A100_TABLE)
        reports += _cross_limits(fit, rows)
    progress(0.3)
    tables = (
        ("mlenergy_v3", measured.V3_TABLE, measured.read_v3),
        ("mlenergy_v2", measured.V2_TABLE, measured.read_v2),
    )
    for done, (name, table, read) in enumerate(tables, 1):
        if (folder / table).is_file():
            reports += _cross_levels(name, fit, read(folder / table))
        progress(0.3 + 0.35 * done)
    progress(1.0)
    return reports


def _cross_limits(fit: FittedPlant, rows: Sequence[LimitRow]) -> Iterator[CrossReport]:
    top_w = max(row.limit_w for row in rows)
    for limit_w in sorted({row.limit_w for row in rows} - {top_w}):
        kept = [row for row in rows if row.limit_w != limit_w]
        out = [row for row in rows if row.limit_w == limit_w]
        yield _report("pals_author_a100", f"limit {limit_w:g} W", _refit_limits(fit, kept, out))
    everything: list[RowError] = []
    for model in sorted({row.model for row in rows}):
        out = [row for row in rows if row.model == model and row.limit_w != top_w]
        if out:
            kept = [row for row in rows if row.model != model or row.limit_w == top_w]
            errors = _refit_limits(fit, kept, out)
            everything += errors
            yield _report("pals_author_a100", f"{model} but its {top_w:g} W row", errors)
    yield _report("pals_author_a100", f"each model but its {top_w:g} W row, all", everything)


def _refit_limits(
    fit: FittedPlant, kept: Sequence[LimitRow], out: Sequence[LimitRow]
) -> list[RowError]:
    law, engines = fit_a100(kept)
    return compare_limits(msgspec.structs.replace(fit, a100=law, engines=engines), out)[0]


def _cross_levels(name: str, fit: FittedPlant, rows: Sequence[LevelRow]) -> Iterator[CrossReport]:
    place, inner = _places(rows)
    levels = sorted({row.level for row in rows})
    errors = _refit_levels(fit, rows, [[row.level == level for row in rows] for level in levels])
    yield _report(name, "each batch level, of all groups", _present(errors))
    between = (e for e, inside in zip(errors, inner, strict=True) if inside)
    yield _report(
        name, "each batch level, where it is neither the least nor the most", _present(between)
    )
    third = [[p % _THIRD == 1 for p in place]]
    errors = _refit_levels(fit, rows, third)
    yield _report(name, "every third level of a group", _present(errors))
    between = (e for e, inside in zip(errors, inner, strict=True) if inside)
    yield _report(name, "every third level, neither the least nor the most", _present(between))
    draw = random.Random(0)  # noqa: S311 - folds, no secret
    keys = sorted({row.key for row in rows}, key=str)
    fold = {key: draw.randrange(_GROUP_FOLDS) for key in keys}
    groups = [[fold[row.key] == i for row in rows] for i in range(_GROUP_FOLDS)]
    yield _report(
        name, "whole groups, a sixth at a time", _present(_refit_levels(fit, rows, groups))
    )


def _present(errors: Iterable[RowError | None]) -> list[RowError]:
    return [error for error in errors if error is not None]


def _places(rows: Sequence[LevelRow]) -> tuple[list[int], list[bool]]:
    """Each row's place among its group's levels, and whether it has a neighbour on each side."""
    members: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row.key, []).append(i)
    place, inner = [0] * len(rows), [False] * len(rows)
    for group in members.values():
        for rank, i in enumerate(sorted(group, key=lambda i: rows[i].running)):
            place[i], inner[i] = rank, 0 < rank < len(group) - 1
    return place, inner


def _refit_levels(
    fit: FittedPlant, rows: Sequence[LevelRow], folds: Sequence[Sequence[bool]]
) -> list[RowError | None]:
    errors: list[RowError | None] = [None] * len(rows)
    for fold in folds:
        out = [i for i, left in enumerate(fold) if left]
        kept = [row for row, left in zip(rows, fold, strict=True) if not left]
        if not out or len(kept) < 2:
            continue
        groups, trend = fit_levels(kept)
        refit = msgspec.structs.replace(fit, groups=groups, trends=(trend,))
        found, _ = compare_levels(refit, [rows[i] for i in out])
        for i, error in zip(out, found, strict=True):
            errors[i] = error
    return errors


def _report(name: str, left_out: str, errors: Iterable[RowError]) -> CrossReport:
    rows = tuple(errors)
    return CrossReport(name, left_out, SetReport(name, "", "", "", "", rows).spreads(rows))
