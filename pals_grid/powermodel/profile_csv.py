"""Profiles as CSV: this project's own columns, and those of the PALS authors' A100 sheet.

Own columns, in any order; the first eight are required, an empty cell means unknown::

    gpu_model, gpu_count, model, power_limit_w, max_num_seqs, tokens_per_s, gpu_power_w, origin,
    tensor_parallel, expert_parallel, data_parallel, sm_clock_mhz, input_per_output, ttft_s, itl_s

``power_limit_w`` and ``sm_clock_mhz`` are per GPU, ``gpu_power_w`` is of all GPUs together.

The authors' sheet (``moe_summary_tp4``, github.com/mrhankendi/AI_LLM) is known by its columns
``model, tp, cap_w, batch, avg_Tokens_per_s, avg_gpu_power``; the last is per GPU. It does not
name the GPU: four A100-SXM4 follow from its range of limits. Its columns of utilisation and of
PCIe traffic are left out.
"""

from __future__ import annotations

import csv
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.powermodel.profile import ProfileRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REQUIRED = (
    "gpu_model",
    "gpu_count",
    "model",
    "power_limit_w",
    "max_num_seqs",
    "tokens_per_s",
    "gpu_power_w",
    "origin",
)
OPTIONAL = (
    "tensor_parallel",
    "expert_parallel",
    "data_parallel",
    "sm_clock_mhz",
    "input_per_output",
    "ttft_s",
    "itl_s",
)
AUTHORS = ("model", "tp", "cap_w", "batch", "avg_Tokens_per_s", "avg_gpu_power")
_AUTHORS_GPU = "A100-SXM4"

#: Lowest and highest value of each column with a number; the lowest is possible too, except 0.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "gpu_count": (1, 1024),
    "power_limit_w": (0, 1e5),
    "max_num_seqs": (1, 1e6),
    "tokens_per_s": (0, 1e9),
    "gpu_power_w": (0, 1e8),
    "tensor_parallel": (1, 1024),
    "expert_parallel": (1, 1024),
    "data_parallel": (1, 1024),
    "sm_clock_mhz": (0, 1e4),
    "ttft_s": (0, 1e6),
    "itl_s": (0, 1e6),
    "tp": (1, 1024),
    "cap_w": (0, 1e5),
    "batch": (1, 1e6),
    "avg_Tokens_per_s": (0, 1e9),
    "avg_gpu_power": (0, 1e5),
}
_MAX_MIX = 1e5
_MAX_NAME = 200


class TextStream(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Write."""


def load_profile(lines: Iterable[str]) -> list[ProfileRow]:
    """Read a profile of either kind from the lines of a CSV file; it may be empty but for a head.

    Raises:
        InvalidValue: names the line, the column, the value and its bound.
    """
    reader = csv.reader(lines, strict=True)
    try:
        head = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        read = _reader_for(head)
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(head):
                field = f"line {reader.line_num}"
                raise InvalidValue(field, len(cells), f"must have {len(head)} columns")
            rows.append(read(_Line(reader.line_num, dict(zip(head, cells, strict=True)))))
    except csv.Error as error:
        raise InvalidValue(f"line {reader.line_num}", str(error), "must be CSV") from error
    return rows


def write_profile(rows: Iterable[ProfileRow], stream: TextStream) -> None:
    """Write ``rows`` with this project's columns; ``load_profile`` gives them back as they were."""
    writer = csv.writer(stream, lineterminator="\n")
    columns = [field.name for field in fields(ProfileRow)]
    writer.writerow(columns)
    for row in rows:
        values = (getattr(row, name) for name in columns)
        writer.writerow(["" if value is None else value for value in values])


class _Line:
    """One line's cells by column."""

    def __init__(self, number: int, cells: Mapping[str, str]) -> None:
        self._number, self._cells = number, cells

    def text(self, column: str) -> str:
        value = self._cells[column].strip()
        if not 0 < len(value) <= _MAX_NAME:
            raise self._invalid(column, f"must have 1 to {_MAX_NAME} characters")
        return value

    def number(self, column: str) -> float:
        low, high = _BOUNDS[column]
        value = self._parse(column, float)
        if not (low <= value <= high and value > 0):
            bound = f"from {low:g} to {high:g}" if low else f"above 0 and up to {high:g}"
            raise self._invalid(column, f"must be {bound}")
        return value

    def whole(self, column: str) -> int:
        value = self.number(column)
        if value != int(value):
            raise self._invalid(column, "must be a whole number")
        return int(value)

    def known(self, column: str) -> bool:
        return bool(self._cells.get(column, "").strip())

    def mix(self) -> float | None:
        if not self.known("input_per_output"):
            return None
        value = self._parse("input_per_output", float)
        if not 0 <= value <= _MAX_MIX:
            raise self._invalid("input_per_output", f"must be from 0 to {_MAX_MIX:g}")
        return value

    def origin(self) -> Origin:
        value = self.text("origin")
        if value not in list(Origin):
            raise self._invalid("origin", f"must be one of {', '.join(Origin)}")
        return Origin(value)

    def _parse(self, column: str, kind: Callable[[str], float]) -> float:
        try:
            value = kind(self._cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._invalid(column, "must be a finite number")
        return value

    def _invalid(self, column: str, bound: str) -> InvalidValue:
        return InvalidValue(f"line {self._number}, {column}", self._cells[column], bound)


def _reader_for(head: list[str]) -> Callable[[_Line], ProfileRow]:
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice:
        raise InvalidValue("line 1", ", ".join(twice), "must name each column once")
    if set(AUTHORS) <= set(head):
        return _read_authors
    missing = [name for name in REQUIRED if name not in head]
    if missing:
        shown = ", ".join(name[:40] for name in head[:20])
        raise InvalidValue("line 1", shown, f"must have the columns {', '.join(missing)}")
    unknown = [name for name in head if name not in {*REQUIRED, *OPTIONAL}]
    if unknown:
        bound = f"must have no columns but {', '.join((*REQUIRED, *OPTIONAL))}"
        raise InvalidValue("line 1", ", ".join(unknown), bound)
    return _read_own


def _read_own(line: _Line) -> ProfileRow:
    def number(column: str) -> float | None:
        return line.number(column) if line.known(column) else None

    def count(column: str) -> int:
        return line.whole(column) if line.known(column) else 1

    return ProfileRow(
        gpu_model=line.text("gpu_model"),
        gpu_count=line.whole("gpu_count"),
        model=line.text("model"),
        power_limit_w=line.number("power_limit_w"),
        max_num_seqs=line.whole("max_num_seqs"),
        tokens_per_s=line.number("tokens_per_s"),
        gpu_power_w=line.number("gpu_power_w"),
        tensor_parallel=count("tensor_parallel"),
        expert_parallel=count("expert_parallel"),
        data_parallel=count("data_parallel"),
        sm_clock_mhz=number("sm_clock_mhz"),
        input_per_output=line.mix(),
        ttft_s=number("ttft_s"),
        itl_s=number("itl_s"),
        origin=line.origin(),
    )


def _read_authors(line: _Line) -> ProfileRow:
    gpu_count = line.whole("tp")
    return ProfileRow(
        gpu_model=_AUTHORS_GPU,
        gpu_count=gpu_count,
        model=line.text("model"),
        power_limit_w=line.number("cap_w"),
        max_num_seqs=line.whole("batch"),
        tokens_per_s=line.number("avg_Tokens_per_s"),
        gpu_power_w=line.number("avg_gpu_power") * gpu_count,
        tensor_parallel=gpu_count,
        origin=Origin.MEASURED,
    )
