"""What nodes may be allowed from now on, and what can be raised inside the budget at every time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.grant import REPLY_AGE_S, Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.allocator.fleet_arrays import Flags, Floats, Indices

SAME_W = 1e-6


@dataclass(frozen=True, slots=True)
class GrantRules:
    """How grants are lent.

    A grant above the node's schedule lasts ``raise_lease_s``, one inside it ``cut_lease_s``:
    whoever got more lets go before whoever gave it may take it back. Limits stay as they are for
    ``agentless_s`` when an agent dies, until the node's helper acts. ``drift_ratio`` bounds how
    differently two clocks run. Moves inside ``dead_band_ratio`` of the node's most power are not
    sent, unless the budget needs them, and a node is raised once in ``raise_every_s``. A node lies
    that draws ``lie_ratio`` more than it can have been granted ``lie_reports`` times in a row.
    ``clock_step_s`` bounds how far the clock that leases are reckoned by may be set unseen.
    """

    raise_lease_s: float = 20.0
    cut_lease_s: float = 60.0
    agentless_s: float = 10.0
    drift_ratio: float = 1e-3
    dead_band_ratio: float = 0.01
    raise_every_s: float = 10.0
    lie_ratio: float = 0.03
    lie_reports: int = 5
    clock_step_s: float = 0.0

    def held_at_most_s(self, lease_s: float) -> float:
        """How long after its issue a grant of ``lease_s`` may still be in force."""
        return lease_s * (1 + self.drift_ratio) + self.agentless_s + self.clock_step_s

    def held_at_least_s(self, lease_s: float) -> float:
        """How long after its issue a node that took it has not gone back to its schedule."""
        return lease_s * (1 - self.drift_ratio) - REPLY_AGE_S - self.clock_step_s

    @property
    def ahead_s(self) -> float:
        """How long a raise above the schedule that is made now may be in force."""
        return self.held_at_most_s(self.raise_lease_s)

    @property
    def horizon_s(self) -> float:
        """How long any grant that is made now may be in force."""
        return max(self.ahead_s, self.held_at_most_s(self.cut_lease_s))


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """The site's budget in W, and from ``step_s`` on (monotonic) the next one of its plan.

    Nodes' schedules change at the same time. More than one change within the horizon of the rules
    is not told apart: then ``next_w`` has to be the least of them.
    """

    power_w: float
    step_s: float = math.inf
    next_w: float = 0.0

    def at(self, at_s: float) -> float:
        """The budget at a time."""
        return self.next_w if at_s >= self.step_s else self.power_w


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant on its way or in force. ``issued_s`` is on the service's monotonic clock."""

    grant: Grant
    issued_s: float
    until_s: float
    """From then on no node holds it."""
    back_s: float
    """Before that a node that took it has not gone back to its schedule."""

    def handed_out_at(self, now_s: float) -> Grant | None:
        """Return the grant with the lease that is left; None when it has run out."""
        left_s = min(self.issued_s - now_s, 0.0) + self.grant.lease_s
        if left_s <= 0:
            return None
        return Grant(self.grant.epoch, self.grant.sequence, self.grant.power_w, left_s)


@dataclass(slots=True)
class NodeGrants:
    """What is known of one node: ``fallback_w`` is what its schedule allows, then ``next_w``."""

    fallback_w: float
    most_w: float
    step_s: float = math.inf
    next_w: float = 0.0
    possible: list[Issued] = field(default_factory=list)
    acknowledged: int = 0
    ended: int = 0  # highest sequence whose lease ran out
    raised_s: float = -math.inf
    draws_w: list[float] = field(default_factory=list)
    lies: bool = False
    unlike: int = 0  # reports in a row that say otherwise

    @property
    def may_be_back(self) -> bool:
        """Whether it may follow its schedule now."""
        return self.acknowledged == 0 or self.ended >= self.acknowledged

    def forget_ended(self, now_s: float) -> None:
        """Drop grants whose lease has run out; the node may be back on its schedule."""
        over = [one.grant.sequence for one in self.possible if one.until_s <= now_s]
        if over:
            self.ended = max(self.ended, *over)
            self.possible = [one for one in self.possible if one.until_s > now_s]

    def allowed_w_at(self, at_s: float) -> float:
        """The most that it may be allowed at ``at_s``, from what is known now."""
        fallback_w = self.next_w if at_s >= self.step_s else self.fallback_w
        held_w = max((one.grant.power_w for one in self.possible if one.until_s > at_s), default=0)
        back_s = min((one.back_s for one in self.possible), default=-math.inf)
        is_back = self.may_be_back or at_s >= back_s
        return max(held_w, fallback_w if is_back else 0.0)

    def count_report(self, *, over: bool, needed: int) -> None:
        """Note whether it drew more than it could; ``needed`` reports in a row change the view."""
        self.unlike = 0 if over == self.lies else self.unlike + 1
        if self.unlike >= needed:
            self.lies, self.unlike = over, 0

    @property
    def counted_w(self) -> float:
        """What a liar draws; 0 for the others."""
        return max(self.draws_w) if self.lies else 0.0


