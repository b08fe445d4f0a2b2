"""What a backtest's site is asked to serve: output tokens/s by slot."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant
from pals_grid.sim.arrivals import daily_envelope

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import numpy.typing as npt

    from pals_grid.evaluate.backtest.config import Load
    from pals_grid.evaluate.backtest.grid import Grid

    Floats = npt.NDArray[np.float64]

NOISE_FADES_H = 2.0
EPOCH_BLOCK_DAYS = 7


def load_by_slot(load: Load, grid: Grid, timezone: str, folder: Path) -> Floats:
    """Tokens/s of every slot; the same slot has the same load in whatever stretch of time.

    Raises:
        InvalidValue: for a CSV that cannot be read or does not cover the grid.
    """
    if load.shape == "csv":
        return _from_csv(folder / load.path, grid)
    mean = load.mean_tokens_per_s or 0.0
    if load.shape == "constant":
        return np.full(grid.count, mean)
    zone = ZoneInfo(timezone)
    local = (at.astimezone(zone) for at in grid.edges[:-1])
    shape = np.array([daily_envelope(at, grid.slot_s / 2) for at in local])
    week = np.where(grid.weekend(timezone), load.weekend_ratio, 1.0)
    week *= 7 / (5 + 2 * load.weekend_ratio)
    return mean * shape * week * _noise(load, grid)


def _noise(load: Load, grid: Grid) -> Floats:
    """Log-normal, mean 1; drawn in blocks that begin with the epoch's weeks."""
    block = EPOCH_BLOCK_DAYS * grid.per_day
    first = round(grid.start_s / grid.slot_s)
    numbers = range(first // block, (first + grid.count - 1) // block + 1)
    drawn = np.concatenate([_block_noise(load, grid, number, block) for number in numbers])
    begin = first - numbers[0] * block
    logs = drawn[begin : begin + grid.count] * load.noise_ratio
    return np.exp(logs - load.noise_ratio**2 / 2)


def _block_noise(load: Load, grid: Grid, number: int, block: int) -> Floats:
    fade = math.exp(-1 / (NOISE_FADES_H * grid.per_hour))
    draws = np.random.default_rng([load.seed, number]).standard_normal(block)
    step = math.sqrt(1 - fade**2)
    found, held = np.empty(block), float(draws[0])
    for i, draw in enumerate(draws):
        held = fade * held + step * draw if i else held
        found[i] = held
    return found


def _from_csv(path: Path, grid: Grid) -> Floats:
    rows = _read(path)
    starts = np.array([at.timestamp() for at, _ in rows])
    rates = np.array([rate for _, rate in rows])
    steps = np.diff(starts)
    if not len(steps) or not np.allclose(steps, steps[0]) or steps[0] <= 0:
        raise InvalidValue("load.path", path.name, "must have equally long rising steps")
    at = np.searchsorted(starts, grid.start_s + grid.slot_s * np.arange(grid.count), "right") - 1
    last = grid.start_s + grid.slot_s * grid.count
    if at[0] < 0 or last > starts[-1] + steps[0] + 1:
        bound = f"must cover {grid.edges[0].isoformat()} to {grid.edges[-1].isoformat()}"
        raise InvalidValue("load.path", path.name, f"{bound}, with past and settling days")
    found: Floats = rates[at]
    return found


def _read(path: Path) -> list[tuple[datetime, float]]:
    try:
        with path.open(newline="") as text:
            rows = list(csv.DictReader(text))
        return [_row(line, row) for line, row in enumerate(rows, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidValue("load.path", str(path), f"must be CSV ({error})") from error


def _row(line: int, row: dict[str, str]) -> tuple[datetime, float]:
    at = parse_instant(f"line {line}, start_at", row.get("start_at") or "")
    text = row.get("tokens_per_s") or ""
    try:
        rate = float(text)
    except ValueError as error:
        raise InvalidValue(f"line {line}, tokens_per_s", text, "must be a number") from error
    if not 0 <= rate < 1e12:
        raise InvalidValue(f"line {line}, tokens_per_s", rate, "must be from 0 to 1e12")
    return at, rate
