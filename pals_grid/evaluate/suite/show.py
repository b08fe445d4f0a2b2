"""Tables, bars and the whole report as text for a terminal of 100 columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.formats import number
from pals_grid.evaluate.suite.job import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.evaluate.suite.job import Bar


WIDTH = 100
_INTERVAL = re.compile(r" ±[0-9.]+$")


def text_table(table: Table) -> str:
    """Aligned columns under a title; columns of figures to the right.

    Where the columns do not fit, the intervals are left out.
    """
    lines = _aligned(table)
    title = table.title
    if max(len(line) for line in lines) > WIDTH:
        rows = tuple(tuple(_INTERVAL.sub("", cell) for cell in row) for row in table.rows)
        lines = _aligned(Table(table.title, table.head, rows))
        title += " (intervals: see the JSON)"
    return "\n".join([title, "", *lines])


def _aligned(table: Table) -> list[str]:
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    right = [_is_numeric(table, i) for i in range(len(table.head))]
    out: list[str] = []
    for line in lines:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        out.append("  ".join(cells).rstrip())
    return [out[0], "-" * len(out[0]), *out[1:]]


def markdown_table(table: Table) -> str:
    """The same as Markdown."""
    marks = ["---:" if _is_numeric(table, i) else "---" for i in range(len(table.head))]
    lines = [_row(table.head), _row(marks), *(_row(row) for row in table.rows)]
    return f"{table.title}\n\n" + "\n".join(lines)


def bars_table(bars: Sequence[Bar]) -> Table:
    """Every bar: bound, value, interval, worst seed, met or not, distance, the oracle's figure."""
    rows = []
    for bar in bars:
        digits, scale, unit = _form(bar)
        interval = "-" if bar.half_width is None else f"±{number(bar.half_width, digits, scale)}"
        worst = "-"
        if bar.worst is not None:
            worst = f"{number(bar.worst, digits, scale)} (#{bar.worst_seed})"
        rows.append(
            (
                bar.scenario,
                bar.name,
                f"{bar.sense} {bar.bound * scale:.{digits}f}{unit}",
                number(bar.value, digits, scale),
                interval,
                worst,
                {True: "met", False: "NOT met", None: "not run"}[bar.met],
                number(bar.limit, digits, scale),
            )
        )
    head = ("scenario", "bar", "bound", "value", "95 %", "worst (seed)", "", "oracle")
    return Table("Bars", head, tuple(rows))


def bars_text(bars: Sequence[Bar]) -> str:
    """Bars over two lines each, which a terminal of 100 columns holds."""
    lines = ["Bars"]
    for row in bars_table(bars).rows:
        scenario, name, bound, value, interval, worst, met, limit = row
        lines.append(f"  {met:<8} {scenario}: {name}")
        lines.append(
            f"           {bound}: {value} {interval}, worst {worst}"
            + (f", oracle {limit}" if limit != "-" else "")
        )
    return "\n".join(lines)


def _form(bar: Bar) -> tuple[int, float, str]:
    if bar.unit:
        return 2, 1.0, f" {bar.unit}"
    return 1, 100.0, " %"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_numeric(table: Table, column: int) -> bool:
    figures = [row[column].lstrip("-")[:1].isdigit() for row in table.rows if row[column]]
    return column > 0 and any(figures)