class Outlook:
    """What each node may be allowed from ``now_s`` on, at every time at which that changes.

    ``allowed_w`` is (T, N), liars with what they draw; ``budgets_w`` (T,); ``least_w`` (N,) is
    the least over time and ``inside_w`` (N,) what a node's schedule allows all the time. ``soon``
    (T,) are the times at which a short lease that is made now may be in force, ``back`` (T,) those
    by whose end it may be over; ``schedule_w`` (T, N) is what the schedules allow.
    """

    def __init__(
        self, nodes: Iterable[NodeGrants], now_s: float, rules: GrantRules, budget: SiteBudget
    ) -> None:
        found = list(nodes)
        end_s = now_s + rules.horizon_s
        grants = [one for node in found for one in node.possible]
        until_s, back_s = column(grants, "until_s"), column(grants, "back_s")
        fallback_w, next_w = column(found, "fallback_w"), column(found, "next_w")
        step_s = column(found, "step_s")
        edges = np.concatenate([[now_s, budget.step_s], step_s, until_s, back_s])
        times_s = np.unique(edges[(edges >= now_s) & (edges <= end_s)])
        self.times_s: list[float] = times_s.tolist()
        self.budgets_w = np.array([budget.at(at_s) for at_s in self.times_s])
        self.soon = times_s < now_s + rules.ahead_s
        back_from_s = now_s + rules.held_at_least_s(rules.raise_lease_s)
        self.back = np.append(times_s[1:], math.inf) > back_from_s
        # A grant inside the schedule may last until the end.
        self.inside_w = np.where(step_s < end_s, np.minimum(fallback_w, next_w), fallback_w)
        self.schedule_w = np.where(times_s[:, None] >= step_s, next_w, fallback_w)
        counts = np.fromiter((len(node.possible) for node in found), np.intp, len(found))
        power_w = column([one.grant for one in grants], "power_w")
        self.allowed_w = _allowed_w(
            found, times_s, self.schedule_w, _Held(counts, power_w, until_s, back_s)
        )
        self.least_w: Floats = self.allowed_w.min(axis=0)

    def excess_until_s(self) -> float | None:
        """When leases alone have brought all back inside the budget for good."""
        over = np.flatnonzero(self.allowed_w.sum(axis=1) > self.budgets_w)
        last = int(over[-1]) + 1
        return self.times_s[last] if last < len(self.times_s) else None


@dataclass(frozen=True, slots=True)
class _Held:
    """Grants that may be in force, node after node; ``counts`` (N,) says how many each has."""

    counts: Indices
    power_w: Floats
    until_s: Floats
    back_s: Floats

    def highest_w(self, at_s: float) -> Floats:
        """The most that each node may have been granted at a time, 0 for none."""
        return self._reduced(np.maximum, np.where(self.until_s > at_s, self.power_w, 0.0), 0.0)

    def first_back_s(self) -> Floats:
        """From when on each node may be back on its schedule."""
        return self._reduced(np.minimum, self.back_s, np.inf)

    def _reduced(self, ufunc: np.ufunc, values: Floats, nothing: float) -> Floats:
        found = np.full(len(self.counts), nothing)
        some = np.flatnonzero(self.counts)
        if len(some):
            starts = np.cumsum(self.counts) - self.counts
            found[some] = ufunc.reduceat(values, starts[some])
        return found


def column(items: Sequence[object], name: str) -> Floats:
    """One attribute of all of them."""
    return np.fromiter(map(attrgetter(name), items), np.float64, len(items))


