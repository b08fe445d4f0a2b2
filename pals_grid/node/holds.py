"""What a node's schedule asks of whoever looks after its limits while the agent is away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pals_grid.node.helper.messages import MAX_HOLDS, Beat, Hold
from pals_grid.node.lease import is_binding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pals_grid.core.grant import Grant, Held
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

AHEAD = timedelta(seconds=9)
"""While a grant is in force holds begin so much later: less than the helper's grace time."""
AHEAD_LEAST = timedelta(seconds=2)
SAME_END = timedelta(seconds=0.2)
LAST = timedelta(seconds=1)
"""A hold that ends before then begins so long before its end: until then nothing is lifted."""


class BeatMaker:
    """Makes the beats of one node.

    Made anew only when the schedule or the grant is, an interval or a lease ended, or the clock
    was set back.

    Under a live grant limits may stand above the schedule, and the helper keeps in a hold what was
    written in it. So while a grant is in force holds begin a little later, again and again: what
    was written counts in none, and without the agent the lesser of schedule and grant is held.
    """

    def __init__(self, hardware: NodeHardware) -> None:
        self._share = _GpuShare(hardware)
        self._schedule: EnvelopeSchedule | None = None
        self._grant: Grant | None = None
        self._loan: Loan | None = None
        self._begin_at: datetime | None = None
        self._from: datetime | None = None
        self._until: datetime | None = None
        self._beat = Beat(uuids=self._share.uuids)

    def beat_at(
        self,
        schedule: EnvelopeSchedule | None,
        now: datetime,
        held: Held | None = None,
        now_s: float = 0.0,
    ) -> Beat:
        """Return what holds from ``now``, on the monotonic clock ``now_s``, without the agent."""
        if schedule is None:
            return self._beat
        grant = held.grant if held is not None and now_s < held.end_s else None
        ended = self._until is not None and now >= self._until
        set_back = self._from is not None and now < self._from
        same = schedule is self._schedule and grant is self._grant
        if not same or ended or set_back:
            self._schedule, self._grant, self._from = schedule, grant, now
            ends = [item.end_at for item in schedule.intervals if item.end_at > now]
            loan = self._loan = _lend(held, now, now_s, self._loan)
            if loan is not None:
                self._begin_at = now + AHEAD
                ends += [loan.end_at, self._begin_at - AHEAD_LEAST]
            self._until = min(ends, default=None)
            self._begin_at = min(self._begin_at or now, now + AHEAD)
            self._beat = plan_beat(schedule, self._share, now, self._begin_at, loan)
        return self._beat


@dataclass(frozen=True, slots=True)
class Loan:
    """A live grant as the helper's clock sees it: power at node boundary, and until when."""

    power_w: float
    end_at: datetime


def _lend(held: Held | None, now: datetime, now_s: float, before: Loan | None) -> Loan | None:
    """Put a grant into wall time; the same as ``before`` unless the clock was set."""
    if held is None or now_s >= held.end_s:
        return None
    found = Loan(held.grant.power_w, now + timedelta(seconds=held.end_s - now_s))
    if before is not None and before.power_w == found.power_w:
        moved = abs(found.end_at - before.end_at)
        return before if moved < SAME_END else found
    return found


class _GpuShare:
    """A node's power as a limit per GPU, the same for all that are steered.

    ``uuids`` are those: GPUs of an engine with a table. The others count at their highest limit.
    """

    def __init__(self, hardware: NodeHardware) -> None:
        steered = [gpu for unit in hardware.units if unit.table for gpu in unit.gpus]
        others = [gpu for unit in hardware.units if not unit.table for gpu in unit.gpus]
        self.uuids = [gpu.uuid for gpu in steered]
        self._overhead = hardware.overhead
        self._others_w = sum(gpu.limit_range.max_w for gpu in others)

    def limit_w(self, node_power_w: float) -> float:
        """Limit in W per steered GPU that keeps the node inside ``node_power_w``."""
        allowed_w = self._overhead.gpu_power_w(node_power_w) - self._others_w
        return max(0.0, allowed_w) / max(1, len(self.uuids))


def plan_beat(
    schedule: EnvelopeSchedule,
    share: _GpuShare,
    now: datetime,
    begin_at: datetime,
    loan: Loan | None = None,
) -> Beat:
    """Return the holds, from ``begin_at`` on, and the safe limit of a schedule and a grant."""
    left = sorted(
        (item for item in schedule.intervals if item.end_at > now), key=lambda item: item.start_at
    )
    holds: list[Hold] = []
    for item in left:
        if not is_binding(item):
            continue
        limit_w = share.limit_w(item.power_max_w)
        if holds and holds[-1].end_at == item.start_at and holds[-1].limit_w == limit_w:
            start_at = holds.pop().start_at
        else:
            start_at = item.start_at
        holds.append(Hold(start_at=start_at, end_at=item.end_at, limit_w=limit_w))
    least_w = min([schedule.safe_power_w, *(item.power_max_w for item in left)])
    if loan is not None:
        power_w = min(loan.power_w, _least_w(schedule, left, now, loan.end_at))
        lent = Hold(start_at=now, end_at=loan.end_at, limit_w=share.limit_w(power_w))
        holds.insert(0, lent)
        least_w = min(least_w, loan.power_w)
    return Beat(
        uuids=share.uuids,
        holds=[
            replace(hold, start_at=max(hold.start_at, min(begin_at, hold.end_at - LAST)))
            for hold in holds[:MAX_HOLDS]
        ],
        safe_limit_w=share.limit_w(least_w) if left else None,
        lease_until=left[-1].end_at if left else None,
    )


def _least_w(
    schedule: EnvelopeSchedule,
    left: Sequence[EnvelopeInterval],
    now: datetime,
    end_at: datetime,
) -> float:
    """What the schedule allows all the time from ``now`` to ``end_at``."""
    found, covered_at = [], now
    for item in left:
        if item.start_at >= end_at:
            break
        if item.start_at > covered_at:
            found.append(schedule.safe_power_w)
        found.append(item.power_max_w)
        covered_at = item.end_at
    if covered_at < end_at:
        found.append(schedule.safe_power_w)
    return min(found)
