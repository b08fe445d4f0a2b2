"""Figures as text, and the plain table of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.job import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.evaluate.suite.job import Column
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.statistics import Mean


def figure(mean: Mean | None, digits: int = 1, scale: float = 1.0) -> str:
    """A mean with half its interval: ``12.3 ±0.4``; a dash where there is none."""
    if mean is None:
        return "-"
    text = f"{mean.mean * scale:.{digits}f}"
    if mean.half_width is None:
        return text
    return f"{text} ±{mean.half_width * scale:.{digits}f}"


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """One value; a dash where there is none."""
    return "-" if value is None else f"{value * scale:.{digits}f}"


def plain_table(title: str, results: Results, columns: Sequence[Column]) -> Table:
    """One row a case and strategy, one column a metric."""
    rows = []
    for case in results.cases:
        for i, strategy in enumerate(results.strategies(case)):
            cells = [
                figure(results.mean(case, strategy, c.key), c.digits, c.scale) for c in columns
            ]
            rows.append((case if i == 0 else "", strategy, *cells))
    return Table(title, ("case", "strategy", *(c.head for c in columns)), tuple(rows))
