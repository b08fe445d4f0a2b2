"""What has to hold without an agent, on the disk: it survives the helper and a reboot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from pals_grid.node.files import keep_aside, write_durably
from pals_grid.node.helper.messages import Hold, Instant, Uuid, Watts

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

log = logging.getLogger(__name__)


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's last beat, and the limits held in it.

    ``held_w`` are the limits in W by GPU UUID while the hold that ends at ``held_until`` was
    active. ``boot_id`` tells a reboot, which loses the driver's limits, from a restart.
    """

    version: int = 1
    boot_id: str
    written_at: Instant
    uuids: list[Uuid] = []
    holds: list[Hold] = []
    safe_limit_w: Watts | None = None
    lease_until: Instant | None = None
    held_w: dict[str, float] = {}
    held_until: Instant | None = None

    def active_hold(self, now: datetime) -> Hold | None:
        """Return the hold that ``now`` lies in; the lowest where several do."""
        active = [hold for hold in self.holds if hold.start_at <= now < hold.end_at]
        return min(active, key=lambda hold: hold.limit_w, default=None)

    def next_hold(self, now: datetime, before: datetime) -> Hold | None:
        """Return the hold that begins first, after ``now`` and before ``before``."""
        coming = [hold for hold in self.holds if now < hold.start_at < before]
        return min(coming, key=lambda hold: hold.start_at, default=None)

    def limits_in(self, hold: Hold) -> dict[str, float]:
        """Return the limit in W of each GPU in ``hold``: the one held when it began to count."""
        held = self.held_w if self.held_until == hold.end_at else {}
        return {uuid: held.get(uuid, hold.limit_w) for uuid in self.uuids}


class LeaseFile:
    """The record at ``path``; ``record`` is None where there never was one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.record: LeaseRecord | None = _load(path) if path.exists() else None

    def save(self, record: LeaseRecord) -> None:
        """Keep a record. It counts at once, even where the disk fails.

        Raises:
            OSError: when it is not on the disk.
        """
        self.record = record
        write_durably(self._path, msgspec.json.encode(record))


def _load(path: Path) -> LeaseRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LeaseRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        aside = keep_aside(path)
        log.error("the leases in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return None
