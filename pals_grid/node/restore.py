"""The GPUs' original limits, on disk before the first write, gone after a proven restore."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError
from pals_grid.node.files import keep_aside, remove_durably, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pals_grid.core.ports import Gpu

log = logging.getLogger(__name__)

TOLERANCE_W = 0.5


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The file: format version and original limit in watts by GPU UUID."""

    version: int = 1
    power_limit_w: dict[str, float]


class RestoreFile:
    """Original limits by UUID. ``path`` None keeps them in memory, for simulated time.

    What an earlier run left behind is loaded, and is never overwritten by a later ``remember``:
    the limit found after a crash is not the original one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._originals: dict[str, float] = {}
        if path is not None and path.exists():
            self._originals = _load(path)

    @property
    def pending(self) -> dict[str, float]:
        """Original limits that are not proven to be restored, in watts by UUID."""
        return dict(self._originals)

    def remember(self, limits_w: dict[str, float]) -> None:
        """Put the limits of GPUs not known yet on the disk; returns when they are there."""
        fresh = {uuid: w for uuid, w in limits_w.items() if uuid not in self._originals}
        if fresh:
            self._save({**self._originals, **fresh})

    def restore(self, gpus: Iterable[Gpu]) -> tuple[str, ...]:
        """Write the originals back; returns a line for each that could not be proven.

        A disk that fails stops no GPU from being restored: its entry is restored again next time.
        """
        present = {gpu.uuid: gpu for gpu in gpus}
        failures: list[str] = []
        for uuid, original_w in self.pending.items():
            problem = _restore_one(present.get(uuid), original_w)
            if problem is None:
                problem = self._forget(uuid)
            if problem is not None:
                failures.append(f"GPU {uuid}: original limit {original_w:g} W: {problem}")
        return tuple(failures)

    def _forget(self, uuid: str) -> str | None:
        try:
            self._save({k: w for k, w in self._originals.items() if k != uuid})
        except OSError as error:
            return f"is restored, but its entry stays: {error}"
        return None

    def _save(self, originals: dict[str, float]) -> None:
        if self._path is not None:
            if originals:
                record = _Record(power_limit_w=originals)
                write_durably(self._path, msgspec.json.encode(record))
            else:
                remove_durably(self._path)
        self._originals = originals


def _restore_one(gpu: Gpu | None, original_w: float) -> str | None:
    if gpu is None:
        return "the GPU is not there"
    result = gpu.apply_power_limit(original_w)
    if result.outcome is Outcome.REFUSED:
        return f"refused: {result.detail}"
    try:
        found_w = gpu.observe().power_limit_w
    except DeviceError as error:
        return f"cannot be read back: {error}"
    if abs(found_w - original_w) > TOLERANCE_W:
        return f"reads back as {found_w:g} W {result.detail}".rstrip()
    return None


def _load(path: Path) -> dict[str, float]:
    try:
        return dict(msgspec.json.decode(path.read_bytes(), type=_Record).power_limit_w)
    except msgspec.DecodeError as error:
        aside = keep_aside(path)
        log.error("original limits in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return {}