def _allowed_w(nodes: list[NodeGrants], times_s: Floats, schedule_w: Floats, held: _Held) -> Floats:
    may_be_back = column(nodes, "may_be_back").astype(bool)
    first_back_s = np.where(may_be_back, -np.inf, held.first_back_s())
    counted_w = column(nodes, "counted_w")
    allowed = np.where(times_s[:, None] >= first_back_s, schedule_w, 0.0)
    np.maximum(allowed, counted_w, out=allowed)
    for level_w, at_s in zip(allowed, times_s.tolist(), strict=True):
        np.maximum(level_w, held.highest_w(at_s), out=level_w)
    return allowed


def within_budget(wanted_w: Floats, outlook: Outlook) -> Floats:
    """Scale raises down until the sum stays inside the budget at every time.

    What nodes hold is prolonged first, then raised; each inside the schedule first. A grant inside
    the schedule may be in force all the time; above it for the short lease, and then the node is
    back on its schedule. So a node that was cut has to have room for its whole schedule before it
    gets more; and one that holds more than its next schedule, though less than its present one, for
    the time after a short lease: else it gets no more than it may keep.
    """
    held_w = np.minimum(wanted_w, outlook.allowed_w[0])
    room = _Room(outlook.allowed_w, outlook.budgets_w)
    always, soon = np.ones_like(outlook.soon), outlook.soon
    inside_w = np.minimum(held_w, outlook.inside_w)
    inside_w, fits = room.raise_from(np.minimum(inside_w, outlook.least_w), inside_w, always)
    if not fits:
        return inside_w
    lent = held_w > outlook.inside_w
    freed = room.release(np.where(outlook.back[:, None], outlook.schedule_w, 0.0), lent)
    held_w = np.where(lent & ~freed, inside_w, held_w)
    power_w, fits = room.raise_from(inside_w, held_w, soon)
    if not fits:
        return power_w
    inside_w, fits = room.raise_from(inside_w, np.minimum(wanted_w, outlook.inside_w), always)
    power_w = np.maximum(power_w, inside_w)
    if fits:
        freed = room.release(outlook.schedule_w, wanted_w > outlook.inside_w)
        power_w, _ = room.raise_from(power_w, np.where(freed, wanted_w, power_w), soon)
    return power_w


class _Room:
    """What nodes may be allowed, (T, N), with what is raised step by step inside the budget."""

    def __init__(self, allowed_w: Floats, budgets_w: Floats) -> None:
        self._allowed_w = allowed_w
        self._bounds_w = budgets_w * (1 - 1e-12)

    def raise_from(self, base_w: Floats, wanted_w: Floats, when: Flags) -> tuple[Floats, bool]:
        """Go the part of the way to ``wanted_w`` (N,) that fits at the times ``when``.

        ``base_w`` adds nothing to what may be allowed anyway, and a part of a raise adds at most
        that part of what the whole would. Returns where it led, and whether that is all the way.
        """
        allowed_w = self._allowed_w[when]
        room_w = self._bounds_w[when] - allowed_w.sum(axis=1)
        needed_w = np.maximum(0.0, wanted_w - allowed_w).sum(axis=1)
        binds = needed_w > SAME_W
        ratio = float(np.clip(room_w[binds] / needed_w[binds], 0.0, 1.0).min(initial=1.0))
        power_w = base_w + ratio * (wanted_w - base_w)
        raised_w = np.where(when[:, None], power_w, 0.0)
        self._allowed_w = np.maximum(self._allowed_w, raised_w)
        return power_w, ratio == 1.0

    def release(self, schedule_w: Floats, wanting: Flags) -> Flags:
        """Let those of ``wanting`` go back to their schedule at any time; returns who may.

        All of them where there is room for it, else those that may do so anyway.
        """
        free = (schedule_w <= self._allowed_w).all(axis=0)
        allowed_w = np.where(wanting, np.maximum(self._allowed_w, schedule_w), self._allowed_w)
        room_w = np.maximum(0.0, self._bounds_w - self._allowed_w.sum(axis=1))
        if ((allowed_w - self._allowed_w).sum(axis=1) > room_w + SAME_W).any():
            return wanting & free
        self._allowed_w = allowed_w
        return wanting
