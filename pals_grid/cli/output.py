"""Output: aligned tables for people, stable JSON for programs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

json_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON."
)


def print_json(value: object) -> None:
    """Print ``value`` as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in aligned columns; columns of numbers to the right; None is a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(head, *cells, strict=True)]
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]
    for line in (list(head), *cells):
        parts = [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def show_short(text: str, width: int = 80) -> str:
    """One line of at most ``width`` printable characters; what is cut off ends in dots."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def show_power(power_w: float | None) -> str:
    """Power in W, kW or MW, whichever reads well."""
    if power_w is None:
        return "-"
    for unit, size_w in (("MW", 1e6), ("kW", 1e3)):
        if abs(power_w) >= size_w:
            return f"{power_w / size_w:.2f} {unit}"
    return f"{power_w:.0f} W"


def show_origins(origins: Sequence[str]) -> str:
    """How a figure before it is known: ``, measured+modelled``; nothing where nobody says."""
    return f", {'+'.join(origins)}" if origins else ""


def show_instant(text: str | None) -> str:
    """An instant to the minute, in UTC."""
    if text is None:
        return "-"
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%MZ")


def show_age(age_s: float | None) -> str:
    """A duration in its largest fitting unit."""
    if age_s is None:
        return "-"
    for unit, size_s in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if age_s >= size_s:
            return f"{age_s / size_s:.1f} {unit}"
    return f"{age_s:.0f} s"
