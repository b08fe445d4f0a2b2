"""The payloads that providers gave once, and the values that are expected of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pals_grid.core.intervals import parse_instant

if TYPE_CHECKING:
    from pathlib import Path

KNOWN_AT = datetime(2026, 5, 7, tzinfo=UTC)
STEPS = {"PT15M": timedelta(minutes=15), "PT60M": timedelta(hours=1)}
FIVE_MINUTES = timedelta(minutes=5)


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "EXPECTED.json").read_text())
    return found


def at(text: str) -> datetime:
    return parse_instant("expected", text)
