"""The plant's whole validation: measured sets, published anchors, and cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.plant_anchors import anchor_gates
from pals_grid.evaluate.plant_errors import FIGURES
from pals_grid.evaluate.plant_sets import validate_sets
from pals_grid.powermodel.gpu_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pals_grid.evaluate.plant_errors import CrossReport, Gate, SetReport, Spread
    from pals_grid.powermodel.fitted import FittedPlant


@dataclass(frozen=True)
class PlantValidation:
    """Everything that ``pals-grid plant validate`` prints."""

    sources: dict[str, str]
    sets: tuple[SetReport, ...]
    gates: tuple[Gate, ...]
    cross: tuple[CrossReport, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values; errors are mean absolute ones in per cent."""
        return {
            "fit_sources": self.sources,
            "response_to_limit": {kind.name: kind.limit_response for kind in KINDS},
            "sets": [report.to_json() for report in self.sets],
            "anchors": [gate.to_json() for gate in self.gates],
            "cross_validation": [report.to_json() for report in self.cross],
        }


def validate_plant(
    folder: Path,
    fit: FittedPlant,
    *,
    cross: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> PlantValidation:
    """Compare ``fit`` with whatever sets are in ``folder``.

    Raises:
        InvalidValue: when there is none of them, or a file is not what it should be.
    """
    sets = validate_sets(folder, fit)
    if not sets:
        raise InvalidValue("data", str(folder), "must hold one of the measured sets")
    reports: list[CrossReport] = []
    if cross:
        # numpy and scipy are needed for the refits alone.
        from pals_grid.evaluate.plant_cross import cross_validate  # noqa: PLC0415

        reports = cross_validate(folder, fit, progress)
    return PlantValidation(fit.sources, tuple(sets), tuple(anchor_gates()), tuple(reports))


def render_validation(result: PlantValidation) -> str:
    """Return the report as text."""
    lines: list[str] = []
    for report in result.sets:
        lines += _set_lines(report)
    lines.append("Published anchors (quotes; they can show a mistake, not prove the plant right)")
    for gate in result.gates:
        place = "inside " if gate.inside else "OUTSIDE"
        bounds = f"{gate.low:g} to {gate.high:g} {gate.unit}"
        lines.append(f"  {place} {gate.modelled:9.1f}  of {bounds:22} {gate.name} [{gate.basis}]")
    if result.cross:
        lines += ["", "Cross-validation: refitted without the rows that are judged"]
        for refit in result.cross:
            lines.append(f"  {refit.name:17} {refit.left_out:62} {_figures(refit.spreads)}")
    states = ", ".join(f"{kind.name} {kind.limit_response}" for kind in KINDS)
    lines += ["", f"Response to a power limit or a clock lock: {states}."]
    return "\n".join(lines)


def _set_lines(report: SetReport) -> Iterator[str]:
    total = len(report.errors) + report.unknown
    yield f"{report.name}: {report.what}"
    yield f"  {total} rows, {report.unknown} unknown; power: {report.boundary};"
    yield f"  response to a limit: {report.response_to_limit}"
    for reason, rows in report.unused.items():
        yield f"  unknown, {rows} rows: {reason}"
    yield f"  {'all':32} {_figures(report.spreads(report.errors))}"
    groups = report.by(lambda row: row.sample.value)
    groups |= _few(report.by(lambda row: f"{report.level_name} {row.level}"))
    groups |= _few(report.by(lambda row: row.model))
    groups |= report.by(lambda row: row.gpu_model)
    for name, spreads in groups.items():
        yield f"  {name[:32]:32} {_figures(spreads)}"
    for note in report.notes:
        yield f"  note: {note}"
    yield ""


def _few(groups: dict[str, dict[str, Spread]]) -> dict[str, dict[str, Spread]]:
    """Long lists are for JSON."""
    return groups if len(groups) <= 12 else {}


def _figures(spreads: dict[str, Spread]) -> str:
    """Mean, median and 90th percentile in per cent, of each figure."""
    parts = []
    for figure in FIGURES:
        spread = spreads.get(figure)
        if spread is not None:
            values = (
                f"{100 * spread.mean:5.1f} /{100 * spread.median:5.1f} /{100 * spread.p90:5.1f}"
            )
            parts.append(f"{figure} {values} % (n {spread.rows})")
    return "  ".join(parts)
