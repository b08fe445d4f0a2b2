"""What the helper does to GPUs: an agent's writes while there is one, the fail-safe without.

An agent that is gone leaves one of three things to do. While a hold is active (an event, or the
grid connection binds) the limits stay, and are never above what was held. After a reboot, when
the driver has forgotten its limits, the safe limit holds until an agent comes or the lease ends.
Else the original limits come back, after a grace time in which an agent may start again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceError
from pals_grid.core.ports import ClockLock
from pals_grid.node.helper.audit import Audit, audited
from pals_grid.node.helper.bounds import Bounds, RateLimit
from pals_grid.node.helper.leases import LeaseRecord
from pals_grid.node.restore import TOLERANCE_W

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pals_grid.core.ports import Clock, Gpu
    from pals_grid.node.helper.leases import LeaseFile
    from pals_grid.node.helper.messages import Beat, Hold
    from pals_grid.node.restore import RestoreFile

log = logging.getLogger(__name__)

ENFORCE_S = 5.0
RETRY_RESTORE_S = 30.0
HOLD_SOON = timedelta(seconds=10)
"""No limit is lifted to be lowered so soon again."""
HOLD_AHEAD = timedelta(days=8)
"""A schedule reaches 7 days ahead at most."""
NOT_LISTED = "this GPU is not on the helper's list"
TOO_OFTEN = "written too often"


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """How to keep. ``silent_s`` without a word from it, an agent counts as gone."""

    boot_id: str
    bounds: Bounds = field(default_factory=Bounds)
    grace_s: float = 10.0
    silent_s: float = 8.0


class Keeper:
    """The only writer to the GPUs. One thread calls it."""

    def __init__(
        self,
        gpus: Iterable[Gpu],
        originals: RestoreFile,
        leases: LeaseFile,
        clock: Clock,
        options: KeeperOptions,
    ) -> None:
        self._clock = clock
        self._audit = Audit(clock)
        self._gpus = {gpu.uuid: audited(gpu, self._audit) for gpu in gpus}
        self._originals = originals
        self._leases = leases
        self._options = options
        self._rate = RateLimit(options.bounds.writes_per_s, options.bounds.burst)
        self._written_w: dict[str, tuple[datetime, float]] = {}
        self._holder: str | None = None
        self._heard_s = 0.0
        self._restore_at_s = clock.monotonic_s() + options.grace_s
        self._enforce_at_s = 0.0
        self._enforced: datetime | None = None
        record = leases.record
        self._rebooted = record is not None and record.boot_id != options.boot_id

    @property
    def uuids(self) -> list[str]:
        """The GPUs that may be written."""
        return list(self._gpus)

    @property
    def holder(self) -> str | None:
        """Who is in control."""
        return self._holder

    @property
    def held_until(self) -> datetime | None:
        """End of the hold that is active now, or begins soon."""
        record, now = self._leases.record, self._now()
        if record is None:
            return None
        hold = record.active_hold(now) or record.next_hold(now, now + HOLD_SOON)
        return hold.end_at if hold is not None else None

    # --- with an agent ---------------------------------------------------------------------

    def take(self, holder: str) -> None:
        """Let an agent steer."""
        self._holder = holder
        self._heard_s = self._clock.monotonic_s()
        log.info("%s is in control", holder)

    def hear(self) -> None:
        """Note a sign of life."""
        self._heard_s = self._clock.monotonic_s()

    def is_silent(self) -> bool:
        """Whether whoever is in control has said nothing for too long."""
        silent_s = self._clock.monotonic_s() - self._heard_s
        return self._holder is not None and silent_s > self._options.silent_s

    def beat(self, beat: Beat) -> None:
        """Take what holds without the agent."""
        self._rebooted = False
        told: Beat | LeaseRecord = beat
        if not beat.holds and beat.lease_until is None and self._leases.record is not None:
            told = self._leases.record  # an agent without a schedule knows of no event
        now = self._clock.now()
        record = LeaseRecord(
            boot_id=self._options.boot_id,
            written_at=now,
            uuids=sorted({*beat.uuids, *told.uuids} & self._gpus.keys()),
            holds=_bounded(told.holds, now + HOLD_AHEAD),
            safe_limit_w=told.safe_limit_w,
            lease_until=told.lease_until,
        )
        self._save(record)

    def set_power_limit(self, uuid: str, power_limit_w: float) -> ActuationResult:
        """Write a limit inside the bounds, its original on the disk before."""
        gpu = self._gpus.get(uuid)
        if gpu is None:
            return self._refuse("power_limit_w", uuid, power_limit_w, NOT_LISTED)
        wait_s = self._wait_s(f"power {uuid}")
        if wait_s > 0:
            return self._refuse("power_limit_w", uuid, power_limit_w, TOO_OFTEN, wait_s)
        problem = self._remember(uuid)
        if problem is not None:
            return self._refuse("power_limit_w", uuid, power_limit_w, problem)
        bounded_w = self._options.bounds.clamp_w(power_limit_w, gpu.limit_range)
        with self._audit.because(self._holder or "nobody"):
            result = gpu.apply_power_limit(bounded_w)
        if result.outcome is not Outcome.REFUSED:
            found_w = result.read_back if result.read_back is not None else bounded_w
            self._written_w[uuid] = self._now(), found_w
        if bounded_w == power_limit_w:
            return result
        outcome = Outcome.CLAMPED if result.outcome is Outcome.APPLIED else result.outcome
        detail = result.detail or f"the bound is {bounded_w:g} W"
        return ActuationResult(outcome, power_limit_w, result.read_back, detail)

    def set_clock_limit(self, uuid: str, sm_clock_mhz: float | None) -> ActuationResult:
        """Lock or release an SM clock; before a lock the disk knows of it."""
        gpu = self._gpus.get(uuid)
        if gpu is None or not isinstance(gpu, ClockLock):
            why = NOT_LISTED if gpu is None else "the SM clock of this GPU cannot be locked"
            return self._refuse("sm_clock_mhz", uuid, sm_clock_mhz or 0.0, why)
        asked = gpu.clock_range.max_mhz if sm_clock_mhz is None else sm_clock_mhz
        wait_s = self._wait_s(f"clock {uuid}")
        if wait_s > 0:
            return self._refuse("sm_clock_mhz", uuid, asked, TOO_OFTEN, wait_s)
        if sm_clock_mhz is not None:
            try:
                self._originals.remember({}, [uuid])
            except OSError as error:
                problem = f"the lock cannot be stored: {error}"
                return self._refuse("sm_clock_mhz", uuid, asked, problem)
        with self._audit.because(self._holder or "nobody"):
            return gpu.apply_clock_limit(sm_clock_mhz)

    def release(self) -> tuple[str, ...]:
        """The agent stops in order: restore now, unless something is held; returns failures."""
        self.lose()
        self._restore_at_s = self._clock.monotonic_s()
        if self.held_until is not None:
            return ()
        return self._restore("released")

    def lose(self) -> None:
        """The agent is gone: its grace time begins."""
        if self._holder is None:
            return
        log.info("%s is gone", self._holder)
        self._holder = None
        self._restore_at_s = self._clock.monotonic_s() + self._options.grace_s
        if self._leases.record is not None:
            self._save(self._leases.record)

    # --- without one -----------------------------------------------------------------------

    def look(self) -> None:
        """Do what is due now without an agent; call it at least every second."""
        if self._holder is not None:
            return
        now_s = self._clock.monotonic_s()
        found = self._to_hold()
        if found is not None:
            cause, end_at, limits_w = found
            if end_at != self._enforced or now_s >= self._enforce_at_s:
                if end_at != self._enforced:
                    log.warning("no agent: limits are held until %s (%s)", end_at, cause)
                self._enforced, self._enforce_at_s = end_at, now_s + ENFORCE_S
                self._lower(limits_w, cause)
        elif self._may_restore(now_s):
            self._restore_at_s = now_s + RETRY_RESTORE_S
            for failure in self._restore("no agent"):
                log.error("not restored: %s", failure)

    def close(self) -> tuple[str, ...]:
        """The helper stops in order: restore, unless something has to be held."""
        self.lose()
        if self._to_hold() is not None or self.held_until is not None:
            self.look()
            return ()
        return self._restore("stopped")

    def _may_restore(self, now_s: float) -> bool:
        left_over = self._originals.pending or self._originals.pending_clocks
        return bool(left_over) and now_s >= self._restore_at_s and self.held_until is None

    def _to_hold(self) -> tuple[str, datetime, Mapping[str, float]] | None:
        """Cause, end and limits by GPU of what has to be held now."""
        record, now = self._leases.record, self._now()
        if record is None:
            return None
        hold = record.active_hold(now)
        if hold is not None:
            return "hold", hold.end_at, record.limits_in(hold)
        safe_w, until = record.safe_limit_w, record.lease_until
        if self._rebooted and safe_w is not None and until is not None and now < until:
            return "reboot", until, dict.fromkeys(record.uuids, safe_w)
        return None

    def _lower(self, limits_w: Mapping[str, float], cause: str) -> None:
        """Write a limit where the device's is above it; holding never raises one."""
        for uuid, limit_w in limits_w.items():
            gpu = self._gpus.get(uuid)
            if gpu is None:
                continue
            try:
                target_w = self._options.bounds.clamp_w(limit_w, gpu.limit_range)
                if gpu.observe().power_limit_w <= target_w + TOLERANCE_W:
                    continue
            except DeviceError as error:
                log.warning("GPU %s: cannot be held: %s", uuid, error)
                continue
            problem = self._remember(uuid)
            if problem is not None:
                log.error("GPU %s: held without a stored original: %s", uuid, problem)
            with self._audit.because(cause):
                gpu.apply_power_limit(target_w)

    def _restore(self, cause: str) -> tuple[str, ...]:
        with self._audit.because(cause):
            return self._originals.restore(self._gpus.values())

    def _remember(self, uuid: str) -> str | None:
        if uuid in self._originals.pending:
            return None
        try:
            self._originals.remember({uuid: self._gpus[uuid].observe().power_limit_w})
        except DeviceError as error:
            return f"its limit cannot be read: {error}"
        except OSError as error:
            return f"its original limit cannot be stored: {error}"
        return None

    def _save(self, record: LeaseRecord) -> None:
        """Keep a record where it says anything new, with the limits held in an active hold.

        A limit written before the hold began was not meant for it and does not count.
        """
        before = self._leases.record
        hold = record.active_hold(max(self._clock.now(), record.written_at))
        held_w: dict[str, float] = {}
        if hold is not None:
            held_w = {
                uuid: power_w
                for uuid, (at, power_w) in self._written_w.items()
                if uuid in record.uuids and at >= hold.start_at
            }
            if before is not None and before.held_until == hold.end_at:
                held_w = {**before.held_w, **held_w}
        until = hold.end_at if hold is not None else None
        told = msgspec.structs.replace(record, held_w=held_w, held_until=until)
        if _same(before, told):
            return
        if _only_later(before, told):
            self._leases.record = told  # the disk says to hold it sooner, which does as well
            return
        try:
            self._leases.save(told)
        except OSError as error:
            log.error("what has to be held is not on the disk: %s", error)  # noqa: TRY400 - the message says it all

    def _now(self) -> datetime:
        """Return wall time; never before the last record, for then a reboot set the clock back."""
        now, record = self._clock.now(), self._leases.record
        return now if record is None else max(now, record.written_at)

    def _wait_s(self, key: str) -> float:
        return self._rate.wait_s(key, self._clock.monotonic_s())

    def _refuse(
        self, what: str, uuid: str, asked: float, why: str, retry_after_s: float | None = None
    ) -> ActuationResult:
        result = ActuationResult(Outcome.REFUSED, asked, None, why, retry_after_s)
        with self._audit.because(self._holder or "nobody"):
            return self._audit.refused(what, uuid, result)


def _bounded(holds: Iterable[Hold], last_at: datetime) -> list[Hold]:
    """Cut holds at ``last_at``, so that no agent can leave a limit behind for ever."""
    return [
        msgspec.structs.replace(hold, end_at=min(hold.end_at, last_at))
        for hold in holds
        if hold.start_at < last_at
    ]


def _same(before: LeaseRecord | None, after: LeaseRecord) -> bool:
    """Whether nothing new is said; a clock that was set back is new."""
    return (
        before is not None
        and after.written_at >= before.written_at
        and after == msgspec.structs.replace(before, written_at=after.written_at)
    )


def _only_later(before: LeaseRecord | None, after: LeaseRecord) -> bool:
    """Whether nothing is new but that holds begin later, as all do under a live grant."""
    if before is None or len(before.holds) != len(after.holds):
        return False
    pairs = zip(before.holds, after.holds, strict=True)
    moved = msgspec.structs.replace(after, holds=before.holds)
    return _same(before, moved) and all(
        new.start_at >= old.start_at and new == msgspec.structs.replace(old, start_at=new.start_at)
        for old, new in pairs
    )
