"""The simulated plant below the NVML shim: its boards draw, count and hold limits as SimGpus do.

Everything read through it is simulated.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.sim.gpu import SimGpu

LOOK = ctypes.CFUNCTYPE(None, ctypes.c_int)
WROTE = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, ctypes.c_int)
POWER_CAP, LOCKED = 4, 2


class NvmlPlant:
    """Keeps the shim's boards and the plant's GPUs alike, in both directions.

    Hold on to it as long as the shim is used: the library calls back into it.
    """

    def __init__(self, shim: ctypes.CDLL, gpus: Sequence[SimGpu]) -> None:
        self._shim = shim
        self._gpus = gpus
        self._look = LOOK(self._bring_up)
        self._wrote = WROTE(self._write)
        shim.shim_count(len(gpus))
        for index, gpu in enumerate(gpus):
            limits, clocks = gpu.limit_range, gpu.clock_range
            shim.shim_name(index, gpu.model.encode())
            shim.shim_low(index, round(1000 * limits.min_w))
            shim.shim_high(index, round(1000 * limits.max_w))
            shim.shim_fallback(index, round(1000 * limits.default_w))
            shim.shim_limit(index, round(1000 * limits.default_w))
            shim.shim_clock_min(index, round(clocks.min_mhz))
            shim.shim_clock_max(index, round(clocks.max_mhz))
        shim.shim_set_plant(self._look, self._wrote)

    def _bring_up(self, index: int) -> None:
        gpu = self._gpus[index]
        sample = gpu.observe()
        milliwatt = round(1000 * sample.power_draw_w)
        self._shim.shim_power(index, milliwatt)
        self._shim.shim_instant(index, milliwatt)
        self._shim.shim_energy(index, ctypes.c_ulonglong(round(1000 * sample.energy_j)))
        self._shim.shim_sm_clock(index, round(sample.sm_clock_mhz or 0.0))
        capped = POWER_CAP if sample.power_draw_w > 0.95 * sample.power_limit_w else 0
        locked = LOCKED if gpu.effective_lock_mhz is not None else 0
        self._shim.shim_reasons(index, ctypes.c_ulonglong(capped | locked))

    def _write(self, index: int, is_clock: int, value: int) -> None:
        if is_clock:
            self._gpus[index].apply_clock_limit(float(value) if value else None)
        else:
            self._gpus[index].apply_power_limit(value / 1000)
