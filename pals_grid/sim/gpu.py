"""A simulated GPU behind the node's own ports."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pals_grid.core.commands import ActuationResult, Outcome, judge
from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import ClockRange, GpuSample

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.ports import PowerLimitRange

#: A lower limit holds after 30 ms. A higher one is felt after 0.12 s and holds after 0.55 s, in
#: stairs (seconds, share of the way): V100 at 200 Hz, the E2 step log of
#: github.com/denisa-c/gridpilot, commit 481a339 (CC-BY-4.0), which steps 280, 200, 280 W and
#: reads 240 W at +0.15 s, 267 W at +0.32 s, 275 W at +0.5 s. One step each way, one GPU; the log's
#: undershoot of 7 % for 0.1 s after the step down is left out. Others are assumed to behave alike.
_DOWN = ((0.015, 0.5), (0.03, 1.0))
_UP = ((0.12, 0.5), (0.30, 0.84), (0.44, 0.93), (0.55, 1.0))
_STAIR_W = 5.0
STEP_DOWN_S = _DOWN[-1][0]
STEP_UP_S = _UP[-1][0]
#: An SM-clock lock holds this long after its write, up and down. ASSUMED: the data at hand have
#: no step of a lock; the driver's call and the clock's change take some tens of milliseconds.
CLOCK_STEP_S = 0.03
_AVERAGING_S = 0.1
_ROUNDING_S = 1e-9


@dataclass(frozen=True, slots=True)
class Reading:
    """How a GPU's sensors are read.

    ``average_s`` None gives as draw the energy since the last look 100 ms or more ago by its
    time: what an agent gets that reads the energy counter. A number gives the mean over that
    time, as ``nvmlDeviceGetPowerUsage`` does with 1 s on Ampere boards other than the A100 and
    on newer ones. ``counter_s`` is the interval at which the energy counter moves (20 to 100 ms
    on real boards); 0, the default, is a counter that is always exact.
    """

    average_s: float | None = None
    counter_s: float = 0.0

    def __post_init__(self) -> None:
        if self.average_s is not None and not 0.1 <= self.average_s <= 60:
            raise InvalidValue("average_s", self.average_s, "must be from 0.1 to 60")
        if not 0 <= self.counter_s <= 1:
            raise InvalidValue("counter_s", self.counter_s, "must be from 0 to 1")

    @property
    def keeps_s(self) -> float:
        """Seconds of history that it needs."""
        return max(self.average_s or 0.0, self.counter_s)


class SimGpu:
    """Holds a limit with the delay of a real one and counts the energy that the plant gives it.

    ``bring_up`` brings the plant to the present and returns its time in seconds; it is called
    before each look and each write. ``die_ratio`` scales dynamic power against the kind's mean.
    ``clock_range`` is by default an A100's.
    """

    def __init__(
        self,
        uuid: str,
        model: str,
        limit_range: PowerLimitRange,
        die_ratio: float,
        bring_up: Callable[[], float],
        *,
        clock_range: ClockRange | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.uuid: Final = uuid
        self.model: Final = model
        self.limit_range: Final = limit_range
        self.clock_range: Final = clock_range or ClockRange(210.0, 1410.0)
        self._reading = reading or Reading()
        self._keeps_s = self._reading.keeps_s
        self._bring_up = bring_up
        self.die_ratio = die_ratio
        self.target_w = limit_range.default_w
        self.effective_limit_w = limit_range.default_w
        self.effective_lock_mhz: float | None = None
        self.energy_j = 0.0
        self.power_w = 0.0
        self.sm_clock_mhz = 0.0
        self._stairs: list[tuple[float, float]] = []
        self._lock: tuple[float, float | None] | None = None
        self._draw_w = 0.0
        self._mark = (0.0, 0.0)
        self._history: deque[tuple[float, float]] = deque([(0.0, 0.0)])

    def observe(self) -> GpuSample:
        """Read the device as ``Reading`` says."""
        now_s = self._bring_up()
        reading = self._reading
        if reading.average_s is None:
            self._draw_since_mark(now_s)
            draw_w = self._draw_w
        else:
            start_s = max(0.0, now_s - reading.average_s)
            span_s = now_s - start_s
            draw_w = (self.energy_j - self._energy_at(start_s)) / span_s if span_s else self.power_w
        energy_j = self.energy_j
        if reading.counter_s:
            energy_j = self._energy_at(now_s - now_s % reading.counter_s)
        return GpuSample(
            power_draw_w=draw_w,
            energy_j=energy_j,
            power_limit_w=self.target_w,
            sm_clock_mhz=self.sm_clock_mhz,
        )

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Set the limit, clamped into the range; a value that is not finite is refused."""
        if not math.isfinite(power_limit_w):
            return ActuationResult(Outcome.REFUSED, power_limit_w, self.target_w, "not finite")
        now_s = self._bring_up()
        low_w, high_w = self.limit_range.min_w, self.limit_range.max_w
        target_w = min(high_w, max(low_w, power_limit_w))
        if target_w != self.target_w:
            self.target_w = target_w
            self._stairs = _stairs(now_s, self.effective_limit_w, target_w)
        return judge(power_limit_w, self.target_w, f"range is {low_w:g} to {high_w:g} W")

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Lock the SM clock, clamped into the range; None releases it."""
        low_mhz, high_mhz = self.clock_range.min_mhz, self.clock_range.max_mhz
        asked_mhz = high_mhz if sm_clock_mhz is None else sm_clock_mhz
        if not math.isfinite(asked_mhz):
            held_mhz = self._lock[1] if self._lock else self.effective_lock_mhz
            return ActuationResult(Outcome.REFUSED, asked_mhz, held_mhz or high_mhz, "not finite")
        now_s = self._bring_up()
        held_mhz = min(high_mhz, max(low_mhz, asked_mhz))
        lock_mhz = None if sm_clock_mhz is None else held_mhz
        self._lock = (now_s + CLOCK_STEP_S, lock_mhz)
        if lock_mhz == self.effective_lock_mhz:
            self._lock = None
        return judge(asked_mhz, held_mhz, f"range is {low_mhz:g} to {high_mhz:g} MHz")

    # --- what the plant asks ---------------------------------------------------------------

    @property
    def next_change_s(self) -> float:
        """When the effective limit or clock changes next."""
        stair_s = self._stairs[0][0] if self._stairs else math.inf
        return min(stair_s, self._lock[0]) if self._lock else stair_s

    def change(self, now_s: float) -> None:
        """Take the changes that are due."""
        while self._stairs and self._stairs[0][0] <= now_s:
            self.effective_limit_w = self._stairs.pop(0)[1]
        if self._lock and self._lock[0] <= now_s:
            self.effective_lock_mhz = self._lock[1]
            self._lock = None

    def draw(self, now_s: float, seconds: float, energy_j: float) -> None:
        """Set the energy counter; ``seconds`` have gone by since the last time."""
        self.power_w = (energy_j - self.energy_j) / seconds
        self.energy_j = energy_j
        keeps_s = self._keeps_s
        if keeps_s:
            history = self._history
            history.append((now_s, self.energy_j))
            while len(history) > 2 and history[1][0] <= now_s - keeps_s:
                history.popleft()

    def _draw_since_mark(self, now_s: float) -> None:
        marked_s, marked_j = self._mark
        if now_s - marked_s >= _AVERAGING_S - _ROUNDING_S:
            self._draw_w = (self.energy_j - marked_j) / (now_s - marked_s)
            self._mark = (now_s, self.energy_j)
        elif marked_s == 0.0:
            self._draw_w = self.power_w

    def _energy_at(self, at_s: float) -> float:
        """Energy at a time within the history, in a straight line between its marks."""
        after_s, after_j = self._history[-1]
        for before_s, before_j in reversed(self._history):
            if before_s <= at_s:
                if after_s <= before_s:
                    return before_j
                share = min(1.0, (at_s - before_s) / (after_s - before_s))
                return before_j + share * (after_j - before_j)
            after_s, after_j = before_s, before_j
        return after_j


def _stairs(now_s: float, from_w: float, to_w: float) -> list[tuple[float, float]]:
    """(time, limit) on the way from one limit to another; stairs between lie on whole 5 W."""
    if from_w == to_w:
        return []
    low_w, high_w = sorted((from_w, to_w))
    *between, (last_s, _) = _UP if to_w > from_w else _DOWN
    stairs: list[tuple[float, float]] = []
    for after_s, share in between:
        stair_w = _STAIR_W * round((from_w + (to_w - from_w) * share) / _STAIR_W)
        if low_w < stair_w < high_w:
            stairs.append((now_s + after_s, stair_w))
    return [*stairs, (now_s + last_s, to_w)]
