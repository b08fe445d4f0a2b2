"""The control loop of a node: observe, decide, act, report, every 500 ms.

Only this loop writes to devices, and only after the original limits are on the disk.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from pals_grid.node.deadlines import Deadlines
from pals_grid.node.report import Mode, TickReport
from pals_grid.node.strategies.registry import DEFAULT_STRATEGY, make_strategy
from pals_grid.node.unit_io import Actuations, UnitIo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pals_grid.core.grant import Grant
    from pals_grid.core.ports import Clock
    from pals_grid.core.site import Slo
    from pals_grid.node.decision import Decision
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope, EngineTick
    from pals_grid.node.restore import Originals
    from pals_grid.node.strategy import Strategy


class Envelopes(Protocol):
    """What a node may draw: a ``Lease`` for its schedule alone, a ``Course`` with live grants."""

    def envelope_at(self, now: datetime, /) -> ActiveEnvelope:
        """Return what holds now."""
        ...


class ControlLoop:
    """Ticks for one node. Not thread-safe but for ``set_slo``'s single assignment.

    ``announce`` is told what the tick follows before anything is written.
    """

    def __init__(  # noqa: PLR0913 - the loop's collaborators, each a port or a file
        self,
        hardware: NodeHardware,
        envelopes: Envelopes,
        clock: Clock,
        slo: Slo,
        restore: Originals,
        *,
        period_s: float = 0.5,
        dry_run: bool = False,
        strategy: Strategy | None = None,
        announce: Callable[[ActiveEnvelope, datetime], None] | None = None,
    ) -> None:
        self._hardware = hardware
        self._envelopes = envelopes
        self._announce = announce
        self._clock = clock
        self._restore = restore
        self._dry_run = dry_run
        self._deadlines = Deadlines(period_s)
        self._strategy: Strategy = strategy or make_strategy(
            DEFAULT_STRATEGY, hardware.units, hardware.overhead, slo
        )
        self._units = [UnitIo(unit) for unit in hardware.units]
        self._slo = self._next_slo = slo
        self._before_s: float | None = None
        self._unstored: str | None = None
        self._obeyed: Grant | None = None

    def set_slo(self, slo: Slo) -> None:
        """Use the site's latency objectives from the next tick on; any thread may call it."""
        self._next_slo = slo

    def seconds_until_next(self) -> float:
        """How long to wait for the next tick; 0 when it is due."""
        return self._deadlines.wait_s(self._clock.monotonic_s())

    def tick(self) -> TickReport:
        """Do one tick now."""
        now_s = self._clock.monotonic_s()
        at = self._clock.now()
        lag_s, skipped = self._deadlines.begin(now_s)
        dt_s = 0.0 if self._before_s is None else now_s - self._before_s
        self._before_s = now_s
        if self._next_slo is not self._slo:
            self._slo = self._next_slo
            self._strategy.set_slo(self._slo)
        notes: list[str] = []
        seen = [unit.observe(notes.append) for unit in self._units]
        gpu_power_w = sum(view.power_draw_w for view in seen)
        node_power = self._hardware.meter.observe_node_power(gpu_power_w)
        envelope = self._envelopes.envelope_at(at)
        if self._announce is not None:
            self._announce(envelope, at)
        decisions = self._strategy.decide(seen, envelope, node_power, dt_s)
        engines, is_done = self._act(seen, decisions, now_s, dt_s, notes.append)
        if is_done and envelope.held is not None:
            self._obeyed = envelope.held.grant
        return TickReport(
            at=at,
            monotonic_s=now_s,
            lag_s=lag_s,
            skipped=skipped,
            mode=Mode.OBSERVING if self._dry_run else envelope.mode,
            envelope=envelope,
            node_power=node_power,
            gpu_power_w=gpu_power_w,
            engines=engines,
            notes=tuple(notes),
            obeyed=self._obeyed,
        )

    def restore(self) -> tuple[str, ...]:
        """Write originals back, nothing in a dry run; returns what could not be proven."""
        if self._dry_run:
            return ()
        gpus = [gpu for unit in self._hardware.units for gpu in unit.gpus]
        with contextlib.suppress(OSError):  # then they are released all the same
            self._restore.forget_clocks(uuid for unit in self._units for uuid in unit.never_locked)
        failures = self._restore.restore(gpus)
        return failures + tuple(
            failure for unit in self._units if (failure := unit.restore_batch()) is not None
        )

    def _act(
        self,
        seen: Sequence[UnitObservation],
        decisions: Sequence[Decision],
        now_s: float,
        dt_s: float,
        note: Callable[[str], None],
    ) -> tuple[tuple[EngineTick, ...], bool]:
        """Carry out decisions; also returns whether all limits stand as they should."""
        may_write = not self._dry_run and self._remember(seen, decisions, note)
        ticks: list[EngineTick] = []
        is_done = may_write
        for index, (unit, view) in enumerate(zip(self._units, seen, strict=True)):
            decision = decisions[index]
            if may_write and decision.command is not None:
                done = unit.apply(decision.command, view, now_s, note)
                most = unit.batch_bound(view)
                self._strategy.hold_batch(index, most, refused=unit.batch_refused)
                is_done = is_done and not unit.limit_refused
            else:
                is_done = is_done and not unit.is_steered
                done = Actuations((None,) * len(view.gpus), None)
            ticks.append(unit.report(view, decision, done, dt_s))
        return tuple(ticks), is_done

    def _remember(
        self,
        seen: Sequence[UnitObservation],
        decisions: Sequence[Decision],
        note: Callable[[str], None],
    ) -> bool:
        """Put original limits on the disk; False, and nothing may be written, where it fails."""
        limits_w = {
            gpu.uuid: sample.power_limit_w
            for io, view, decision in zip(self._units, seen, decisions, strict=True)
            if decision.command is not None
            for gpu, sample in zip(io.gpus, view.gpus, strict=True)
            if sample is not None
        }
        locked = [
            uuid
            for io, decision in zip(self._units, decisions, strict=True)
            if decision.command is not None and decision.command.sm_clock_mhz is not None
            for uuid in io.lockable
        ]
        try:
            self._restore.remember(limits_w, locked)
        except OSError as error:
            if self._unstored != str(error):
                self._unstored = str(error)
                note(f"no limit is written: the original limits cannot be stored: {error}")
            return False
        self._unstored = None
        return True
