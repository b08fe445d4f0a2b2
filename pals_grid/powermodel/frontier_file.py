"""The frontier table on disk: versioned JSON with where it comes from; read by the node."""

from __future__ import annotations

import math
import os
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_VERSION = 1
_MAX_BYTES = 64 * 2**20

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Ratio = Annotated[float, Meta(ge=0, le=1e6)]


class Provenance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a table comes from.

    ``*_mape_ratio`` are mean absolute errors relative to the measured value, on the rows fitted
    on, and (``cross_validated_``) on limits left out of the fit in turn; None where there were
    too few rows to leave any out. ``source_sha256`` is of the profile's bytes.
    """

    fitted_at: Annotated[datetime, Meta(tz=True)]
    predictor: _Name
    rows: Annotated[int, Meta(ge=1)]
    source_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    throughput_mape_ratio: _Ratio
    power_mape_ratio: _Ratio
    cross_validated_throughput_mape_ratio: _Ratio | None = None
    cross_validated_power_mape_ratio: _Ratio | None = None


class _Point(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    power_limit_w: float
    max_num_seqs: int
    tokens_per_s: float
    gpu_power_w: float
    ttft_s: float
    itl_s: float
    sm_clock_mhz: float | None = None


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    gpu_model: _Name
    gpu_count: Annotated[int, Meta(ge=1, le=1024)]
    model: _Name
    input_per_output: Annotated[float, Meta(ge=0, le=1e5)]
    origin: Origin
    provenance: Provenance
    points: Annotated[list[_Point], Meta(min_length=1, max_length=100_000)]


class _Version(Struct):
    format_version: int


_HIGHEST = {
    "power_limit_w": 1e5,
    "max_num_seqs": 1e6,
    "tokens_per_s": 1e9,
    "gpu_power_w": 1e8,
    "ttft_s": 1e6,
    "itl_s": 1e6,
    "sm_clock_mhz": 1e4,
}
_PAST_LIMIT = 1.1
"""Boards overshoot low limits by a few per cent; more than this is another boundary or unit."""


def load_frontier(path: Path) -> FrontierTable:
    """Read a table that ``write_frontier`` wrote.

    Raises:
        InvalidValue: for anything else, naming what is wrong.
        OSError: when the file cannot be read.
    """
    return load_frontier_file(path)[0]


def load_frontier_file(path: Path) -> tuple[FrontierTable, Provenance]:
    """Read a table and where it comes from; raises as ``load_frontier``."""
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidValue(path.name, path.stat().st_size, f"must have {_MAX_BYTES} bytes or fewer")
    raw = path.read_bytes()
    try:
        version = msgspec.json.decode(raw, type=_Version).format_version
        if version != FORMAT_VERSION:
            field = f"{path.name}: format_version"
            raise InvalidValue(field, version, f"must be {FORMAT_VERSION}")
        file = msgspec.json.decode(raw, type=_File)
    except msgspec.MsgspecError as error:
        raise InvalidValue(path.name, str(error), "must be a frontier table") from error
    _require_points(path.name, file)
    return (
        FrontierTable(
            gpu_model=file.gpu_model,
            gpu_count=file.gpu_count,
            model=file.model,
            input_per_output=file.input_per_output,
            origin=file.origin,
            points=tuple(
                OperatingPoint(
                    point.power_limit_w,
                    point.max_num_seqs,
                    point.tokens_per_s,
                    point.gpu_power_w,
                    point.ttft_s,
                    point.itl_s,
                    point.sm_clock_mhz,
                )
                for point in file.points
            ),
        ),
        file.provenance,
    )


def write_frontier(path: Path, table: FrontierTable, provenance: Provenance) -> None:
    """Write ``table`` to ``path``, whole or not at all.

    Raises:
        InvalidValue: for a table that ``load_frontier`` would refuse.
        OSError: when it cannot be written.
    """
    file = _File(
        format_version=FORMAT_VERSION,
        gpu_model=table.gpu_model,
        gpu_count=table.gpu_count,
        model=table.model,
        input_per_output=table.input_per_output,
        origin=table.origin,
        provenance=provenance,
        points=[
            _Point(
                power_limit_w=point.power_limit_w,
                max_num_seqs=point.max_num_seqs,
                tokens_per_s=point.tokens_per_s,
                gpu_power_w=point.gpu_power_w,
                ttft_s=point.ttft_s,
                itl_s=point.itl_s,
                sm_clock_mhz=point.sm_clock_mhz,
            )
            for point in table.points
        ],
    )
    _require_points(path.name, file)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=1))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _require_points(name: str, file: _File) -> None:
    seen = set()
    for number, point in enumerate(file.points):
        place = f"{name}: points[{number}]"
        for field, highest in _HIGHEST.items():
            value = getattr(point, field)
            if value is not None and not (math.isfinite(value) and 0 < value <= highest):
                raise InvalidValue(
                    f"{place}.{field}", value, f"must be above 0, {highest:g} at most"
                )
        most_w = _PAST_LIMIT * point.power_limit_w * file.gpu_count
        if point.gpu_power_w > most_w:
            bound = f"must be {most_w:g} at most under a limit of {point.power_limit_w:g} W"
            raise InvalidValue(f"{place}.gpu_power_w", point.gpu_power_w, bound)
        cell = (point.sm_clock_mhz or 0.0, point.max_num_seqs, point.power_limit_w)
        if cell in seen:
            raise InvalidValue(f"{place}", cell[::-1], "must be there once")
        seen.add(cell)
    _require_rising(name, file)


def _require_rising(name: str, file: _File) -> None:
    """A higher limit never costs throughput: a table that says so is broken, or units are mixed."""

    def line_of(point: _Point) -> tuple[float, int]:
        return (point.sm_clock_mhz or 0.0, point.max_num_seqs)

    ordered = sorted(file.points, key=lambda point: (*line_of(point), point.power_limit_w))
    for _, line in groupby(ordered, key=line_of):
        best = 0.0
        for point in line:
            if point.tokens_per_s < best * (1 - 1e-6):
                field = f"{name}: tokens_per_s at {point.power_limit_w:g} W x {point.max_num_seqs}"
                bound = f"must be {best:g} or more, that of a lower limit"
                raise InvalidValue(field, point.tokens_per_s, bound)
            best = max(best, point.tokens_per_s)
