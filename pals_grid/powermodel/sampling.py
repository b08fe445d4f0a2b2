"""Which cells of a profile to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.profile import ProfileRow

MAX_CANDIDATES = 1200
_NOISE = 0.015
_LEVEL = 0.6
_RESPONSE = 0.12
_FREE_RATIO = 0.75


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting of an engine: power limit per GPU, batch size, SM clock (None: free)."""

    power_limit_w: float
    max_num_seqs: int
    sm_clock_mhz: float | None = None


class _Place(NamedTuple):
    """A cell in log coordinates, and how deep its limit or its clock holds it."""

    log_limit: float
    log_batch: float
    log_clock: float
    depth: float


def choose_cells(known: Sequence[ProfileRow], candidates: Sequence[Cell], count: int) -> list[Cell]:
    """Choose the ``count`` cells that tell the most about all ``candidates``, the best first.

    ``known`` are rows of the one engine that is profiled. What is unknown is taken as a Gaussian
    process: a level that varies with the batch, and an answer to the limit that grows with its
    depth below the free draw, alike at neighbouring limits and batches. Each step takes the cell
    whose measurement reduces the summed variance over the candidates most. An engine of which no
    high limit is known gets its highest limit at the largest and the smallest batch first: only
    there it shows its free draw. Cells that are known already are left out.

    Raises:
        InvalidValue: for a negative count, too many candidates, or one with an impossible value.
    """
    _require_valid(candidates, count)
    measured = {(row.power_limit_w, row.max_num_seqs, row.sm_clock_mhz) for row in known}
    left = [
        cell
        for cell in dict.fromkeys(candidates)
        if (cell.power_limit_w, cell.max_num_seqs, cell.sm_clock_mhz) not in measured
    ]
    if not left or not count:
        return []
    rows = [Cell(row.power_limit_w, row.max_num_seqs, row.sm_clock_mhz) for row in known]
    places = _places([*left, *rows], known)
    columns = _Reducer(places)
    for i in range(len(left), len(places)):
        columns.observe(i)
    chosen = _anchors(left, known)[:count]
    for i in chosen:
        columns.observe(i)
    for _ in range(min(count, len(left)) - len(chosen)):
        best = max((i for i in range(len(left)) if i not in chosen), key=columns.gain)
        columns.observe(best)
        chosen.append(best)
    return [left[i] for i in chosen]


def _anchors(left: Sequence[Cell], known: Sequence[ProfileRow]) -> list[int]:
    """Places of the cells that show the free draw, where nothing has shown it yet."""
    top_w = max(cell.power_limit_w for cell in left)
    if _free_draws(known, top_w):
        return []
    top = [i for i, cell in enumerate(left) if cell.power_limit_w == top_w]
    free = [i for i in top if left[i].sm_clock_mhz is None] or top
    ends = (
        max(free, key=lambda i: left[i].max_num_seqs),
        min(free, key=lambda i: left[i].max_num_seqs),
    )
    return list(dict.fromkeys(ends))


class _Reducer:
    """The covariance of all places, as measurements take from it."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._rows = [[_covariance(a, b) for b in places] for a in places]

    def gain(self, i: int) -> float:
        """Summed variance that a measurement of place ``i`` would take away."""
        row = self._rows[i]
        return sum(value * value for value in row) / (row[i] + _NOISE**2)

    def observe(self, i: int) -> None:
        """Take a measurement of place ``i`` into account."""
        column = list(self._rows[i])
        variance = column[i] + _NOISE**2
        for row, own in zip(self._rows, column, strict=True):
            share = own / variance
            if abs(share) > 1e-9:
                row[:] = [a - share * b for a, b in zip(row, column, strict=True)]


def _places(cells: Sequence[Cell], known: Sequence[ProfileRow]) -> list[_Place]:
    top_w = max(cell.power_limit_w for cell in cells)
    clocks = [cell.sm_clock_mhz for cell in cells if cell.sm_clock_mhz is not None]
    top_mhz = max(clocks, default=1.0)
    free_w = _free_draws(known, top_w)
    places = []
    for cell in cells:
        log_clock = math.log((cell.sm_clock_mhz or top_mhz) / top_mhz)
        near = min(free_w, key=lambda batch: abs(math.log(batch / cell.max_num_seqs)), default=None)
        draw_w = _FREE_RATIO * top_w if near is None else free_w[near]
        depth = math.log(draw_w / cell.power_limit_w)
        depth = 0.1 * math.log1p(math.exp(min(50.0, depth / 0.1)))
        places.append(
            _Place(
                math.log(cell.power_limit_w),
                math.log2(cell.max_num_seqs),
                log_clock,
                depth - 0.5 * log_clock,
            )
        )
    return places


def _free_draws(known: Sequence[ProfileRow], top_w: float) -> dict[int, float]:
    """Draw per GPU at the highest limit known of each batch, where that is high enough to tell."""
    best: dict[int, tuple[float, float]] = {}
    for row in known:
        if row.sm_clock_mhz is None and row.power_limit_w >= 0.6 * top_w:
            value = (row.power_limit_w, row.gpu_power_w / row.gpu_count)
            best[row.max_num_seqs] = max(best.get(row.max_num_seqs, value), value)
    return {batch: draw_w for batch, (_, draw_w) in best.items()}


def _covariance(a: _Place, b: _Place) -> float:
    batch = (a.log_batch - b.log_batch) ** 2
    level = _LEVEL**2 * math.exp(-0.5 * batch / 2.0**2)
    limit = ((a.log_limit - b.log_limit) / 0.45) ** 2 + ((a.log_clock - b.log_clock) / 0.6) ** 2
    answer = a.depth * b.depth * math.exp(-0.5 * (limit + batch / 3.0**2))
    return level + _RESPONSE**2 * answer


def _require_valid(candidates: Sequence[Cell], count: int) -> None:
    if count < 0:
        raise InvalidValue("count", count, "must be 0 or more")
    if len(candidates) > MAX_CANDIDATES:
        raise InvalidValue("candidates", len(candidates), f"must be {MAX_CANDIDATES} or fewer")
    for cell in candidates:
        if not 0 < cell.power_limit_w < math.inf:
            raise InvalidValue("power_limit_w", cell.power_limit_w, "must be above 0 and finite")
        if cell.max_num_seqs < 1:
            raise InvalidValue("max_num_seqs", cell.max_num_seqs, "must be 1 or more")
        if cell.sm_clock_mhz is not None and not 0 < cell.sm_clock_mhz < math.inf:
            raise InvalidValue("sm_clock_mhz", cell.sm_clock_mhz, "must be above 0 and finite")
