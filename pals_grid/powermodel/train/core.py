"""The physics core: one least-squares fit for all engines on one kind of GPU.

Every (engine, batch) has two latents, its throughput and its draw when it runs free; everything
else is shared by the engines, who differ from it only as far as their rows insist. So an engine
that is known by one row at its highest limit takes its own level and draw from that row, and
its answer to a limit from the others; and cells whose limit does not bind are repeats of each
other, averaged by the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from pals_grid.powermodel.train.engines import EngineKey, GpuKind, Settings, log_targets
from pals_grid.powermodel.train.response import OWN, SHARED, respond
from pals_grid.powermodel.train.shape import BatchShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.train.engines import Floats, Ints
    from pals_grid.powermodel.train.response import Answer, Prior

SPEED_NOISE = 0.02
DRAW_NOISE = 0.01
_FREE_WIDTH = 0.5
_MAX_ROUNDS = 60
_STEP = 1e-5


@dataclass(frozen=True)
class Prediction:
    """Log tokens/s and log draw per GPU (W) of rows, and what they came from."""

    log_speed: Floats
    log_draw: Floats
    log_free_speed: Floats
    log_free_draw: Floats
    clock_ratio: Floats


class _Layout:
    """Where the parameters stand in the solver's vector, and their scales."""

    def __init__(self, prior: Prior, engines: int, cells: int) -> None:
        self.shared_mean, self.shared_width = prior.means(), prior.widths()
        self.own_width = prior.own_widths()
        self.engines, self.cells = engines, cells
        self.own_at = len(SHARED)
        self.speed_at = self.own_at + engines * len(OWN)
        self.draw_at = self.speed_at + cells
        self.size = self.draw_at + cells

    def shared(self, x: Floats) -> Floats:
        return self.shared_mean + self.shared_width * x[: self.own_at]

    def own(self, x: Floats) -> Floats:
        table = x[self.own_at : self.speed_at].reshape(self.engines, len(OWN))
        result: Floats = table * self.own_width
        return result


