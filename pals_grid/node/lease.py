"""The node's envelopes as a lease: held on disk, followed to the end, then the safe limit."""

from __future__ import annotations

import logging
from bisect import bisect_right
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.node.files import keep_aside, write_durably
from pals_grid.node.report import ActiveEnvelope
from pals_grid.wire.messages import EnvelopeSchedule, decode, encode

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

log = logging.getLogger(__name__)


class Lease:
    """The newest schedule, from the service or from the disk.

    Where no interval holds, the schedule's ``safe_power_w`` does; where there never was a
    schedule, the configured one. ``store`` may be called from another thread.
    """

    def __init__(self, path: Path | None, safe_power_w: float) -> None:
        self._path = path
        self._safe_power_w = safe_power_w
        self._ordered: _Ordered | None = None
        if path is not None and path.exists():
            self._ordered = _load(path)

    @property
    def version(self) -> int:
        """Version of the schedule; 0 without one."""
        ordered = self._ordered
        return ordered.schedule.version if ordered else 0

    def store(self, schedule: EnvelopeSchedule) -> None:
        """Hold this schedule from now on. It counts at once, even where the disk fails."""
        self._ordered = _Ordered(schedule)
        if self._path is not None:
            write_durably(self._path, encode(schedule))

    def envelope_at(self, now: datetime) -> ActiveEnvelope:
        """What the node may draw at ``now``."""
        ordered = self._ordered
        if ordered is None:
            return ActiveEnvelope(0, 0.0, self._safe_power_w, 0.0, None)
        return ordered.envelope_at(now)


class _Ordered:
    """A schedule ready for look-up by time."""

    def __init__(self, schedule: EnvelopeSchedule) -> None:
        self.schedule = schedule
        self._intervals = sorted(schedule.intervals, key=lambda item: item.start_at)
        self._starts = [item.start_at for item in self._intervals]

    def envelope_at(self, now: datetime) -> ActiveEnvelope:
        index = bisect_right(self._starts, now) - 1
        if index < 0 or now >= self._intervals[index].end_at:
            return ActiveEnvelope(self.schedule.version, 0.0, self.schedule.safe_power_w, 0.0, None)
        held = self._intervals[index]
        return ActiveEnvelope(
            self.schedule.version,
            held.power_min_w,
            held.power_max_w,
            held.target_tokens_per_s,
            held.reason,
        )


def _load(path: Path) -> _Ordered | None:
    try:
        return _Ordered(decode(path.read_bytes(), EnvelopeSchedule))
    except InvalidValue as error:
        aside = keep_aside(path)
        log.error("the schedule in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return None
