"""Devices that do as they are told and remember it: for tests of whatever stands on the ports.

No physics: what a GPU draws is set by the test. ``pals_grid.sim`` has the physics.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceLost
from pals_grid.core.ports import ClockRange, EngineSample, GpuSample, PowerLimitRange

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.ports import ClockReason


class FakeGpu:
    """Draws ``demand_w``, or its limit when that is lower; ``writes`` lists what was written.

    With a ``path`` the limit lives in that file, as a real one outlives its writer.
    """

    def __init__(
        self,
        uuid: str = "GPU-fake-0",
        limit_range: PowerLimitRange | None = None,
        *,
        limit_w: float = 400.0,
        demand_w: float = 300.0,
        path: Path | None = None,
    ) -> None:
        self._uuid = uuid
        self._range = limit_range or PowerLimitRange(100.0, 400.0, 400.0)
        self._path = path
        self._limit_w = limit_w
        self.demand_w = demand_w
        self.energy_j = 0.0
        self.lost = False
        self.refuses = False
        self.temperature_c = 50.0
        self.sm_clock_mhz = 1410.0
        self.clock_reasons: ClockReason | None = None
        self.writes: list[float] = []

    @property
    def uuid(self) -> str:
        """Name."""
        return self._uuid

    @property
    def model(self) -> str:
        """Product name."""
        return "Fake GPU"

    @property
    def limit_range(self) -> PowerLimitRange:
        """Limits that are accepted."""
        return self._range

    @property
    def limit_w(self) -> float:
        """The limit in force; set it to play another program that changes it."""
        if self._path is not None and self._path.exists():
            return float(self._path.read_text())
        return self._limit_w

    @limit_w.setter
    def limit_w(self, value: float) -> None:
        self._limit_w = value
        if self._path is not None:
            _replace_text(self._path, repr(value))

    def run(self, seconds: float) -> None:
        """Let time pass: the energy counter rises."""
        self.energy_j += seconds * min(self.demand_w, self.limit_w)

    def observe(self) -> GpuSample:
        """Read, or raise DeviceLost when ``lost``."""
        if self.lost:
            raise DeviceLost(f"{self._uuid} fell off the bus")
        limit_w = self.limit_w
        draw_w = min(self.demand_w, limit_w)
        return GpuSample(
            draw_w,
            self.energy_j,
            limit_w,
            self.temperature_c,
            self.sm_clock_mhz,
            self.clock_reasons,
        )

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write, or refuse when ``refuses``."""
        self.writes.append(power_limit_w)
        if self.refuses or self.lost or not math.isfinite(power_limit_w):
            return ActuationResult(Outcome.REFUSED, power_limit_w, None, "refused")
        self.limit_w = min(max(power_limit_w, self._range.min_w), self._range.max_w)
        outcome = Outcome.APPLIED if self.limit_w == power_limit_w else Outcome.CLAMPED
        return ActuationResult(outcome, power_limit_w, self.limit_w)


def _replace_text(path: Path, text: str) -> None:
    """Write all or nothing: its writer may be killed."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(text)
    draft.replace(path)


class FakeClockGpu(FakeGpu):
    """A FakeGpu whose SM clock can be locked, from 210 to 1410 MHz; ``clock_writes`` lists how.

    Its clock is at 1410 MHz, or at the lock. With a ``path`` the lock lives beside it, ``.clock``.
    """

    clock_refuses = False

    def __init__(self, uuid: str = "GPU-fake-0", *, path: Path | None = None) -> None:
        super().__init__(uuid, path=path)
        self._lock_path = path.with_suffix(".clock") if path is not None else None
        self._lock_mhz: float | None = None
        self.clock_writes: list[float | None] = []

    @property
    def clock_range(self) -> ClockRange:
        """Clocks that are accepted."""
        return ClockRange(210.0, 1410.0)

    @property
    def lock_mhz(self) -> float | None:
        """The lock in force; set it to play another program that changes it."""
        if self._lock_path is not None and self._lock_path.exists():
            return float(self._lock_path.read_text())
        return self._lock_mhz

    @lock_mhz.setter
    def lock_mhz(self, value: float | None) -> None:
        self._lock_mhz = value
        self.sm_clock_mhz = self.clock_range.max_mhz if value is None else value
        if self._lock_path is not None:
            if value is None:
                self._lock_path.unlink(missing_ok=True)
            else:
                _replace_text(self._lock_path, repr(value))

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Lock or release, or refuse when ``clock_refuses``."""
        self.clock_writes.append(sm_clock_mhz)
        bounds = self.clock_range
        asked = bounds.max_mhz if sm_clock_mhz is None else sm_clock_mhz
        if self.clock_refuses or self.lost or not math.isfinite(asked):
            return ActuationResult(Outcome.REFUSED, asked, None, "refused")
        held = min(max(asked, bounds.min_mhz), bounds.max_mhz)
        self.lock_mhz = None if sm_clock_mhz is None else held
        outcome = Outcome.APPLIED if held == asked else Outcome.CLAMPED
        return ActuationResult(outcome, asked, held)


class FakeEngine:
    """Counters that the test moves by ``serve``."""

    def __init__(self, model: str = "fake-model", max_num_seqs: int | None = 64) -> None:
        self._model = model
        self.max_num_seqs = max_num_seqs
        self.running = 0
        self.waiting = 0
        self.tokens_in = 0.0
        self.tokens_out = 0.0
        self.finished = 0
        self.dead = False
        self.refuses = False
        self.writes: list[int] = []

    @property
    def model(self) -> str:
        """Name of the served model."""
        return self._model

    def serve(self, tokens_out: float, *, finished: int = 0, tokens_in: float = 0.0) -> None:
        """Let the counters rise."""
        self.tokens_out += tokens_out
        self.tokens_in += tokens_in
        self.finished += finished

    def observe(self) -> EngineSample:
        """Read, or raise DeviceLost when ``dead``."""
        if self.dead:
            raise DeviceLost(f"{self._model} does not answer")
        return EngineSample(
            self.running,
            self.waiting,
            self.tokens_in,
            self.tokens_out,
            self.finished,
            0,
            0,
            self.max_num_seqs,
        )

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Write, or refuse when ``refuses``."""
        self.writes.append(max_num_seqs)
        if self.refuses or max_num_seqs < 1:
            return ActuationResult(Outcome.REFUSED, max_num_seqs, None, "refused")
        self.max_num_seqs = max_num_seqs
        return ActuationResult(Outcome.APPLIED, max_num_seqs, max_num_seqs)
