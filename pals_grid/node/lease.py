"""The node's envelopes as a lease: held on disk, followed to the end, then the safe limit."""

from __future__ import annotations

import logging
from bisect import bisect_right
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.node.files import keep_aside, write_durably
from pals_grid.node.report import ActiveEnvelope
from pals_grid.wire.messages import EnvelopeSchedule, decode, encode

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pals_grid.wire.messages import EnvelopeInterval

log = logging.getLogger(__name__)


class Lease:
    """The newest schedule, from the service or from the disk.

    Where no interval holds, the schedule's ``safe_power_w`` does; where there never was a
    schedule, the configured one. ``store`` may be called from another thread.
    """

    def __init__(self, path: Path | None, safe_power_w: float) -> None:
        self._path = path
        self._safe_power_w = safe_power_w
        self._ordered: OrderedSchedule | None = None
        if path is not None and path.exists():
            self._ordered = _load(path)

    @property
    def version(self) -> int:
        """Version of the schedule; 0 without one."""
        ordered = self._ordered
        return ordered.schedule.version if ordered else 0

    @property
    def schedule(self) -> EnvelopeSchedule | None:
        """The schedule held, its intervals as they came; None without one."""
        ordered = self._ordered
        return ordered.schedule if ordered else None

    @property
    def ordered(self) -> OrderedSchedule | None:
        """The schedule ready for look-up; another object whenever one was stored."""
        return self._ordered

    def is_binding_at(self, now: datetime) -> bool:
        """Whether the site's own limit binds at ``now``: an event, or the grid connection."""
        schedule = self.schedule
        return schedule is not None and any(
            is_binding(item) and item.start_at <= now < item.end_at for item in schedule.intervals
        )

    def store(self, schedule: EnvelopeSchedule) -> None:
        """Hold this schedule from now on. It counts at once, even where the disk fails."""
        self._ordered = OrderedSchedule(schedule)
        if self._path is not None:
            write_durably(self._path, encode(schedule))

    def envelope_at(self, now: datetime) -> ActiveEnvelope:
        """What the node may draw at ``now``."""
        ordered = self._ordered
        if ordered is None:
            return ActiveEnvelope(0, 0.0, self._safe_power_w, 0.0, None)
        return ordered.envelope_at(now)


def is_binding(interval: EnvelopeInterval) -> bool:
    """Whether an interval's limit comes from an event or the grid connection, not from costs."""
    return interval.event_id is not None or interval.reason in {
        Reason.EVENT,
        Reason.GRID_CONNECTION,
    }


class OrderedSchedule:
    """A schedule ready for look-up by time."""

    def __init__(self, schedule: EnvelopeSchedule) -> None:
        self.schedule = schedule
        self._intervals = sorted(schedule.intervals, key=lambda item: item.start_at)
        self._starts = [item.start_at for item in self._intervals]

    def envelope_at(self, now: datetime) -> ActiveEnvelope:
        """What it allows at ``now``, its safe limit where no interval holds."""
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


def _load(path: Path) -> OrderedSchedule | None:
    try:
        return OrderedSchedule(decode(path.read_bytes(), EnvelopeSchedule))
    except InvalidValue as error:
        aside = keep_aside(path)
        log.error("the schedule in %s cannot be read (%s); kept as %s", path, error, aside)  # noqa: TRY400 - the message says it all
        return None
