"""Errors of the plant against measurements: one row each, and their statistics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Sample(StrEnum):
    """What the fit knew of a row."""

    FITTED = "fitted"
    HELD_OUT = "held out"
    """Its group was fitted, this limit or batch level was not."""
    NEW_GROUP = "new group"
    """Nothing of its group was fitted: predicted from others."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Modelled over measured, less 1, of each figure that the set has."""

    model: str
    gpu_model: str
    level: str
    sample: Sample
    throughput: float | None = None
    power: float | None = None
    itl: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Absolute errors as ratios."""

    rows: int
    mean: float
    median: float
    p90: float

    @staticmethod
    def of(errors: Iterable[float]) -> Spread | None:
        """Statistics, None of no errors."""
        sizes = sorted(abs(error) for error in errors)
        if not sizes:
            return None
        ninth = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
        return Spread(len(sizes), fmean(sizes), median(sizes), ninth)

    def to_json(self) -> dict[str, float]:
        """Plain values, errors in per cent."""
        return {
            "rows": self.rows,
            "mean_pct": round(100 * self.mean, 3),
            "median_pct": round(100 * self.median, 3),
            "p90_pct": round(100 * self.p90, 3),
        }


FIGURES = ("throughput", "power", "itl")


@dataclass(frozen=True)
class SetReport:
    """One measured set. ``boundary`` is the power boundary of its figures.

    ``unused`` counts, by the reason, rows that are in no statistic.
    """

    name: str
    what: str
    boundary: str
    response_to_limit: str
    level_name: str
    errors: tuple[RowError, ...]
    unused: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def unknown(self) -> int:
        """Rows that are in no statistic."""
        return sum(self.unused.values())

    def spreads(self, chosen: Iterable[RowError]) -> dict[str, Spread]:
        """Statistics of each figure that the rows have."""
        rows = list(chosen)
        found: dict[str, Spread] = {}
        for figure in FIGURES:
            values = (getattr(row, figure) for row in rows)
            spread = Spread.of(value for value in values if value is not None)
            if spread is not None:
                found[figure] = spread
        return found

    def by(self, key: Callable[[RowError], str]) -> dict[str, dict[str, Spread]]:
        """Statistics of the rows that share a key, in the keys' natural order."""
        groups: dict[str, list[RowError]] = defaultdict(list)
        for row in self.errors:
            groups[key(row)].append(row)
        return {name: self.spreads(groups[name]) for name in sorted(groups, key=_natural)}

    def to_json(self) -> dict[str, object]:
        """Plain values."""

        def plain(groups: dict[str, dict[str, Spread]]) -> dict[str, object]:
            return {
                name: {figure: spread.to_json() for figure, spread in spreads.items()}
                for name, spreads in groups.items()
            }

        return {
            "set": self.name,
            "what": self.what,
            "power_boundary": self.boundary,
            "response_to_limit": self.response_to_limit,
            "rows": len(self.errors) + self.unknown,
            "unknown": self.unknown,
            "unknown_by_reason": dict(self.unused),
            "errors": plain({"all": self.spreads(self.errors)})["all"],
            "by_sample": plain(self.by(lambda row: row.sample.value)),
            f"by_{self.level_name}": plain(self.by(lambda row: row.level)),
            "by_model": plain(self.by(lambda row: row.model)),
            "by_gpu": plain(self.by(lambda row: row.gpu_model)),
            "notes": list(self.notes),
        }


def _natural(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


@dataclass(frozen=True, slots=True)
class Gate:
    """A published figure beside the modelled one. ``low`` and ``high`` bound what is published.

    ``grade`` is the trust in the quote: R1 read in the source, R2 from a summary of it.
    """

    name: str
    source: str
    grade: str
    unit: str
    low: float
    high: float
    modelled: float
    basis: str

    @property
    def inside(self) -> bool:
        """Whether the model is within the published bounds."""
        return self.low <= self.modelled <= self.high

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "source": self.source,
            "grade": self.grade,
            "unit": self.unit,
            "published_low": self.low,
            "published_high": self.high,
            "modelled": round(self.modelled, 3),
            "inside": self.inside,
            "basis": self.basis,
        }


@dataclass(frozen=True, slots=True)
class CrossReport:
    """Errors of one way of leaving rows out, refitted without them."""

    name: str
    left_out: str
    spreads: dict[str, Spread] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "set": self.name,
            "left_out": self.left_out,
            "errors": {figure: spread.to_json() for figure, spread in self.spreads.items()},
        }
