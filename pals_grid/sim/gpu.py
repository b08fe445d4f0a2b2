"""A simulated GPU behind the node's own port."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.ports import GpuSample

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.ports import PowerLimitRange

#: A lower limit holds after 30 ms, a higher one after 0.5 s: V100 at 200 Hz, the E2 step log of
#: github.com/denisa-c/gridpilot, commit 481a339 (CC-BY-4.0). The path between is taken as a
#: straight stair; other GPUs are assumed to behave alike.
STEP_DOWN_S = 0.03
STEP_UP_S = 0.5
_STAIRS = 3
#: Power readings are means over at least this time, as NVML's are.
_AVERAGING_S = 0.1
_ROUNDING_S = 1e-9


class SimGpu:
    """Holds a limit with the delay of a real one and counts the energy that the plant gives it.

    ``bring_up`` brings the plant to the present and returns its time in seconds; it is called
    before each look and each write. ``die_ratio`` scales dynamic power against the kind's mean.
    """

    def __init__(
        self,
        uuid: str,
        model: str,
        limit_range: PowerLimitRange,
        die_ratio: float,
        bring_up: Callable[[], float],
    ) -> None:
        self._uuid = uuid
        self._model = model
        self._range = limit_range
        self._bring_up = bring_up
        self.die_ratio = die_ratio
        self.target_w = limit_range.default_w
        self.effective_limit_w = limit_range.default_w
        self.energy_j = 0.0
        self.power_w = 0.0
        self.sm_clock_mhz = 0.0
        self._stairs: list[tuple[float, float]] = []
        self._draw_w = 0.0
        self._mark = (0.0, 0.0)

    @property
    def uuid(self) -> str:
        """Stable name."""
        return self._uuid

    @property
    def model(self) -> str:
        """Name as a driver would give it."""
        return self._model

    @property
    def limit_range(self) -> PowerLimitRange:
        """Limits that are accepted."""
        return self._range

    def observe(self) -> GpuSample:
        """Read the device; the draw is the mean since the last look 100 ms or more ago."""
        now_s = self._bring_up()
        marked_s, marked_j = self._mark
        if now_s - marked_s >= _AVERAGING_S - _ROUNDING_S:
            self._draw_w = (self.energy_j - marked_j) / (now_s - marked_s)
            self._mark = (now_s, self.energy_j)
        elif marked_s == 0.0:
            self._draw_w = self.power_w
        return GpuSample(
            power_draw_w=self._draw_w,
            energy_j=self.energy_j,
            power_limit_w=self.target_w,
            sm_clock_mhz=self.sm_clock_mhz,
        )

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Set the limit, clamped into the range; a value that is not finite is refused."""
        if not math.isfinite(power_limit_w):
            return ActuationResult(Outcome.REFUSED, power_limit_w, self.target_w, "not finite")
        now_s = self._bring_up()
        low_w, high_w = self._range.min_w, self._range.max_w
        self.target_w = min(high_w, max(low_w, power_limit_w))
        self._stairs = _stairs(now_s, self.effective_limit_w, self.target_w)
        if self.target_w != power_limit_w:
            detail = f"range is {low_w:g} to {high_w:g} W"
            return ActuationResult(Outcome.CLAMPED, power_limit_w, self.target_w, detail)
        return ActuationResult(Outcome.APPLIED, power_limit_w, self.target_w)

    # --- what the plant asks ---------------------------------------------------------------

    @property
    def next_stair_s(self) -> float:
        """When the effective limit changes next."""
        return self._stairs[0][0] if self._stairs else math.inf

    def climb(self, now_s: float) -> None:
        """Take the stairs that are due."""
        while self._stairs and self._stairs[0][0] <= now_s:
            self.effective_limit_w = self._stairs.pop(0)[1]


def _stairs(now_s: float, from_w: float, to_w: float) -> list[tuple[float, float]]:
    """(time, limit) on the way from one limit to another."""
    if from_w == to_w:
        return []
    duration_s = STEP_UP_S if to_w > from_w else STEP_DOWN_S
    return [
        (now_s + duration_s * i / _STAIRS, from_w + (to_w - from_w) * i / _STAIRS)
        for i in range(1, _STAIRS + 1)
    ]
