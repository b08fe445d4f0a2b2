"""Reads and writes of one unit: failures left out and noted once, writes only where due."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError
from pals_grid.core.ports import ClockLock, DeferrableSlots
from pals_grid.node.actuate import BatchActuator, ClockActuator, GpuActuator
from pals_grid.node.observation import UnitObservation
from pals_grid.node.report import EngineTick, GpuTick

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.commands import ActuationResult, NodeCommand
    from pals_grid.core.ports import EngineSample, Gpu, GpuSample
    from pals_grid.node.decision import Decision
    from pals_grid.node.hardware import EngineUnit

    Note = Callable[[str], None]

RESTORE_TRIES = 20
"""An engine that is in the middle of a step says so after 0.15 s; steps seldom take 3 s."""

S = TypeVar("S", bound="GpuSample | EngineSample")


@dataclass(frozen=True, slots=True)
class Actuations:
    """What was written at a tick; None where nothing was."""

    gpus: tuple[ActuationResult | None, ...]
    batch: ActuationResult | None
    clocks: tuple[ActuationResult | None, ...] = ()


class UnitIo:
    """One unit's devices, with what has to be remembered between ticks.

    ``lockable`` are the UUIDs of the GPUs whose SM clock can be locked.
    """

    def __init__(self, unit: EngineUnit) -> None:
        self._unit = unit
        self._writers = [GpuActuator(gpu) for gpu in unit.gpus]
        self._clocks = [
            ClockActuator(gpu) if isinstance(gpu, ClockLock) else None for gpu in unit.gpus
        ]
        self.lockable = tuple(gpu.uuid for gpu in unit.gpus if isinstance(gpu, ClockLock))
        self._batch = BatchActuator(unit.engine)
        # Asked once: such a check of a protocol costs more than the call behind it.
        self._slots = unit.engine if isinstance(unit.engine, DeferrableSlots) else None
        self._silent: set[str] = set()
        self._clockless: set[str] = set()
        self._original_batch: int | None = None
        self._before: EngineSample | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The unit's GPUs."""
        return self._unit.gpus

    @property
    def is_steered(self) -> bool:
        """Whether a table says how."""
        return bool(self._unit.table)

    @property
    def never_locked(self) -> tuple[str, ...]:
        """UUIDs of the GPUs that took no clock lock."""
        pairs = zip(self._unit.gpus, self._clocks, strict=True)
        return tuple(gpu.uuid for gpu, clock in pairs if clock is None or not clock.taken)

    @property
    def limit_refused(self) -> bool:
        """Whether a GPU refused the last limit asked of it."""
        return any(writer.refused for writer in self._writers)

    @property
    def batch_refused(self) -> bool:
        """Whether the engine refused the last batch size."""
        return self._batch.refused

    def batch_bound(self, view: UnitObservation) -> int | None:
        """Return the highest batch that the engine takes, its own while it refuses; else None."""
        if self._batch.refused:
            return view.engine.max_num_seqs if view.engine is not None else None
        return self._batch.most

    def observe(self, note: Note) -> UnitObservation:
        """Read every device."""
        gpus = tuple(self._read(f"GPU {gpu.uuid}", gpu.observe, note) for gpu in self._unit.gpus)
        engine = self._read(f"engine {self._unit.name}", self._unit.engine.observe, note)
        return UnitObservation(gpus, engine)

    def apply(
        self, command: NodeCommand, view: UnitObservation, now_s: float, note: Note
    ) -> Actuations:
        """Carry out a command where the devices do not stand so already."""
        limits: list[ActuationResult | None] = []
        for writer, sample in zip(self._writers, view.gpus, strict=True):
            result = None
            if sample is not None:
                changed = writer.foreign_change(sample.power_limit_w)
                if changed is not None:
                    note(changed)
                if writer.due(command.power_limit_w, sample.power_limit_w, now_s):
                    result = writer.write(command.power_limit_w, now_s)
                    _note_trouble(f"GPU {writer.uuid}: power limit", result, note)
            limits.append(result)
        if command.deferrable_seqs is not None and self._slots is not None:
            self._slots.apply_deferrable_seqs(command.deferrable_seqs)
            if self._original_batch is None and view.engine is not None:
                self._original_batch = view.engine.max_num_seqs  # what may wait is let go with it
        batch = self._apply_batch(command, view, now_s, note)
        return Actuations(tuple(limits), batch, self._apply_clocks(command, view, now_s, note))

    def restore_batch(self) -> str | None:
        """Give the engine back the batch size it had; a line where that failed."""
        if self._original_batch is None:
            return None
        try:
            self._unit.engine.observe()
        except DeviceError:
            self._original_batch = None  # an engine that is gone took its batch size with it
            return None
        if self._slots is not None:
            self._slots.apply_deferrable_seqs(self._original_batch)
        for _ in range(RESTORE_TRIES):
            result = self._batch.write(self._original_batch, 0.0)
            if result.outcome is not Outcome.PARTIAL:
                break
        if result.outcome is Outcome.APPLIED:
            self._original_batch = None
            return None
        return (
            f"engine {self._unit.name}: original max_num_seqs {self._original_batch}: "
            f"{result.outcome} {result.detail}".rstrip()
        )

    def report(
        self, view: UnitObservation, decision: Decision, done: Actuations, dt_s: float
    ) -> EngineTick:
        """Return the record of this unit's tick."""
        before, self._before = self._before, view.engine
        tokens = 0.0
        if before is not None and view.engine is not None and dt_s > 0:
            tokens = max(0.0, view.engine.tokens_out_total - before.tokens_out_total)
        return EngineTick(
            name=self._unit.name,
            model=self._unit.engine.model,
            origin=self._unit.origin,
            gpus=tuple(
                GpuTick(gpu.uuid, sample, limit, clock)
                for gpu, sample, limit, clock in zip(
                    self._unit.gpus,
                    view.gpus,
                    done.gpus,
                    done.clocks or (None,) * len(view.gpus),
                    strict=True,
                )
            ),
            sample=view.engine,
            power_draw_w=view.power_draw_w,
            power_limit_w=view.power_limit_w,
            target_tokens_per_s=decision.target_tokens_per_s,
            tokens_out_per_s=tokens / dt_s if dt_s > 0 else 0.0,
            command=decision.command,
            actuation=done.batch,
            tokens_deferred=decision.tokens_deferred,
        )

    def _apply_clocks(
        self, command: NodeCommand, view: UnitObservation, now_s: float, note: Note
    ) -> tuple[ActuationResult | None, ...]:
        done: list[ActuationResult | None] = []
        for gpu, clock, sample in zip(self._unit.gpus, self._clocks, view.gpus, strict=True):
            if clock is None or sample is None:
                if clock is None and command.sm_clock_mhz is not None:
                    self._note_clockless(gpu.uuid, note)
                done.append(None)
                continue
            result = None
            if clock.due(command.sm_clock_mhz, sample.sm_clock_mhz, now_s):
                lost = clock.lost(sample.sm_clock_mhz)
                if lost is not None:
                    note(f"GPU {gpu.uuid}: {lost}")
                result = clock.write(command.sm_clock_mhz, now_s)
                if result.outcome is not Outcome.PARTIAL:  # the next tick sees whether it holds
                    _note_trouble(f"GPU {gpu.uuid}: SM clock", result, note)
            done.append(result)
        return tuple(done)

    def _note_clockless(self, uuid: str, note: Note) -> None:
        if uuid not in self._clockless:
            self._clockless.add(uuid)
            note(f"GPU {uuid}: its SM clock cannot be locked and stays free")

    def _apply_batch(
        self, command: NodeCommand, view: UnitObservation, now_s: float, note: Note
    ) -> ActuationResult | None:
        assert view.engine is not None  # a command is made only for an engine that answered
        found = view.engine.max_num_seqs
        if not self._batch.due(command.max_num_seqs, found, now_s):
            return None
        result = self._batch.write(command.max_num_seqs, now_s)
        if result.outcome is not Outcome.REFUSED and self._original_batch is None:
            self._original_batch = found
        _note_trouble(f"engine {self._unit.name}: max_num_seqs", result, note)
        return result

    def _read(self, name: str, observe: Callable[[], S], note: Note) -> S | None:
        try:
            sample = _sound(observe())
        except DeviceError as error:
            if name not in self._silent:
                self._silent.add(name)
                note(f"{name} is left out: {error}")
            return None
        if name in self._silent:
            self._silent.discard(name)
            note(f"{name} answers again")
        return sample


def _sound(sample: S) -> S:
    """Refuse a sample with a figure that is no number: one would poison every sum.

    Raises:
        DeviceError: names field and value.
    """
    for value in _reader(sample.__slots__)(sample):
        if value is not None and value - value != 0:  # what is no number is not itself less itself
            for name in sample.__slots__:
                found = getattr(sample, name)
                if found is not None and not math.isfinite(found):
                    raise DeviceError(f"{name}: must be finite, got {found}")
    return sample


@functools.cache
def _reader(fields: tuple[str, ...]) -> Callable[[object], tuple[float | None, ...]]:
    """Return what reads all figures of a sample in one call."""
    return attrgetter(*fields)


def _note_trouble(name: str, result: ActuationResult, note: Note) -> None:
    if result.outcome is not Outcome.APPLIED:
        found = "nothing" if result.read_back is None else f"{result.read_back:g}"
        note(f"{name} {result.requested:g} {result.outcome}, reads back {found}: {result.detail}")
