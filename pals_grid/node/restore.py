"""The GPUs' original limits, on disk before the first write, gone after a proven restore.

SM clocks have no original to read: NVML tells nobody's lock. So the file only remembers whose
clocks this program may have locked, and restoring means to release them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import msgspec

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError
from pals_grid.core.ports import ClockLock
from pals_grid.node.files import keep_aside, remove_durably, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pals_grid.core.ports import Gpu

log = logging.getLogger(__name__)

TOLERANCE_W = 0.5


class Originals(Protocol):
    """Who keeps original limits: this program's own file, or the privileged helper."""

    def remember(self, limits_w: dict[str, float], clocks: Iterable[str] = ()) -> None:
        """Keep limits found, in W by UUID, and whose clocks shall be locked, before a write.

        Raises:
            OSError: when they are not on the disk, so that nothing may be written.
        """
        ...

    def forget_clocks(self, uuids: Iterable[str]) -> None:
        """Leave out GPUs that took no lock."""
        ...

    def restore(self, gpus: Iterable[Gpu]) -> tuple[str, ...]:
        """Have the originals written back; returns a line for each not proven."""
        ...


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The file: format version, original limit in watts by GPU UUID, GPUs with locked clocks.

    Version 1 had no ``clocks_locked``; an older program that reads version 2 leaves it out.
    """

    version: int = 2
    power_limit_w: dict[str, float]
    clocks_locked: list[str] = []


class RestoreFile:
    """Original limits by UUID. ``path`` None keeps them in memory, for simulated time.

    What an earlier run left behind is loaded, and is never overwritten by a later ``remember``:
    the limit found after a crash is not the original one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._originals: dict[str, float] = {}
        self._locked: frozenset[str] = frozenset()
        self._left_over: frozenset[str] = frozenset()
        if path is not None and path.exists():
            record = _load(path)
            self._originals = dict(record.power_limit_w)
            self._locked = self._left_over = frozenset(record.clocks_locked)

    @property
    def pending(self) -> dict[str, float]:
        """Original limits that are not proven to be restored, in watts by UUID."""
        return dict(self._originals)

    @property
    def pending_clocks(self) -> frozenset[str]:
        """UUIDs of the GPUs whose SM clocks may be locked by this program."""
        return self._locked

    def remember(self, limits_w: dict[str, float], clocks: Iterable[str] = ()) -> None:
        """Put what is not known yet on the disk; returns when it is there.

        ``limits_w`` are the limits found; ``clocks`` the UUIDs whose SM clocks shall be locked.
        """
        fresh = {uuid: w for uuid, w in limits_w.items() if uuid not in self._originals}
        locked = self._locked.union(clocks)
        if fresh or locked != self._locked:
            self._save({**self._originals, **fresh}, locked)

    def forget_clocks(self, uuids: Iterable[str]) -> None:
        """Leave out GPUs that took no lock from this run, but not those of an earlier one.

        Raises:
            OSError: when the disk takes no change.
        """
        locked = self._locked.difference(set(uuids) - self._left_over)
        if locked != self._locked:
            self._save(self._originals, locked)

    def restore(self, gpus: Iterable[Gpu]) -> tuple[str, ...]:
        """Write the originals back, release clocks; returns a line for each not proven.

        A disk that fails stops no GPU from being restored: its entry is restored again next time.
        """
        present = {gpu.uuid: gpu for gpu in gpus}
        failures: list[str] = []
        for uuid in sorted(self._locked):
            problem = _release_clock(present.get(uuid)) or self._forget(clock_of=uuid)
            if problem is not None:
                failures.append(f"GPU {uuid}: SM clock lock: {problem}")
        for uuid, original_w in self.pending.items():
            problem = _restore_one(present.get(uuid), original_w) or self._forget(limit_of=uuid)
            if problem is not None:
                failures.append(f"GPU {uuid}: original limit {original_w:g} W: {problem}")
        return tuple(failures)

    def _forget(self, *, limit_of: str = "", clock_of: str = "") -> str | None:
        originals = {uuid: w for uuid, w in self._originals.items() if uuid != limit_of}
        try:
            self._save(originals, self._locked - {clock_of})
        except OSError as error:
            return f"is restored, but its entry stays: {error}"
        return None

    def _save(self, originals: dict[str, float], locked: frozenset[str]) -> None:
        if self._path is not None:
            if originals or locked:
                record = _Record(power_limit_w=originals, clocks_locked=sorted(locked))
                write_durably(self._path, msgspec.json.encode(record))
            else:
                remove_durably(self._path)
        self._originals, self._locked = originals, locked
        self._left_over &= locked


def _release_clock(gpu: Gpu | None) -> str | None:
    if gpu is None:
        return "the GPU is not there"
    if not isinstance(gpu, ClockLock):
        return "the GPU no longer offers it"
    result = gpu.apply_clock_limit(None)
    if result.outcome is not Outcome.APPLIED:
        return f"{result.outcome}: {result.detail}"
    return None


def _restore_one(gpu: Gpu | None, original_w: float) -> str | None:
    if gpu is None:
        return "the GPU is not there"
    result = gpu.apply_power_limit(original_w)
    try:
        found_w = gpu.observe().power_limit_w
    except DeviceError as error:
        return f"cannot be read back: {error}"
    if abs(found_w - original_w) <= TOLERANCE_W:
        if result.outcome is Outcome.REFUSED:
            log.info(
                "GPU %s: its limit stands at the original %g W, nothing has to be restored "
                "(the write was refused: %s)",
                gpu.uuid,
                original_w,
                result.detail,
            )
        return None
    if result.outcome is Outcome.REFUSED:
        return f"refused: {result.detail}"
    return f"reads back as {found_w:g} W {result.detail}".rstrip()


def _load(path: Path) -> _Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        aside = keep_aside(path)
        log.error("original limits in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return _Record(power_limit_w={})
