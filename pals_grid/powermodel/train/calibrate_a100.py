"""Fit of the A100's power law and of the models in its limit x batch table.

Penalised least squares of log throughput and log power. Shared by all models: the power law, its
spread within a step, the shares of prefill and decode that follow 1/f, the prompt size that fills
the GPUs. A model's own: a decode step and a draw for each batch, prefill per prompt and its draw,
and small own deviations from the shared shares. So a model that is known at one limit alone gets
the others' response, and its other limits are predicted, not fitted.

Why the pulls are what they are: the split between prefill and decode cannot be read from rows
that hold both. It is settled by ``_PROMPT_SLOPE`` of the step from batch 32 to 64 being prefill,
and by decode growing little from 32 to 64 once every expert is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.fitted import FittedEngine, FittedLaw
from pals_grid.powermodel.physics import FLOOR_SHARPNESS, LIMIT_RATIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pals_grid.powermodel.measured import LimitRow

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TOKENS_OUT = 5.0
PROMPT_TOKENS = 200.0
"""ASSUMED: the source does not tell its prompts' length."""
_NOISE = 0.02
_PROMPT_SLOPE = 0.88
_LEVELS = (-np.sqrt(1.5), 0.0, np.sqrt(1.5))
_GRID = np.concatenate([np.geomspace(0.002, 0.15, 60)[:-1], np.linspace(0.15, 1.0, 341)])
#: Shared: log static W, logit linear share, log (exponent - 1), log spread, log lowest clock,
#: logit prefill share, logit decode share, log saturation tokens, log prefill/decode draw.
_LOWEST_CLOCK = 210 / 1410
_SHARED_START = np.array(
    [*np.log([70.0]), 0.5, *np.log([15.0, 0.25, _LOWEST_CLOCK]), 2.0, 0.0, np.log(1600.0), 0.25]
)
_SHARED_PULL = np.array([1.0, 1.0, 1.0, 1.0, 0.02, 0.5, 1.0, 0.5, 0.1])
_SHARED = len(_SHARED_START)
_FULL_W = 400.0


class _Table:
    """Cells as arrays, and where a model's own parameters lie."""

    def __init__(self, rows: Sequence[LimitRow], models: Sequence[str], batches: Floats) -> None:
        self.models, self.batches = models, batches
        self.model: Ints = np.array([models.index(row.model) for row in rows])
        self.level: Ints = np.array([int(np.argmin(abs(batches - row.batch))) for row in rows])
        self.limit_w = np.array([row.limit_w for row in rows])
        self.log_rate = np.log([row.tokens_per_s for row in rows])
        self.log_power = np.log([row.gpu_power_w for row in rows])

    def split(self, x: Floats) -> tuple[Floats, Floats]:
        return x[:_SHARED], x[_SHARED:].reshape(len(self.models), -1)


def fit_a100(rows: Sequence[LimitRow]) -> tuple[FittedLaw, tuple[FittedEngine, ...]]:
    """Fit the table; every model needs a row at its highest limit for each batch.

    Raises:
        InvalidValue: when a model lacks a batch that others have, or its rows at 400 W.
    """
    models = sorted({row.model for row in rows})
    batches = np.array(sorted({row.batch for row in rows}))
    if len(batches) < 2:
        raise InvalidValue("batch", len(batches), "must have 2 or more levels")
    table = _Table(rows, models, batches)
    start = np.concatenate([_SHARED_START, *(_own_start(rows, name, batches) for name in models)])

    def residuals(x: Floats) -> Floats:
        log_rate, log_power = _predict(x, table)
        return np.concatenate(
            [
                (log_rate - table.log_rate) / _NOISE,
                (log_power - table.log_power) / _NOISE,
                _pulls(x, start, table),
            ]
        )

    found: Any = least_squares(residuals, start, x_scale="jac", max_nfev=60)
    return _result(found.x, table, rows)


def _own_start(rows: Sequence[LimitRow], model: str, batches: Floats) -> Floats:
    full = {row.batch: row for row in rows if row.model == model and row.limit_w == _FULL_W}
    missing = [float(batch) for batch in batches if batch not in full]
    if missing:
        raise InvalidValue("batch", missing, f"{model} must have a row at {_FULL_W:.0f} W for each")
    round_s = np.array([TOKENS_OUT * b / full[b].tokens_per_s for b in batches])
    draw_w = np.array([full[b].gpu_power_w for b in batches])
    prompt_s = _PROMPT_SLOPE * (round_s[-1] - round_s[-2]) / (batches[-1] - batches[-2])
    prompt_s = min(prompt_s, 0.8 * float(np.min(round_s / batches)))
    share = batches * prompt_s / round_s
    return np.concatenate(
        [
            np.log((round_s - batches * prompt_s) / TOKENS_OUT),
            np.log(draw_w - 70.0) - 0.6 * _SHARED_START[8] * share,
            [np.log(prompt_s), 0.0, 0.0, 0.0],
        ]
    )


