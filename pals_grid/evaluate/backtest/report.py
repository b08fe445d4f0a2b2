"""A backtest's results as text, JSON, pictures and a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pals_grid.evaluate.backtest.markdown import render_markdown
from pals_grid.evaluate.backtest.plots import plot_site
from pals_grid.evaluate.backtest.tables import (
    bars_table,
    checks_table,
    months_table,
    policies_table,
)
from pals_grid.evaluate.suite.show import text_table

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.evaluate.backtest.result import SiteResult

FORMAT = 1


def to_text(results: list[SiteResult]) -> str:
    """Tables for a terminal."""
    parts = []
    for result in results:
        parts += [text_table(policies_table(result)), text_table(months_table(result))]
        parts.append(f"Saved: {result.objective}. Node boundary, modelled. {result.signals}.")
    if any(result.checks for result in results):
        parts.append(text_table(checks_table(results)))
    parts.append(text_table(bars_table(results)))
    return "\n\n".join(parts)


def to_json(results: list[SiteResult]) -> dict[str, object]:
    """Everything but the series of the pictures."""
    return {"format": FORMAT, "sites": [result.to_json() for result in results]}


def write(results: list[SiteResult], folder: Path) -> None:
    """Write ``backtest.json`` and a picture a site.

    Raises:
        ConfigurationError: without the ``plot`` extra.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backtest.json").write_text(json.dumps(to_json(results), indent=2) + "\n")
    write_pictures(results, folder)


def write_pictures(results: list[SiteResult], folder: Path) -> None:
    """Write a picture a site."""
    for result in results:
        plot_site(result, folder / f"backtest-{result.slug}.png")


def write_markdown(results: list[SiteResult], path: Path) -> None:
    """Write the page, and its pictures into ``images`` beside it."""
    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    write_pictures(results, images)
    path.write_text(render_markdown(results, "images/backtest-"))
