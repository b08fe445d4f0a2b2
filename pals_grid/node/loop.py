"""The control loop of a node: observe, decide, act, report, every 500 ms.

Only this loop writes to devices, and only after the original limits are on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.node.controller import NodeController
from pals_grid.node.deadlines import Deadlines
from pals_grid.node.report import Mode, TickReport
from pals_grid.node.unit_io import Actuations, UnitIo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.core.ports import Clock
    from pals_grid.core.site import Slo
    from pals_grid.node.controller import Decision
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.lease import Lease
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import EngineTick
    from pals_grid.node.restore import RestoreFile


class ControlLoop:
    """Ticks for one node. Not thread-safe but for ``set_slo``'s single assignment."""

    def __init__(  # noqa: PLR0913 - the loop's collaborators, each a port or a file
        self,
        hardware: NodeHardware,
        lease: Lease,
        clock: Clock,
        slo: Slo,
        restore: RestoreFile,
        *,
        period_s: float = 0.5,
        dry_run: bool = False,
        margin_ratio: float = 0.25,
    ) -> None:
        self._hardware = hardware
        self._lease = lease
        self._clock = clock
        self._restore = restore
        self._dry_run = dry_run
        self._deadlines = Deadlines(period_s)
        self._controller = NodeController(
            hardware.units, hardware.overhead, slo, margin_ratio=margin_ratio
        )
        self._units = [UnitIo(unit) for unit in hardware.units]
        self._slo = self._next_slo = slo
        self._before_s: float | None = None
        self._unstored: str | None = None

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
            self._controller.set_slo(self._slo)
        notes: list[str] = []
        seen = [unit.observe(notes.append) for unit in self._units]
        gpu_power_w = sum(view.power_draw_w for view in seen)
        node_power = self._hardware.meter.observe_node_power(gpu_power_w)
        envelope = self._lease.envelope_at(at)
        decisions = self._controller.decide(seen, envelope, node_power, dt_s)
        engines = self._act(seen, decisions, now_s, dt_s, notes.append)
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
        )

    def restore(self) -> tuple[str, ...]:
        """Write originals back, nothing in a dry run; returns what could not be proven."""
        if self._dry_run:
            return ()
        gpus = [gpu for unit in self._hardware.units for gpu in unit.gpus]
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
    ) -> tuple[EngineTick, ...]:
        may_write = not self._dry_run and self._remember(seen, decisions, note)
        ticks: list[EngineTick] = []
        for index, (unit, view) in enumerate(zip(self._units, seen, strict=True)):
            decision = decisions[index]
            if may_write and decision.command is not None:
                done = unit.apply(decision.command, view, now_s, note)
                self._controller.hold_batch(index, view.engine, refused=unit.batch_refused)
            else:
                done = Actuations((None,) * len(view.gpus), None)
            ticks.append(unit.report(view, decision, done, dt_s))
        return tuple(ticks)

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
        try:
            self._restore.remember(limits_w)
        except OSError as error:
            if self._unstored != str(error):
                self._unstored = str(error)
                note(f"no limit is written: the original limits cannot be stored: {error}")
            return False
        self._unstored = None
        return True
