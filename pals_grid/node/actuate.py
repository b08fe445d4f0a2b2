"""Writing to devices: only what changed, always read back, never in a fight with others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.commands import Outcome

if TYPE_CHECKING:
    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.ports import ClockLock, Engine, Gpu

RETRY_S = 60.0
TOLERANCE_W = 0.5
CLOCK_TOLERANCE_MHZ = 16.0
RAISE_RATIO = 0.02


class GpuActuator:
    """Writes one GPU's power limit.

    A decrease of 1 W or more is written at once, an increase from 2 % on. A limit that someone
    else lowered is left as it is until the next own change; one that someone else raised is
    written again, for the envelope is at stake, but no more than once in 60 s: two programs that
    fight would hold nothing. A refused write is tried again after 60 s, or when its answer says
    so; until then ``refused`` says that the device stands at another limit.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._asked_w: float | None = None
        self._answer_w = 0.0
        self._held_w: float | None = None
        self._retry_at_s = 0.0
        self._rewrite_at_s = 0.0
        self._raised = False
        self.refused = False

    @property
    def uuid(self) -> str:
        """The GPU's."""
        return self._gpu.uuid

    def due(self, wanted_w: float, found_w: float, now_s: float) -> bool:
        """Whether ``wanted_w`` has to be written, given the limit found on the device."""
        if now_s < self._retry_at_s:
            return False
        self.refused = False  # what is not due now stands as it should
        if self._asked_w is None:
            return abs(wanted_w - found_w) > TOLERANCE_W
        self._raised = found_w > max(self._asked_w, self._answer_w) + TOLERANCE_W
        if self._raised and now_s >= self._rewrite_at_s:
            return True
        change_w = wanted_w - self._asked_w
        return change_w <= -1.0 or change_w >= max(1.0, RAISE_RATIO * self._asked_w)

    def foreign_change(self, found_w: float) -> str | None:
        """Say it, once, when the limit is not the one that was read back after our write."""
        if self._held_w is None or abs(found_w - self._held_w) <= TOLERANCE_W:
            return None
        text = f"GPU {self._gpu.uuid}: limit is {found_w:g} W, was left at {self._held_w:g} W"
        self._held_w = found_w
        return text

    def write(self, wanted_w: float, now_s: float) -> ActuationResult:
        """Write and keep what the device made of it."""
        result = self._gpu.apply_power_limit(wanted_w)
        self.refused = result.outcome is Outcome.REFUSED
        if self.refused:
            self._retry_at_s = now_s + _retry_s(result)
        else:
            if self._raised:
                self._rewrite_at_s = now_s + RETRY_S
            self._raised = False
            self._asked_w = wanted_w
            self._answer_w = result.read_back if result.read_back is not None else wanted_w
            self._held_w = self._answer_w
        return result


class ClockActuator:
    """Writes one GPU's SM clock lock, or releases it.

    Written only on a change, for nobody can read the lock back; but a GPU that is seen to run
    faster than its lock has lost it, and is locked again. A lock that was refused or lost is
    tried again after 60 s at the earliest. A clock that was never locked is never released;
    ``taken`` says whether the device took any write.
    """

    def __init__(self, gpu: ClockLock) -> None:
        self._gpu = gpu
        self._asked_mhz: float | None = None
        self._held_mhz = math.inf
        self._retry_at_s = 0.0
        self.taken = False

    def due(self, wanted_mhz: float | None, found_mhz: float | None, now_s: float) -> bool:
        """Whether ``wanted_mhz`` (None: free) has to be written, given the SM clock found."""
        if now_s < self._retry_at_s:
            return False
        if wanted_mhz != self._asked_mhz:
            return True
        return self.lost(found_mhz) is not None

    def lost(self, found_mhz: float | None) -> str | None:
        """Say it when the SM clock runs above the lock that was left."""
        if found_mhz is None or found_mhz <= self._held_mhz + CLOCK_TOLERANCE_MHZ:
            return None
        return f"SM clock is {found_mhz:g} MHz, was locked at {self._held_mhz:g} MHz"

    def write(self, wanted_mhz: float | None, now_s: float) -> ActuationResult:
        """Write and keep what the device made of it."""
        again = wanted_mhz == self._asked_mhz
        result = self._gpu.apply_clock_limit(wanted_mhz)
        if again or result.outcome is Outcome.REFUSED:
            self._retry_at_s = now_s + _retry_s(result)
        if result.outcome is not Outcome.REFUSED:
            self.taken = True
            self._asked_mhz = wanted_mhz
            self._held_mhz = math.inf if wanted_mhz is None else _held_mhz(wanted_mhz, result)
        return result


def _retry_s(result: ActuationResult) -> float:
    return RETRY_S if result.retry_after_s is None else result.retry_after_s


def _held_mhz(wanted_mhz: float, result: ActuationResult) -> float:
    """Return where the lock is: a clamped one where it reads back."""
    if result.outcome is Outcome.CLAMPED and result.read_back is not None:
        return max(wanted_mhz, result.read_back)
    return wanted_mhz


class BatchActuator:
    """Writes one engine's batch size; refused, it is tried again after 60 s.

    An engine that clamps has told its ``most``, which is asked for instead from then on, until
    the engine is found with another size: then it was started again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: int | None = None
        self._held: int | None = None
        self.most: int | None = None
        self._retry_at_s = 0.0
        self.refused = False

    def due(self, wanted: int, found: int | None, now_s: float) -> bool:
        """Whether ``wanted`` has to be written, given the size that the engine reports."""
        if now_s < self._retry_at_s:
            return False
        if found is not None and found != self._held:
            self.most = None
        wanted = self._possible(wanted)
        if self.refused:
            return True  # to learn whether it still does, even if it stands so already
        if self._asked is None or wanted != self._asked:
            return found != wanted
        return found is not None and found != self._held

    def write(self, wanted: int, now_s: float) -> ActuationResult:
        """Write and keep what the engine made of it."""
        wanted = self._possible(wanted)
        result = self._engine.apply_max_num_seqs(wanted)
        self.refused = result.outcome is Outcome.REFUSED
        if self.refused:
            self._retry_at_s = now_s + RETRY_S
        else:
            self._asked = wanted
            self._held = round(result.read_back) if result.read_back is not None else wanted
            if self._held < wanted:
                self._asked = self.most = self._held
        return result

    def _possible(self, wanted: int) -> int:
        return wanted if self.most is None else min(wanted, self.most)
