"""The connector checklist has one sound row for each connector that is installed."""

import re
from pathlib import Path

import pytest

from pals_grid.feeds.registry import ConnectorRegistry

PAGE = Path(__file__).parents[2] / "docs/howto/connector-checklist.md"
HEAD = [
    "connector",
    "paging",
    "pace",
    "errors",
    "half-open UTC",
    "DST",
    "products",
    "negatives",
    "gaps",
]
REGISTRY = ConnectorRegistry()


def read_rows(text: str) -> dict[str, list[str]]:
    """Cells of the table under ``HEAD``, by connector."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = tables[tables.index(HEAD) + 2 :]
    return {row[0].strip("`"): row[1:] for row in rows}


ROWS = read_rows(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", REGISTRY.names())
def test_each_connector_has_a_row(name: str) -> None:
    assert name in ROWS, f"{PAGE.name} has no row for {name}"
    assert len(ROWS[name]) == len(HEAD) - 1
    for column, cell in zip(HEAD[1:], ROWS[name], strict=True):
        assert re.fullmatch(r"done|exempt: \S.*", cell), f"{name}, {column}: {cell!r}"


def test_each_row_has_a_connector_and_they_are_in_order() -> None:
    assert list(ROWS) == sorted(REGISTRY.names())


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_pace_is_done_where_it_is_stated(name: str) -> None:
    done = ROWS[name][HEAD.index("pace") - 1] == "done"
    assert done == (REGISTRY.load(name).pace is not None)


def test_a_row_is_read_as_it_stands() -> None:
    head = "|" + "|".join(HEAD) + "|\n|" + "---|" * len(HEAD)
    assert read_rows(f"{head}\n| `x` | done |") == {"x": ["done"]}
