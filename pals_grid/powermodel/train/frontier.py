"""From the profile of one engine to its frontier table: fine, monotone, free of contradictions."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.powermodel.train.engines import EngineKey, GpuKind, gpu_family, with_common_mix
from pals_grid.powermodel.train.fit import Kind, fit_predictor
from pals_grid.powermodel.train.latency import Latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.train.engines import Floats

_LIMITS = 25
_MAX_POINTS = 20_000
_FALL = 0.97
_OVER_LIMIT = 1.03


def fit_frontier(  # noqa: PLR0913 - three axes and two sources
    rows: Sequence[ProfileRow],
    *,
    power_limits_w: Sequence[float] | None = None,
    max_num_seqs: Sequence[int] | None = None,
    sm_clocks_mhz: Sequence[float | None] = (None,),
    prior_rows: Sequence[ProfileRow] = (),
    input_per_output: float | None = None,
    kind: Kind = Kind.PHYSICS,
    seed: int = 0,
) -> FrontierTable:
    """Fit the table of the one engine that ``rows`` are of.

    Limits (per GPU) default to 25 steps over those measured and the measured ones, batches to
    those measured and one between neighbours far apart. ``prior_rows`` are of other engines on
    the same kind of GPU, whose answer to a limit helps where ``rows`` are few. The table's origin
    is the weakest of its rows'. ITL without measurement is ``batch / throughput``, an upper bound
    that counts prefill in; TTFT without measurement is taken equal to the ITL.

    Raises:
        InvalidValue: without rows, for rows of more than one engine, an unknown phase mix, or an
            axis with an impossible value.
    """
    mix = _require_one_engine(rows, input_per_output)
    rows = with_common_mix(rows)
    family = gpu_family(rows[0].gpu_model)
    limits_w = _limits_w(rows) if power_limits_w is None else sorted(set(power_limits_w))
    batches = _batches(rows) if max_num_seqs is None else sorted(set(max_num_seqs))
    clocks = sorted(set(sm_clocks_mhz), key=lambda mhz: math.inf if mhz is None else mhz)
    _require_axes(limits_w, batches, clocks)
    prior = [row for row in prior_rows if gpu_family(row.gpu_model) == family]
    predictor = fit_predictor([*rows, *prior], kinds=(kind,), seed=seed)
    cells = [
        replace(
            rows[0], power_limit_w=limit_w, max_num_seqs=batch, sm_clock_mhz=clock, ttft_s=None,
            itl_s=None,
        )
        for clock in clocks
        for limit_w in limits_w
        for batch in batches
    ]  # fmt: skip
    shape = (len(clocks), len(limits_w), len(batches))
    predicted = predictor.predict(cells, kind)
    speed = np.log([p.tokens_per_s for p in predicted]).reshape(shape)
    speed = _rising(_rising(speed, 0), 1)
    if _rises_with_batch(rows):
        speed = _rising(speed, 2)
    power = np.array([p.gpu_power_w for p in predicted]).reshape(shape)
    power = _rising(_rising(power, 0), 1)
    most_w = np.array(limits_w)[None, :, None] * rows[0].gpu_count * _OVER_LIMIT
    ttft, itl = _latencies(rows, cells, speed)
    return FrontierTable(
        gpu_model=rows[0].gpu_model,
        gpu_count=rows[0].gpu_count,
        model=rows[0].model,
        input_per_output=mix,
        origin=Origin.weakest(row.origin for row in rows),
        points=tuple(
            OperatingPoint(
                power_limit_w=cell.power_limit_w,
                max_num_seqs=cell.max_num_seqs,
                tokens_per_s=tokens_per_s,
                gpu_power_w=gpu_power_w,
                ttft_s=ttft_s,
                itl_s=itl_s,
                sm_clock_mhz=cell.sm_clock_mhz,
            )
            for cell, tokens_per_s, gpu_power_w, ttft_s, itl_s in zip(
                cells,
                np.exp(speed).ravel().tolist(),
                np.minimum(power, most_w).ravel().tolist(),
                ttft.ravel().tolist(),
                itl.ravel().tolist(),
                strict=True,
            )
        ),
    )


def _latencies(
    rows: Sequence[ProfileRow], cells: Sequence[ProfileRow], speed: Floats
) -> tuple[Floats, Floats]:
    """TTFT and ITL of ``cells`` in the shape of ``speed``, falling with limit and clock."""
    kind = GpuKind.of(rows)
    batch = np.array([cell.max_num_seqs for cell in cells], dtype=np.float64).reshape(speed.shape)
    itl = batch / np.exp(speed)
    timed = [(row, row.itl_s) for row in rows if row.itl_s is not None]
    if timed:
        latency = Latency([row for row, _ in timed], [s for _, s in timed], kind)
        itl = latency.predict(cells, speed.ravel()).reshape(speed.shape)
    itl = _rising(-_rising(_rising(-itl, 0), 1), 2)
    ttft = itl
    timed = [(row, row.ttft_s) for row in rows if row.ttft_s is not None]
    if timed:
        latency = Latency([row for row, _ in timed], [s for _, s in timed], kind)
        ttft = latency.predict(cells, speed.ravel()).reshape(speed.shape)
    return -_rising(_rising(-ttft, 0), 1), itl


def _rising(values: Floats, axis: int) -> Floats:
    """Nearest function that does not fall along ``axis``: between its two monotone envelopes."""
    above = np.maximum.accumulate(values, axis=axis)
    below = np.flip(np.minimum.accumulate(np.flip(values, axis), axis=axis), axis)
    result: Floats = (above + below) / 2
    return result


def _rises_with_batch(rows: Sequence[ProfileRow]) -> bool:
    """Whether no measured row loses throughput to a smaller batch at the same limit and clock."""
    ordered = sorted(
        rows, key=lambda row: (row.sm_clock_mhz or 0.0, row.power_limit_w, row.max_num_seqs)
    )
    return not any(
        a.sm_clock_mhz == b.sm_clock_mhz
        and a.power_limit_w == b.power_limit_w
        and b.tokens_per_s < _FALL * a.tokens_per_s
        for a, b in pairwise(ordered)
    )


def _limits_w(rows: Sequence[ProfileRow]) -> list[float]:
    known = {row.power_limit_w for row in rows}
    low_w, high_w = min(known), max(known)
    steps = {low_w + (high_w - low_w) * i / (_LIMITS - 1) for i in range(_LIMITS)}
    return sorted(known | steps)


def _batches(rows: Sequence[ProfileRow]) -> list[int]:
    known = sorted({row.max_num_seqs for row in rows})
    between = [round(math.sqrt(a * b)) for a, b in pairwise(known) if b >= 3 * a]
    return sorted({*known, *between})


def _require_one_engine(rows: Sequence[ProfileRow], input_per_output: float | None) -> float:
    """Phase mix of the one engine of ``rows``."""
    if not rows:
        raise InvalidValue("rows", 0, "a frontier table needs at least one row of a profile")
    engines = {EngineKey.of(row) for row in with_common_mix(rows)}
    if len(engines) > 1:
        names = sorted(f"{key.model} on {key.gpu_count} x {key.gpu_family}" for key in engines)
        raise InvalidValue("rows", "; ".join(names), "must all be of one engine and phase mix")
    mixes = [row.input_per_output for row in rows if row.input_per_output is not None]
    mix = input_per_output if input_per_output is not None or not mixes else median(mixes)
    if mix is None:
        raise InvalidValue("input_per_output", None, "must be given where no row has it")
    if not 0 <= mix <= 1e5:
        raise InvalidValue("input_per_output", mix, "must be from 0 to 1e5")
    return mix


def _require_axes(
    limits_w: Sequence[float], batches: Sequence[int], clocks: Sequence[float | None]
) -> None:
    axes: dict[str, list[float]] = {
        "power_limits_w": list(limits_w),
        "max_num_seqs": [float(batch) for batch in batches],
        "sm_clocks_mhz": [1.0 if mhz is None else mhz for mhz in clocks],
    }
    for field, values in axes.items():
        if not values:
            raise InvalidValue(field, values, "must hold at least one value")
        for value in values:
            if not 0 < value < math.inf:
                raise InvalidValue(field, value, "must be above 0 and finite")
    points = len(limits_w) * len(batches) * len(clocks)
    if points > _MAX_POINTS:
        raise InvalidValue("points", points, f"must be {_MAX_POINTS} or fewer")
