"""The cells that ``profile run`` may measure: what the unit takes, or what was asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import ClockLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.node.hardware import EngineUnit
    from pals_grid.powermodel.sampling import Cell

LIMITS = 7
CLOCKS = 4
LEAST_CLOCK_RATIO = 0.4
"""Of the highest SM clock; below it, published sweeps only lose."""
MOST_BATCH = 256


def list_cells(
    unit: EngineUnit, limits: str, batches: str, clocks: str, fixed_batch: int | None
) -> list[Cell]:
    """Every combination, free clocks first, then small batches, then high limits.

    That is the order in which a broken latency objective spares the most.

    Raises:
        InvalidValue: names the option, what it takes and the value.
    """
    from pals_grid.powermodel.sampling import Cell  # noqa: PLC0415

    most = fixed_batch or unit.engine.observe().max_num_seqs or MOST_BATCH
    limits_w = _read("limits", limits, lambda: _even(*_limits_w(unit), LIMITS))
    seqs = _read("batches", batches, lambda: [fixed_batch] if fixed_batch else _batches(most))
    clocks_mhz = _clocks_mhz(unit, clocks)
    low_w, high_w = _limits_w(unit)
    for limit_w in limits_w:
        if not low_w <= limit_w <= high_w:
            raise InvalidValue("limits", limit_w, f"must be from {low_w:g} to {high_w:g} W")
    for batch in seqs:
        if batch != int(batch) or not 1 <= batch <= 1e6:
            raise InvalidValue("batches", batch, "must be whole numbers from 1 to 1e6")
        if fixed_batch is not None and batch != fixed_batch:
            raise InvalidValue("batches", batch, f"must be {fixed_batch}, as the engine runs")
    return [
        Cell(float(limit_w), int(batch), clock_mhz)
        for clock_mhz in clocks_mhz
        for batch in sorted(set(seqs))
        for limit_w in sorted(set(limits_w), reverse=True)
    ]


def show_cell(cell: Cell) -> str:
    """One cell as people read it."""
    from pals_grid.node.profiling import show_cell as show  # noqa: PLC0415

    return show(cell)


def _limits_w(unit: EngineUnit) -> tuple[float, float]:
    ranges = [gpu.limit_range for gpu in unit.gpus]
    return max(r.min_w for r in ranges), min(r.max_w for r in ranges)


def _even(low: float, high: float, count: int) -> list[float]:
    return [float(round(low + (high - low) * i / (count - 1))) for i in range(count)]


def _batches(most: int) -> list[float]:
    """1, 4, 16, ... and the most."""
    return [4**i for i in range(12) if 4**i < most] + [most]


def _clocks_mhz(unit: EngineUnit, text: str) -> list[float | None]:
    """Free first, then from the highest clock down."""
    locks = [gpu.clock_range for gpu in unit.gpus if isinstance(gpu, ClockLock)]
    words = [word.strip() for word in text.split(",")]
    free: list[float | None] = [None] if "free" in words or text == "auto" else []
    if text != "auto" and all(word == "free" for word in words):
        return free
    if len(locks) < len(unit.gpus):
        raise InvalidValue("clocks", text, "must be free: a GPU's SM clock cannot be locked")
    low, high = max(r.min_mhz for r in locks), min(r.max_mhz for r in locks)
    numbers = ",".join(word for word in words if word != "free")
    least = max(low, LEAST_CLOCK_RATIO * high)
    found = _read("clocks", numbers, lambda: _even(least, high, CLOCKS + 1)[:-1])
    for clock in found:
        if not low <= clock <= high:
            raise InvalidValue("clocks", clock, f"must be from {low:g} to {high:g} MHz, or free")
    return [*free, *sorted(set(found), reverse=True)]


def _read(name: str, text: str, auto: Callable[[], list[float]]) -> list[float]:
    if text == "auto":
        return auto()
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidValue(name, text, "must be auto, or numbers with commas between")
    return numbers
