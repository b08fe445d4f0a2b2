"""Simulated nodes under live grants: what goes wrong, what came of it, and each node's own side."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import NodeCapability, PowerCurve
from pals_grid.node.course import Course
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.lease import Lease
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_AT = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, by message or by node and hour; ``late_ratio`` are seconds late.

    Of what an allocator writes, as much is late by up to ``write_late_s``, and ``unwritten_ratio``
    never arrives. The database's clock is set ``clock_steps_per_h`` times, by up to half a second.
    """

    lost_ratio: float = 0.05
    doubled_ratio: float = 0.03
    late_ratio: float = 0.03
    late_s: float = 12.0
    cut_off_per_h: float = 0.5
    agent_crashes_per_h: float = 0.3
    machine_crashes_per_h: float = 0.1
    lies_per_h: float = 0.1
    meter_noise_ratio: float = 0.01
    takeovers_per_h: float = 0.5
    drift_ratio: float = 5e-4
    write_late_s: float = 8.0
    unwritten_ratio: float = 0.02
    clock_steps_per_h: float = 6.0


@dataclass(frozen=True, slots=True)
class Chance:
    """What goes wrong, the draws that decide when, and how often it did."""

    rng: random.Random
    faults: Faults
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of a run. ``commanded_over_w`` is the worst excess of what was commanded, in W.

    ``seconds_over`` counts whole seconds in which the site drew 2 % more than its budget. Tokens
    are served, and would be with the plan's schedule alone.
    """

    seconds: int
    changes: int
    commanded_over_w: float
    seconds_over: int
    worst_draw_ratio: float
    served_tokens: float
    scheduled_tokens: float
    demanded_tokens: float
    counts: dict[str, int]

    @property
    def over_ratio(self) -> float:
        """Share of seconds over."""
        return self.seconds_over / max(1, self.seconds)


class Machine:
    """One node: what an agent follows and keeps, its own clock, its health and its work.

    It is its agent's clock: wall time is everybody's, the monotonic one its own. ``true_s`` tells
    the world's time.
    """

    def __init__(self, node: NodeCapability, chance: Chance, true_s: Callable[[], float]) -> None:
        self.index = node.node_id
        self._most_w = node.power_max_w
        self._true_s = true_s
        rng = chance.rng
        self.rate = 1 + rng.uniform(-1, 1) * chance.faults.drift_ratio
        self.offset_s = rng.uniform(0, 1e6)
        self.lease = Lease(None, 0.0)
        self._disk = GrantFile(None)
        self.start()
        self.limit_w = self.counted_w = 0.0
        self.died_s = self.frozen_until_s = 0.0
        self.incarnation = 0
        self.lies_until_s = self.cut_off_until_s = -1.0
        self.load = rng.uniform(0.2, 1.1)
        self.drawn_w = 0.0

    def start(self) -> None:
        """Start the machine and an agent on it, with what is on the disk."""
        self.agent_up = self.machine_up = True
        self.grants = LiveGrants(self._disk, self)
        self._course = Course(self.lease, self, self.grants, self._most_w)

    def now(self) -> datetime:
        """Wall time."""
        return START_AT + timedelta(seconds=self._true_s())

    def monotonic_s(self) -> float:
        """The node's monotonic clock."""
        return self.offset_s + self.rate * self._true_s()

    def at_s(self, own_s: float) -> float:
        """When the node's clock shows ``own_s``."""
        return (own_s - self.offset_s) / self.rate

    def follow(self, version: int, slots: Sequence[tuple[float, float, float]]) -> None:
        """Take a schedule: start and end in s, power in W."""
        self.lease.store(
            EnvelopeSchedule(
                node_id=self.index,
                version=version,
                issued_at=START_AT,
                safe_power_w=0.0,
                intervals=[
                    EnvelopeInterval(
                        start_at=START_AT + timedelta(seconds=start_s),
                        end_at=START_AT + timedelta(seconds=end_s),
                        power_min_w=0.0,
                        power_max_w=power_w,
                        target_tokens_per_s=0.0,
                        reason=Reason.DEMAND,
                    )
                    for start_s, end_s, power_w in slots
                ],
            )
        )

    def commanded_w(self) -> float:
        """What it was told to go by, of all that counts now; ``limit_w`` is what it goes by.

        While an agent that died is not missed yet, limits stay. A schedule that falls meanwhile is
        followed late, with live grants or without: none of them can make up for that.
        """
        if not self.machine_up or self.agent_up or self._true_s() >= self.frozen_until_s:
            return self.limit_w
        held = self.grants.held
        lasted = held is not None and self.at_s(held.end_s) > self.died_s
        granted_w = held.grant.power_w if held is not None and lasted else 0.0
        return min(self.limit_w, max(granted_w, self.lease.envelope_at(self.now()).power_max_w))

    def goes_by_w(self) -> float:
        """What it goes by: its agent, without one what its helper holds."""
        if not self.machine_up:
            return 0.0
        if self.agent_up:
            return self._course.envelope_at(self.now()).power_max_w
        if self._true_s() < self.frozen_until_s:
            return self.limit_w
        scheduled_w = self.lease.envelope_at(self.now()).power_max_w
        grant = self._disk.grant
        return min(scheduled_w, grant.power_w) if grant is not None else scheduled_w


def make_fleet(count: int, seed: int) -> list[NodeCapability]:
    """Nodes of six kinds, with curves as tables give them."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    curves = []
    for _ in range(6):
        floor_w, most = rng.uniform(900, 1800), rng.uniform(1500, 6000)
        top_w = floor_w * rng.uniform(2.0, 3.0)
        points = [
            (most * k / 10, floor_w + (top_w - floor_w) * (k / 10) ** 1.6) for k in range(1, 11)
        ]
        curves.append(PowerCurve.lower_hull(floor_w, points))
    chosen = [rng.choice(curves) for _ in range(count)]
    return [NodeCapability(i, f"n{i}", c.floor_w, c.max_power_w, c) for i, c in enumerate(chosen)]
