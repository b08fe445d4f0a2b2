"""One line for every write to a device, whoever caused it: JSON, on a logger of its own."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.ports import ClockLock
from pals_grid.node.helper.through import ReadThroughGpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.ports import Clock, ClockRange, Gpu

AUDIT_LOGGER = "pals_grid.audit"
REFUSALS_EVERY_S = 10.0
"""Between two lines on refusals of one kind, so that they cannot push writes out of the file."""


class Audit:
    """Writes the lines. ``because`` says who or what causes the writes inside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._log = logging.getLogger(AUDIT_LOGGER)
        self._cause = "unknown"
        self._refused: dict[str, tuple[float, int]] = {}

    @contextlib.contextmanager
    def because(self, cause: str) -> Iterator[None]:
        """Name the cause of the writes inside."""
        before, self._cause = self._cause, cause
        try:
            yield
        finally:
            self._cause = before

    def note(self, what: str, **details: object) -> None:
        """Write a line."""
        line = {"at": self._clock.now(), "what": what, "cause": self._cause, **details}
        self._log.info("%s", msgspec.json.encode(line).decode())

    def wrote(self, what: str, uuid: str, result: ActuationResult) -> ActuationResult:
        """Write the line of an actuation, and pass it on."""
        self.note(
            what,
            gpu=uuid,
            requested=result.requested,
            outcome=result.outcome.value,
            read_back=result.read_back,
            detail=result.detail,
        )
        return result

    def refused(self, what: str, uuid: str, result: ActuationResult) -> ActuationResult:
        """Write the line of a refusal of the helper's own, and pass it on.

        One line in ``REFUSALS_EVERY_S``; ``omitted`` counts those of this kind left out before it.
        """
        now_s = self._clock.monotonic_s()
        written_s, omitted = self._refused.get(what, (-math.inf, 0))
        if now_s - written_s < REFUSALS_EVERY_S:
            self._refused[what] = written_s, omitted + 1
            return result
        self._refused[what] = now_s, 0
        self.note(
            what,
            gpu=uuid,
            requested=result.requested,
            outcome=result.outcome.value,
            detail=result.detail,
            omitted=omitted,
        )
        return result


class AuditedGpu(ReadThroughGpu):
    """A GPU whose every write leaves a line."""

    def __init__(self, gpu: Gpu, audit: Audit) -> None:
        super().__init__(gpu)
        self._audit = audit

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write, and leave a line."""
        result = self._gpu.apply_power_limit(power_limit_w)
        return self._audit.wrote("power_limit_w", self._gpu.uuid, result)


class AuditedClockGpu(AuditedGpu):
    """The same for a GPU whose SM clock can be locked."""

    def __init__(self, gpu: Gpu, lock: ClockLock, audit: Audit) -> None:
        super().__init__(gpu, audit)
        self._lock = lock

    @property
    def clock_range(self) -> ClockRange:
        """The GPU's."""
        return self._lock.clock_range

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Lock or release, and leave a line."""
        result = self._lock.apply_clock_limit(sm_clock_mhz)
        what = "sm_clock_mhz" if sm_clock_mhz is not None else "sm_clock_release"
        return self._audit.wrote(what, self._gpu.uuid, result)


def audited(gpu: Gpu, audit: Audit) -> AuditedGpu:
    """Return ``gpu`` with its writes on record."""
    return (
        AuditedClockGpu(gpu, gpu, audit) if isinstance(gpu, ClockLock) else AuditedGpu(gpu, audit)
    )
