"""The node's live grant: on the disk before it counts, held as a bound after a restart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.grant import Grant, GrantHolder
from pals_grid.node.files import keep_aside, write_durably
from pals_grid.wire.messages import PowerGrant, decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.grant import Held
    from pals_grid.core.ports import Clock

log = logging.getLogger(__name__)


class GrantFile:
    """The newest grant at ``path``; None keeps it in memory, for simulated time."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.grant: Grant | None = _load(path) if path is not None and path.exists() else None

    def save(self, grant: Grant) -> None:
        """Return when the grant is on the disk.

        Raises:
            OSError: when it may not be.
        """
        if self._path is not None:
            write_durably(self._path, encode(_told(grant)))
        self.grant = grant


class LiveGrants:
    """Takes grants, in one thread; any thread may read ``held``."""

    def __init__(self, file: GrantFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._holder = GrantHolder(file.grant, clock.monotonic_s())
        self._failing = False

    @property
    def held(self) -> Held | None:
        """The newest grant taken, also when it has ended; None without one."""
        return self._holder.held

    def take(self, grant: Grant, asked_s: float) -> bool:
        """Hold a grant that was asked for at ``asked_s`` (monotonic), once it is on the disk.

        False where it is too old, older than the one held, or cannot be stored. The same one
        again is not stored again: after a restart its whole lease counts anew, which is no less.
        """
        now_s = self._clock.monotonic_s()
        if self._holder.after(grant, asked_s, now_s) is None:
            return False
        kept = self._file.grant
        is_kept = kept is not None and kept.key == grant.key and grant.lease_s <= kept.lease_s
        if not is_kept and not self._store(grant):
            return False
        # Its age is the answer's: that the disk was slow changes nothing for the service.
        return self._holder.take(grant, asked_s, now_s)

    def _store(self, grant: Grant) -> bool:
        try:
            self._file.save(grant)
        except OSError as error:
            if not self._failing:
                log.error("no live grant is taken: it cannot be stored: %s", error)  # noqa: TRY400 - the message says it all
            self._failing = True
            return False
        if self._failing:
            log.info("live grants are stored and taken again")
        self._failing = False
        return True


def read_grant(told: PowerGrant) -> Grant:
    """Return the grant that a message carries."""
    return Grant(told.epoch, told.sequence, told.power_w, told.lease_s)


def _told(grant: Grant) -> PowerGrant:
    return PowerGrant(
        epoch=grant.epoch, sequence=grant.sequence, power_w=grant.power_w, lease_s=grant.lease_s
    )


def _load(path: Path) -> Grant | None:
    try:
        return read_grant(decode(path.read_bytes(), PowerGrant))
    except InvalidValue as error:
        aside = keep_aside(path)
        log.error("the live grant in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return None