def _pulls(x: Floats, start: Floats, table: _Table) -> Floats:
    shared, own = table.split(x)
    count = len(table.batches)
    away = (x - start)[_SHARED:].reshape(own.shape)
    return np.concatenate(
        [
            (shared - _SHARED_START) / _SHARED_PULL,
            (away[:, : 2 * count] / 0.5).ravel(),
            away[:, 2 * count] / 0.05,
            (own[:, count - 1] - own[:, count - 2] - 0.06) / 0.04,
            (away[:, 2 * count + 1 :] / 0.1).ravel(),
            (np.diff(own[:, count : 2 * count], axis=1) / 0.5).ravel(),
        ]
    )


def _sigmoid(x: Floats | float) -> Any:  # noqa: ANN401 - array or number, as given
    return 1 / (1 + np.exp(-x))


def _predict(x: Floats, table: _Table) -> tuple[Floats, Floats]:
    """Return log tokens/s and log W per GPU of every cell: one synchronous round of the batch."""
    shared, own = table.split(x)
    count = len(table.batches)
    mine, level = own[table.model], table.level
    batch = table.batches[level]
    each = np.arange(len(level))
    decode_w = np.exp(mine[each, count + level])
    full_w = np.exp(mine[:, 2 * count + 1] + shared[8] + mine[:, 2 * count - 1])
    fullness = -np.expm1(-PROMPT_TOKENS * batch / np.exp(shared[7]))
    prompt_w = decode_w + (full_w - decode_w) * fullness
    held_w = LIMIT_RATIO * table.limit_w
    prompt_time, prompt_j = _phase(
        prompt_w, _sigmoid(shared[5] + mine[:, 2 * count + 2]), held_w, shared
    )
    step_time, step_j = _phase(
        decode_w, _sigmoid(shared[6] + mine[:, 2 * count + 3]), held_w, shared
    )
    prompt_s = batch * np.exp(mine[:, 2 * count])
    decode_s = TOKENS_OUT * np.exp(mine[each, level])
    seconds = prompt_s * prompt_time + decode_s * step_time
    joules = prompt_s * prompt_j + decode_s * step_j
    return np.log(TOKENS_OUT * batch / seconds), np.log(joules / seconds)


def _phase(
    dynamic_w: Floats, cycles: Floats, held_w: Floats, shared: Floats
) -> tuple[Floats, Floats]:
    """Time over that at the highest clock, and joules per second at the highest clock."""
    static_w, linear = np.exp(shared[0]), _sigmoid(shared[1])
    exponent, spread, low = 1 + np.exp(shared[2]), np.exp(shared[3]), np.exp(shared[4])

    def ratio(f: Floats) -> Floats:
        return np.asarray(linear * f + (1 - linear) * f**exponent)

    grid = ratio(_GRID)
    seconds, joules = np.zeros_like(dynamic_w), np.zeros_like(dynamic_w)
    for step in _LEVELS:
        part_w = dynamic_w * (1 + spread * step)
        free = np.interp(np.clip((held_w - static_w) / part_w, grid[0], 1.0), grid, _GRID)
        f = np.minimum((free**FLOOR_SHARPNESS + low**FLOOR_SHARPNESS) ** (1 / FLOOR_SHARPNESS), 1)
        part_s = (cycles / f + 1 - cycles) / len(_LEVELS)
        seconds += part_s
        joules += part_s * np.minimum(held_w, static_w + part_w * ratio(f))
    return seconds, joules


def _result(
    x: Floats, table: _Table, rows: Sequence[LimitRow]
) -> tuple[FittedLaw, tuple[FittedEngine, ...]]:
    shared, own = table.split(x)
    count = len(table.batches)
    law = FittedLaw(
        static_w=float(np.exp(shared[0])),
        linear_share=float(_sigmoid(shared[1])),
        exponent=float(1 + np.exp(shared[2])),
        spread_ratio=float(np.exp(shared[3])),
        min_frequency_ratio=float(np.exp(shared[4])),
        saturation_tokens=float(np.exp(shared[7])),
    )
    engines = tuple(
        FittedEngine(
            sheet_name=name,
            rows=sum(row.model == name for row in rows),
            limits_w=tuple(sorted({row.limit_w for row in rows if row.model == name})),
            running=tuple(map(float, table.batches)),
            step_ms=tuple(map(float, 1e3 * np.exp(mine[:count]))),
            dynamic_w=tuple(map(float, np.exp(mine[count : 2 * count]))),
            decode_cycles_share=float(_sigmoid(shared[6] + mine[2 * count + 3])),
            prompt_ms=float(1e3 * np.exp(mine[2 * count])),
            prompt_dynamic_w=float(np.exp(mine[2 * count + 1] + shared[8] + mine[2 * count - 1])),
            prefill_cycles_share=float(_sigmoid(shared[5] + mine[2 * count + 2])),
        )
        for name, mine in zip(table.models, own, strict=True)
    )
    return law, engines
