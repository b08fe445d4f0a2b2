"""A linear programme in columns and rows, and HiGHS that solves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import highspy
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


_TRY_AGAIN = (
    highspy.HighsModelStatus.kNotset,
    highspy.HighsModelStatus.kSolveError,
    highspy.HighsModelStatus.kUnknown,
)
"""Badly scaled programmes end so now and then; the other way about most are solved."""


class Unsolved(Exception):
    """HiGHS has no optimum: the message says what it has instead."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Values by column; duals by row: what the objective rises by for one more on its side."""

    values: Floats
    duals: Floats
    objective: float


@dataclass(slots=True)
class LinearProgramme:
    """Minimise ``cost x`` where ``lower <= x <= upper`` and ``row_lower <= A x <= row_upper``."""

    _columns: list[tuple[Floats, Floats, Floats]] = field(default_factory=list)
    _rows: list[tuple[Floats, Floats]] = field(default_factory=list)
    _entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    column_count: int = 0
    row_count: int = 0

    def columns(
        self,
        shape: tuple[int, ...],
        *,
        lower: npt.ArrayLike = 0.0,
        upper: npt.ArrayLike = np.inf,
        cost: npt.ArrayLike = 0.0,
    ) -> Ints:
        """Add a block of columns; returns their numbers in ``shape``."""
        size = int(np.prod(shape))
        bounds = (np.broadcast_to(np.asarray(item, float), shape) for item in (cost, lower, upper))
        flat_cost, flat_lower, flat_upper = (item.ravel() for item in bounds)
        self._columns.append((flat_cost, flat_lower, flat_upper))
        self.column_count += size
        return np.arange(self.column_count - size, self.column_count).reshape(shape)

    def rows(self, count: int, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Ints:
        """Add rows without entries; returns their numbers."""
        self._rows.append(
            (
                np.broadcast_to(np.asarray(lower, float), (count,)),
                np.broadcast_to(np.asarray(upper, float), (count,)),
            )
        )
        self.row_count += count
        return np.arange(self.row_count - count, self.row_count)

    def put(self, rows: npt.ArrayLike, columns: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Set entries; the three are broadcast against each other. Each place is set once."""
        row, column, value = np.broadcast_arrays(rows, columns, np.asarray(values, float))
        self._entries.append((row.ravel(), column.ravel(), value.ravel()))

    def solve(self, time_limit_s: float) -> Solution:
        """Return the optimum. One thread: the same programme has the same solution.

        Raises:
            Unsolved: without an optimum, the limit of time included.
        """
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, value in (
            ("output_flag", False),
            ("threads", 1),
            ("time_limit", time_limit_s),
            ("presolve", "off"),  # it takes longer than the programmes that it makes smaller
        ):
            solver.setOptionValue(name, value)
        solver.passModel(self._model())
        solver.run()
        status = solver.getModelStatus()
        if status in _TRY_AGAIN:
            solver.clearSolver()
            solver.setOptionValue("presolve", "on")
            solver.run()
            status = solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise Unsolved(solver.modelStatusToString(status).lower())
        found = solver.getSolution()
        return Solution(
            np.array(found.col_value),
            np.array(found.row_dual),
            float(solver.getInfo().objective_function_value),
        )

    def _model(self) -> highspy.HighsLp:
        cost, lower, upper = (np.concatenate(part) for part in zip(*self._columns, strict=True))
        row_lower, row_upper = (np.concatenate(part) for part in zip(*self._rows, strict=True))
        rows, columns, values = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        order = np.lexsort((columns, rows))
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self.column_count, self.row_count
        model.col_cost_, model.col_lower_, model.col_upper_ = cost, lower, upper
        model.row_lower_, model.row_upper_ = row_lower, row_upper
        matrix = model.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        starts = np.searchsorted(rows[order], np.arange(self.row_count + 1))
        matrix.start_ = starts.astype(np.int32)
        matrix.index_ = columns[order].astype(np.int32)
        matrix.value_ = values[order]
        return model