class PhysicsCore:
    """Fitted physics of one kind of GPU; see the module."""

    def __init__(self, rows: Sequence[ProfileRow], prior: Prior) -> None:
        self.kind = GpuKind.of(rows)
        self._rows = list(rows)
        keys = [EngineKey.of(row) for row in rows]
        self._engine_of = {key: i for i, key in enumerate(sorted(set(keys), key=repr))}
        cells = sorted(
            {(self._engine_of[key], row.max_num_seqs) for key, row in zip(keys, rows, strict=True)}
        )
        self._cell_of = {cell: i for i, cell in enumerate(cells)}
        self._cells = cells
        self._engine = np.array([self._engine_of[key] for key in keys])
        self._cell = np.array(
            [
                self._cell_of[int(e), row.max_num_seqs]
                for e, row in zip(self._engine, rows, strict=True)
            ]
        )
        self._at = Settings.of(rows, self.kind)
        self._speed, self._draw = log_targets(rows)
        self._layout = _Layout(prior, len(self._engine_of), len(cells))
        self._fit()

    def knows(self, key: EngineKey) -> bool:
        """Whether any row was of this engine."""
        return key in self._engine_of

    def predict(self, rows: Sequence[ProfileRow]) -> Prediction:
        """Throughput and draw at the settings of ``rows``; what the rows measured is not read.

        A batch without a row is taken from the engine's other batches, an engine without any
        from the mean of the others.
        """
        engines = [self._engine_of.get(EngineKey.of(row), -1) for row in rows]
        free_speed, free_draw = np.empty(len(rows)), np.empty(len(rows))
        for i, (engine, row) in enumerate(zip(engines, rows, strict=True)):
            cell = self._cell_of.get((engine, row.max_num_seqs))
            if cell is None:
                free_speed[i] = self._speed_shape.value(engine, row.max_num_seqs)
                free_draw[i] = self._draw_shape.value(engine, row.max_num_seqs)
            else:
                free_speed[i], free_draw[i] = self._free_speed[cell], self._free_draw[cell]
        at = Settings.of(rows, self.kind)
        own = np.vstack([self._own, np.zeros(len(OWN))])[np.array(engines)]
        answer = respond(self._shared, own, _watts(free_draw), at, self.kind.top_limit_w)
        return Prediction(
            free_speed + answer.log_speed,
            answer.log_draw,
            free_speed,
            free_draw,
            answer.clock_ratio,
        )

    def _fit(self) -> None:
        lay = self._layout
        start = np.zeros(lay.size)
        start[lay.speed_at : lay.draw_at], start[lay.draw_at :] = self._first_guess()
        solved = least_squares(
            self._residuals, start, jac=self._jacobian, method="trf", x_scale="jac",
            max_nfev=_MAX_ROUNDS,
        )  # fmt: skip
        x = solved.x
        self._shared, self._own = lay.shared(x), lay.own(x)
        self._free_speed, self._free_draw = x[lay.speed_at : lay.draw_at], x[lay.draw_at :]
        engines = np.array([engine for engine, _ in self._cells])
        batches = np.array([batch for _, batch in self._cells], dtype=np.float64)
        self._speed_shape = BatchShape(engines, batches, self._free_speed)
        self._draw_shape = BatchShape(engines, batches, self._free_draw)

    def _first_guess(self) -> tuple[Floats, Floats]:
        """Each cell as at its highest limit and clock, a little above what it drew there."""
        speed, draw = np.empty(len(self._cells)), np.empty(len(self._cells))
        for cell in range(len(self._cells)):
            mine = np.flatnonzero(self._cell == cell)
            top = mine[np.lexsort((self._at.limit_w[mine], self._at.clock_ratio[mine]))[-1]]
            speed[cell] = self._speed[top]
            floor_w = 0.2 * self.kind.top_limit_w
            draw[cell] = np.log(max(np.exp(self._draw[top]), floor_w) * 1.02)
        return speed, draw

    def _answer(self, x: Floats, *, free_step: float = 0.0) -> Answer:
        lay = self._layout
        free_w = _watts(x[lay.draw_at :][self._cell] + free_step)
        own = lay.own(x)[self._engine]
        return respond(lay.shared(x), own, free_w, self._at, self.kind.top_limit_w)

    def _residuals(self, x: Floats) -> Floats:
        lay = self._layout
        answer = self._answer(x)
        expected = np.log(0.75 * self.kind.top_limit_w)
        free_speed = x[lay.speed_at : lay.draw_at]
        return np.concatenate(
            [
                (free_speed[self._cell] + answer.log_speed - self._speed) / SPEED_NOISE,
                (answer.log_draw - self._draw) / DRAW_NOISE,
                x[: lay.speed_at],
                (x[lay.draw_at :] - expected) / _FREE_WIDTH,
            ]
        )

    def _jacobian(self, x: Floats) -> Floats:
        """Forward differences; a cell's latents touch its own rows alone, so one step does all."""
        lay, count = self._layout, len(self._rows)
        base = self._answer(x)
        result = np.zeros((2 * count + lay.speed_at + lay.cells, lay.size))
        row = np.arange(count)

        def put(columns: Ints, moved: Answer) -> None:
            result[row, columns] = (moved.log_speed - base.log_speed) / (_STEP * SPEED_NOISE)
            result[count + row, columns] = (moved.log_draw - base.log_draw) / (_STEP * DRAW_NOISE)

        for column in range(lay.own_at):
            moved = x.copy()
            moved[column] += _STEP
            put(np.full(count, column), self._answer(moved))
        for part in range(len(OWN)):
            moved = x.copy()
            moved[lay.own_at + part : lay.speed_at : len(OWN)] += _STEP
            put(lay.own_at + self._engine * len(OWN) + part, self._answer(moved))
        put(lay.draw_at + self._cell, self._answer(x, free_step=_STEP))
        result[row, lay.speed_at + self._cell] = 1 / SPEED_NOISE
        prior = np.arange(lay.speed_at)
        result[2 * count + prior, prior] = 1.0
        cell = np.arange(lay.cells)
        result[2 * count + lay.speed_at + cell, lay.draw_at + cell] = 1 / _FREE_WIDTH
        return result


def _watts(log_w: Floats) -> Floats:
    """Watts, kept finite while the solver tries its steps."""
    result: Floats = np.exp(np.clip(log_w, -20, 20))
    return result
