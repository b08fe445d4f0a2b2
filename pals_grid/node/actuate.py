"""Writing to devices: only what changed, always read back, never in a fight with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.commands import Outcome

if TYPE_CHECKING:
    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.ports import Engine, Gpu

RETRY_S = 60.0
TOLERANCE_W = 0.5
RAISE_RATIO = 0.02


class GpuActuator:
    """Writes one GPU's power limit.

    A decrease of 1 W or more is written at once, an increase from 2 % on. A limit that someone
    else lowered is left as it is until the next own change; one that someone else raised is
    written again, for the envelope is at stake. A refused write is tried again after 60 s.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._asked_w: float | None = None
        self._answer_w = 0.0
        self._held_w: float | None = None
        self._retry_at_s = 0.0

    @property
    def uuid(self) -> str:
        """The GPU's."""
        return self._gpu.uuid

    def due(self, wanted_w: float, found_w: float, now_s: float) -> bool:
        """Whether ``wanted_w`` has to be written, given the limit found on the device."""
        if now_s < self._retry_at_s:
            return False
        if self._asked_w is None:
            return abs(wanted_w - found_w) > TOLERANCE_W
        if found_w > max(self._asked_w, self._answer_w) + TOLERANCE_W:
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
        if result.outcome is Outcome.REFUSED:
            self._retry_at_s = now_s + RETRY_S
        else:
            self._asked_w = wanted_w
            self._answer_w = result.read_back if result.read_back is not None else wanted_w
            self._held_w = self._answer_w
        return result


class BatchActuator:
    """Writes one engine's batch size; refused, it is tried again after 60 s."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: int | None = None
        self._held: int | None = None
        self._retry_at_s = 0.0
        self.refused = False

    def due(self, wanted: int, found: int | None, now_s: float) -> bool:
        """Whether ``wanted`` has to be written, given the size that the engine reports."""
        if now_s < self._retry_at_s:
            return False
        if self._asked is None or wanted != self._asked:
            return found != wanted
        return found is not None and found != self._held

    def write(self, wanted: int, now_s: float) -> ActuationResult:
        """Write and keep what the engine made of it."""
        result = self._engine.apply_max_num_seqs(wanted)
        self.refused = result.outcome is Outcome.REFUSED
        if self.refused:
            self._retry_at_s = now_s + RETRY_S
        else:
            self._asked = wanted
            self._held = round(result.read_back) if result.read_back is not None else wanted
        return result
