"""A small site with prices written by hand, for the backtest's tests."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pals_grid.core.intervals import Interval
from pals_grid.evaluate.backtest.config import load_site
from pals_grid.evaluate.backtest.world import build_world

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.evaluate.backtest.world import World

START = datetime(2022, 6, 1, tzinfo=UTC)
FIRST = START - timedelta(days=40)
NODE = {
    "gpu_model": "NVIDIA A100-SXM4-80GB",
    "model": "deepseek-ai/deepseek-moe-16b-base",
    "gpu_count": 4,
    "count": 2,
}


def price_at(hour: int) -> float:
    """Dear in the evening, cheap at night, no two days alike."""
    day, of_day = divmod(hour, 24)
    return 100 + 60 * math.sin((of_day - 13) / 24 * math.tau) + 7 * (day * 5 % 7)


def write_prices(path: Path, days: int = 60, change: dict[int, float] | None = None) -> None:
    """Hourly prices from ``FIRST`` on; ``change`` replaces those of hours after ``START``."""
    lead = round((START - FIRST).total_seconds() / 3600)
    lines = ["time,price"]
    for hour in range(days * 24):
        value = (change or {}).get(hour - lead, price_at(hour))
        lines.append(f"{(FIRST + timedelta(hours=hour)).isoformat()},{value:.3f}")
    path.write_text("\n".join(lines) + "\n")


def site_dict(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the file
    """A site file's content."""
    base: dict[str, Any] = {
        "policy": {
            "slug": "small",
            "name": "Small",
            "grid_connection_w": 5000,
            "slot_s": 3600,
            "horizon_s": 129_600,
            "tiers": [
                {"name": "chat", "demand_ratio": 0.6},
                {"name": "batch", "demand_ratio": 0.4, "deferral_s": 43_200},
            ],
        },
        "nodes": [NODE],
        "load": {"mean_tokens_per_s": 2000},
        "price": {
            "path": "prices.csv",
            "mapping": {
                "unit": "EUR/MWh",
                "start_column": "time",
                "value_column": "price",
                "interval_s": "3600",
            },
        },
    }
    return base | changes


def write_site(folder: Path, **changes: Any) -> Path:  # noqa: ANN401 - any field of the file
    """Write the site file, and prices beside it where there are none."""
    if not (folder / "prices.csv").exists():
        write_prices(folder / "prices.csv")
    path = folder / "site.json"
    path.write_text(json.dumps(site_dict(**changes)))
    return path


def small_world(folder: Path, days: int = 3, **changes: Any) -> World:  # noqa: ANN401
    """The days from ``START`` on."""
    site = load_site(write_site(folder, **changes))
    return build_world(site, Interval(START, START + timedelta(days=days)), folder)
