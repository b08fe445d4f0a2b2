"""A profile on the disk: rows appended as they come, and cells that are there not asked again."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel.profile_csv import load_profile, write_profile

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.hardware import EngineUnit
    from pals_grid.powermodel.profile import ProfileRow
    from pals_grid.powermodel.sampling import Cell

LIMIT_TOLERANCE_W = 0.5
CLOCK_TOLERANCE_MHZ = 0.5
MIX_TOLERANCE_RATIO = 0.05


class ProfileLog:
    """The file at ``path``: valid after every row, also when the program is killed.

    Raises on construction:
        InvalidValue: when there is another kind of file, or a row of another engine than ``unit``
            under a load of ``input_per_output`` (None: any).
        OSError: when it cannot be read or written.
    """

    def __init__(self, path: Path, unit: EngineUnit, input_per_output: float | None) -> None:
        self._path = path
        self._head = _as_text([])
        self._bytes = 0
        self._rows: list[ProfileRow] = []
        if path.exists() and path.stat().st_size:
            self._rows = self._load()
            for row in self._rows:
                _require_same(path, row, unit, input_per_output)

    @property
    def rows(self) -> tuple[ProfileRow, ...]:
        """Every row so far, those of earlier runs included."""
        return tuple(self._rows)

    def has(self, cell: Cell) -> bool:
        """Whether the cell is measured."""
        return any(_is_at(row, cell) for row in self._rows)

    def append(self, row: ProfileRow) -> None:
        """Write one row; it is on the disk on return."""
        text = _as_text([row])
        if self._bytes:
            text = text.removeprefix(self._head)
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.truncate(self._bytes)
            file.seek(self._bytes)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            self._bytes = file.tell()
        self._rows.append(row)

    def _load(self) -> list[ProfileRow]:
        """Read what is whole: a kill may have cut the last row off, or the head."""
        text = self._path.read_text(encoding="utf-8")
        if self._head.startswith(text):
            return []
        if not text.startswith(self._head):
            raise InvalidValue("out", str(self._path), "must be a profile that this command began")
        whole = text[: text.rindex("\n") + 1]
        self._bytes = len(whole.encode())
        return load_profile(whole.splitlines(keepends=True))


def _as_text(rows: list[ProfileRow]) -> str:
    stream = io.StringIO(newline="")
    write_profile(rows, stream)
    return stream.getvalue()


def _is_at(row: ProfileRow, cell: Cell) -> bool:
    return (
        row.max_num_seqs == cell.max_num_seqs
        and abs(row.power_limit_w - cell.power_limit_w) <= LIMIT_TOLERANCE_W
        and abs(_clock_mhz(row) - _clock_mhz(cell)) <= CLOCK_TOLERANCE_MHZ
    )


def _clock_mhz(at: ProfileRow | Cell) -> float:
    """The lock, or for a free clock a number that is none."""
    return -1000.0 if at.sm_clock_mhz is None else at.sm_clock_mhz


def _require_same(
    path: Path, row: ProfileRow, unit: EngineUnit, input_per_output: float | None
) -> None:
    there = (row.model, row.gpu_count, row.gpu_model, row.origin.value)
    here = (unit.engine.model, len(unit.gpus), unit.gpus[0].model, unit.origin.value)
    if there != here:
        bound = f"must be a profile of {_show(*here)}"
        raise InvalidValue("out", f"{path} with {_show(*there)}", bound)
    mix = row.input_per_output
    if input_per_output is None or mix is None:
        return
    if abs(mix - input_per_output) > MIX_TOLERANCE_RATIO * input_per_output:
        bound = f"must hold rows of {input_per_output:.3g} prompt tokens per output token"
        raise InvalidValue("out", f"{path} with {mix:.3g}", bound)


def _show(model: str, gpu_count: int, gpu_model: str, origin: str) -> str:
    return f"{model} on {gpu_count} x {gpu_model} ({origin})"
