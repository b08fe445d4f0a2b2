"""Rows of a profile as arrays: which engine and which batch each belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pals_grid.powermodel.profile import ProfileRow

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: Part of the driver's name: highest power limit in W and highest SM clock in MHz. NVIDIA's data
#: sheets of the SXM boards; the A100's 1410 MHz stands in ``nvidia-smi -q`` as Max Clocks.
_GPUS = {
    "A100": (400.0, 1410.0),
    "H100": (700.0, 1980.0),
    "H200": (700.0, 1980.0),
    "B200": (1000.0, 1965.0),
    "V100": (300.0, 1530.0),
}


class EngineKey(NamedTuple):
    """What is fixed while an engine's limit, clock and batch change."""

    gpu_family: str
    gpu_count: int
    model: str
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    input_per_output: float | None

    @staticmethod
    def of(row: ProfileRow) -> EngineKey:
        """Engine of a row."""
        return EngineKey(
            gpu_family(row.gpu_model),
            row.gpu_count,
            row.model,
            row.tensor_parallel,
            row.expert_parallel,
            row.data_parallel,
            row.input_per_output,
        )


MIX_TOLERANCE_RATIO = 1.25
"""Phase mixes closer than this are one engine's: a measured mix varies from row to row."""


def with_common_mix(
    rows: Sequence[ProfileRow], known: Sequence[ProfileRow] = ()
) -> list[ProfileRow]:
    """Give rows of one engine one phase mix: that of the first like it in ``known`` or ``rows``."""
    seen: dict[EngineKey, list[float]] = {}
    result = []
    for number, row in enumerate((*known, *rows)):
        mix = row.input_per_output
        if mix is not None and mix > 0:
            mixes = seen.setdefault(EngineKey.of(row)._replace(input_per_output=None), [])
            like = next((m for m in mixes if abs(np.log(mix / m)) < np.log(MIX_TOLERANCE_RATIO)), 0)
            if not like:
                mixes.append(mix)
            elif like != mix:
                row = replace(row, input_per_output=like)  # noqa: PLW2901 - the same row
        if number >= len(known):
            result.append(row)
    return result


def gpu_family(gpu_model: str) -> str:
    """Name that GPUs of one kind share; a driver's name holds memory size and board too."""
    return next((part for part in _GPUS if part in gpu_model.upper()), gpu_model)


class GpuKind(NamedTuple):
    """Scales of one kind of GPU: highest limit (W) and highest SM clock (MHz)."""

    top_limit_w: float
    top_clock_mhz: float

    @staticmethod
    def of(rows: Sequence[ProfileRow]) -> GpuKind:
        """From the data sheet where the name is known, else the highest values in ``rows``."""
        sheet = _GPUS.get(gpu_family(rows[0].gpu_model))
        limit_w = max(row.power_limit_w for row in rows)
        clock_mhz = max((row.sm_clock_mhz or 0.0 for row in rows), default=0.0)
        if sheet is None:
            return GpuKind(limit_w, clock_mhz or 1.0)
        return GpuKind(max(sheet[0], limit_w), max(sheet[1], clock_mhz))

    def clock_ratio(self, sm_clock_mhz: float | None) -> float:
        """Clock as a ratio of the highest; 1 where it is free."""
        return 1.0 if sm_clock_mhz is None else min(1.0, sm_clock_mhz / self.top_clock_mhz)


class Settings(NamedTuple):
    """What is set, in columns: limit per GPU (W), batch, clock (ratio of the highest)."""

    limit_w: Floats
    batch: Floats
    clock_ratio: Floats

    @staticmethod
    def of(rows: Sequence[ProfileRow], kind: GpuKind) -> Settings:
        """Columns of ``rows``."""
        return Settings(
            np.array([row.power_limit_w for row in rows], dtype=np.float64),
            np.array([row.max_num_seqs for row in rows], dtype=np.float64),
            np.array([kind.clock_ratio(row.sm_clock_mhz) for row in rows], dtype=np.float64),
        )


def log_targets(rows: Sequence[ProfileRow]) -> tuple[Floats, Floats]:
    """Log of tokens/s, and of the draw per GPU in W.

    Raises:
        InvalidValue: where a row cannot be learned from.
    """
    for number, row in enumerate(rows, start=1):
        for field in ("power_limit_w", "max_num_seqs", "tokens_per_s", "gpu_power_w", "gpu_count"):
            value = getattr(row, field)
            if not 0 < value < np.inf:
                raise InvalidValue(f"row {number}: {field}", value, "must be above 0 and finite")
    speed = np.log(np.array([row.tokens_per_s for row in rows], dtype=np.float64))
    draw = np.array([row.gpu_power_w / row.gpu_count for row in rows], dtype=np.float64)
    return speed, np.log(draw)
