"""A live grant: power lent to a node for seconds, inside the site's budget.

Service and node share no clock. A lease is a length that counts from the moment at which the node
*asked*, on the node's own monotonic clock; the answer was made later, so the node lets go before
the service reckons with it. An answer that took longer than ``REPLY_AGE_S`` is not taken, so that
the service knows, too, how long a node keeps a smaller share at least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REPLY_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What a node may draw, at node boundary, for ``lease_s`` from when it asked.

    A node obeys the highest ``(epoch, sequence)`` that it has seen; ``epoch`` is the allocator's.
    """

    epoch: int
    sequence: int
    power_w: float
    lease_s: float

    @property
    def key(self) -> tuple[int, int]:
        """Order among grants."""
        return (self.epoch, self.sequence)


@dataclass(frozen=True, slots=True)
class Held:
    """A grant as a node holds it, until ``end_s`` on the node's monotonic clock.

    ``only_lowers``: it is a bound on the schedule, never a raise.
    """

    grant: Grant
    end_s: float
    only_lowers: bool = False

    def power_w_at(self, now_s: float, scheduled_w: float) -> float:
        """What the node may draw: the grant while its lease holds, else its schedule."""
        if now_s >= self.end_s:
            return scheduled_w
        return min(scheduled_w, self.grant.power_w) if self.only_lowers else self.grant.power_w


class GrantHolder:
    """A node's side: the grant in force, its schedule where none is. Times are monotonic, in s.

    ``kept`` is the grant that was in force before a restart, of which no age is known: for its
    whole lease from ``now_s`` it holds as a bound on the schedule, never as a raise. One thread
    takes grants; any may read ``held``, which is replaced as a whole.
    """

    def __init__(self, kept: Grant | None = None, now_s: float = 0.0) -> None:
        self.held = Held(kept, now_s + kept.lease_s, only_lowers=True) if kept else None

    def after(self, grant: Grant, asked_s: float, now_s: float) -> Held | None:
        """Return what would be held with ``grant``; None where it is too old, or older.

        The same grant again prolongs it. Taking one twice, late or out of order does no harm.
        """
        if now_s - asked_s > REPLY_AGE_S:
            return None
        held, end_s = self.held, asked_s + grant.lease_s
        if held is None or grant.key > held.grant.key:
            return Held(grant, end_s)
        if grant.key < held.grant.key:
            return None
        return held if held.only_lowers else Held(held.grant, max(held.end_s, end_s))

    def take(self, grant: Grant, asked_s: float, now_s: float) -> bool:
        """Obey ``grant`` from now on; False where it is not taken."""
        found = self.after(grant, asked_s, now_s)
        self.held = found or self.held
        return found is not None

    @property
    def grant(self) -> Grant | None:
        """The newest grant taken, also when it has ended: what the node acknowledges."""
        return self.held.grant if self.held is not None else None

    @property
    def end_s(self) -> float:
        """When the grant ends; minus infinity where there never was one."""
        return self.held.end_s if self.held is not None else -math.inf

    def power_w_at(self, now_s: float, scheduled_w: float) -> float:
        """What the node may draw at a time."""
        return scheduled_w if self.held is None else self.held.power_w_at(now_s, scheduled_w)
