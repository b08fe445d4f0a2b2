"""What a node follows: its schedule, and a live grant while that lasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.grant import Grant, Held
    from pals_grid.core.ports import Clock
    from pals_grid.node.grants import LiveGrants
    from pals_grid.node.lease import Lease, OrderedSchedule
    from pals_grid.node.report import ActiveEnvelope

SWITCH_S = 10.0
"""Nodes hear of a new schedule at different moments; within so many seconds all have."""


class Course:
    """Puts schedule and grant together; one thread asks it, at every tick.

    For ``SWITCH_S`` after a new schedule the lesser of the old and the new one counts, where both
    hold: while some nodes follow the one and some the other, none draws what another still has.
    A new schedule that takes power away acts at once, against a grant from before it, too. No
    grant lifts the envelope above ``most_w``, the most that the node is said to draw.
    """

    def __init__(
        self,
        lease: Lease,
        clock: Clock,
        grants: LiveGrants | None = None,
        most_w: float = math.inf,
    ) -> None:
        self._lease = lease
        self._clock = clock
        self._grants = grants
        self.most_w = most_w
        self._ordered = lease.ordered
        self._leaving: tuple[tuple[OrderedSchedule, float], ...] = ()
        self._outdated: Grant | None = None

    def envelope_at(self, at: datetime) -> ActiveEnvelope:
        """What the node may draw now, wall time ``at``."""
        now_s = self._clock.monotonic_s()
        held = self._grants.held if self._grants is not None else None
        ordered = self._lease.ordered
        if ordered is None:
            envelope = self._lease.envelope_at(at)
        else:
            if ordered is not self._ordered:
                self._switch(ordered, at, now_s, held)
            envelope = ordered.envelope_at(at)
            if self._leaving:
                envelope = self._in_both(envelope, at, now_s)
        return envelope if held is None else self._granted(envelope, held, now_s)

    def is_binding_at(self, at: datetime) -> bool:
        """Whether the site's own limit binds now, or a grant is in force."""
        held = self._grants.held if self._grants is not None else None
        in_force = held is not None and self._clock.monotonic_s() < held.end_s
        return in_force or self._lease.is_binding_at(at)

    def _switch(
        self, ordered: OrderedSchedule, at: datetime, now_s: float, held: Held | None
    ) -> None:
        before, self._ordered = self._ordered, ordered
        if before is None or before.schedule == ordered.schedule:
            return
        self._leaving = (*self._leaving, (before, now_s + SWITCH_S))
        if ordered.envelope_at(at).power_max_w < before.envelope_at(at).power_max_w:
            self._outdated = held.grant if held is not None else None

    def _in_both(self, envelope: ActiveEnvelope, at: datetime, now_s: float) -> ActiveEnvelope:
        self._leaving = tuple(item for item in self._leaving if now_s < item[1])
        if envelope.reason is None:
            return envelope
        others = [schedule.envelope_at(at) for schedule, _ in self._leaving]
        least_w = min(
            (one.power_max_w for one in others if one.reason is not None), default=math.inf
        )
        return _with_most(envelope, min(envelope.power_max_w, least_w))

    def _granted(self, envelope: ActiveEnvelope, held: Held, now_s: float) -> ActiveEnvelope:
        scheduled_w = envelope.power_max_w
        power_w = held.power_w_at(now_s, scheduled_w)
        if power_w > scheduled_w:
            is_outdated = held.grant is self._outdated
            power_w = scheduled_w if is_outdated else max(scheduled_w, min(power_w, self.most_w))
        return _with_most(envelope, power_w, held)


def _with_most(
    envelope: ActiveEnvelope, power_w: float, held: Held | None = None
) -> ActiveEnvelope:
    least_w = min(envelope.power_min_w, power_w)
    return replace(envelope, power_min_w=least_w, power_max_w=power_w, held=held)
