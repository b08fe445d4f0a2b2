"""A site under live grants, with everything that goes wrong between service and nodes.

Messages are lost, late, doubled and overtake each other; agents and machines crash; nodes draw
more than they may; meters are noisy. The allocator sees the last status of each node at its rounds
alone; what it decides reaches the table late or never, and replicas hand out what the table has; it
is replaced while its last write is on the way; the database's clock is set. Simulated from end to
end, event by event, with the production classes on both sides. What counts as commanded is what
each node really goes by at that very moment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.allocator.outlook import GrantRules
from pals_grid.evaluate.grants_agenda import Agenda
from pals_grid.evaluate.grants_allocator import GrantsAllocators, Said
from pals_grid.evaluate.grants_nodes import Chance, Faults, Machine, Tally
from pals_grid.evaluate.grants_plan import GrantsPlan
from pals_grid.evaluate.grants_table import GrantTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.grant import Grant

STATUS_S = 1.0
OVERSHOOT_RATIO = 0.02


@dataclass(slots=True)
class _Ledger:
    changes: int = 0
    commanded_over_w: float = -np.inf
    seconds_over: int = 0
    worst_draw_ratio: float = 0.0
    served: float = 0.0
    scheduled: float = 0.0
    demanded: float = 0.0


class GrantsWorld:
    """Runs one site; ``run`` may be called again to go on.

    ``slot_s`` is the plan's slot: at its start every node follows the next part of its schedule.
    """

    def __init__(
        self,
        nodes: Sequence[NodeCapability],
        seed: int,
        faults: Faults | None = None,
        rules: GrantRules | None = None,
        slot_s: float = 900.0,
        table: GrantTable | None = None,
    ) -> None:
        self._noise = np.random.default_rng(seed)
        self._chance = Chance(random.Random(seed), faults or Faults())  # noqa: S311 - a simulation
        self._agenda = Agenda()
        self._rules = rules or GrantRules(clock_step_s=1.0)
        self._fleet = FleetArrays.of(nodes)
        self._machines = [Machine(node, self._chance, lambda: self._agenda.now_s) for node in nodes]
        self._plan = GrantsPlan(self._fleet, slot_s)
        self._allocators = GrantsAllocators(
            nodes, self._plan, table or GrantTable(), self._agenda, self._chance, self._rules
        )
        self._total_w = 0.0
        self._before_w = np.zeros(len(nodes))
        self._ledger = _Ledger()
        self._tell_schedules()
        for machine in self._machines:
            self._settle(machine)
            self._agenda.after(self._chance.rng.uniform(0, STATUS_S), self._speaker(machine))
        self._allocators.start()
        self._agenda.after(slot_s, self._slot)
        self._agenda.after(1.0, self._second)

    def run(self, seconds: float) -> Tally:
        """Go on for ``seconds``."""
        end_s = self._agenda.now_s + seconds
        self._agenda.run_until(end_s)
        made = self._ledger
        return Tally(
            seconds=int(end_s),
            changes=made.changes,
            commanded_over_w=float(made.commanded_over_w),
            seconds_over=made.seconds_over,
            worst_draw_ratio=made.worst_draw_ratio,
            served_tokens=made.served,
            scheduled_tokens=made.scheduled,
            demanded_tokens=made.demanded,
            counts=dict(self._chance.counts),
        )

    # --- the plan ------------------------------------------------------------------------

    def _slot(self) -> None:
        # All nodes switch at the same instant: it is the sum after it that counts.
        for machine in self._machines:
            self._count(machine)
        self._check()
        self._tell_schedules()
        self._agenda.after(self._plan.slot_s, self._slot)

    def _tell_schedules(self) -> None:
        """Give every node its schedule to the end of the next slot."""
        plan = self._plan
        slot, slot_s = plan.slot_at(self._agenda.now_s), plan.slot_s
        for machine in self._machines:
            machine.follow(
                slot,
                [
                    (k * slot_s, (k + 1) * slot_s, powers_w[machine.index])
                    for k in (slot, slot + 1)
                    for powers_w in [plan.schedule_at(k * slot_s)]
                ],
            )

    # --- the nodes ------------------------------------------------------------------------

    def _speaker(self, machine: Machine) -> Callable[[], None]:
        def speak() -> None:
            self._live(machine)
            if machine.agent_up and machine.machine_up:
                held = machine.grants.held
                said = Said(
                    machine.index,
                    self._agenda.now_s,
                    machine.monotonic_s(),
                    held.grant.key if held is not None else (0, 0),
                    machine.drawn_w
                    * (1 + self._chance.rng.gauss(0, self._chance.faults.meter_noise_ratio)),
                    machine.load * float(self._fleet.curve_tokens_per_s[machine.index, -1]),
                    machine.incarnation,
                )
                self._send(machine, lambda: self._hear(said))
            self._agenda.after(STATUS_S, speak)

        return speak

    def _hear(self, said: Said) -> None:
        grant = self._allocators.hear(said)
        if grant is not None:
            self._send(self._machines[said.node], lambda: self._answer(said, grant))

    def _answer(self, said: Said, grant: Grant) -> None:
        machine = self._machines[said.node]
        if not machine.agent_up or machine.incarnation != said.incarnation:
            return  # the connection died with the agent that asked
        if machine.grants.take(grant, said.asked_s):
            self._settle_with(machine)

    def _live(self, machine: Machine) -> None:
        """A second of a node's life: work comes and goes, and so does the node."""
        rng, faults = self._chance.rng, self._chance.faults
        machine.load = min(1.2, max(0.05, machine.load + rng.gauss(0, 0.02)))
        if rng.random() < 1 / 600:
            machine.load = rng.uniform(0.05, 1.2)
        per_s = STATUS_S / 3600
        if rng.random() < faults.cut_off_per_h * per_s:
            self._chance.counts["cut off"] += 1
            machine.cut_off_until_s = self._agenda.now_s + rng.uniform(5, 400)
        if rng.random() < faults.lies_per_h * per_s:
            self._chance.counts["lies"] += 1
            machine.lies_until_s = self._agenda.now_s + rng.uniform(60, 600)
        if machine.machine_up and machine.agent_up:
            if rng.random() < faults.agent_crashes_per_h * per_s:
                self._crash(machine, whole=False)
            elif rng.random() < faults.machine_crashes_per_h * per_s:
                self._crash(machine, whole=True)

    def _crash(self, machine: Machine, *, whole: bool) -> None:
        self._chance.counts["machine crashes" if whole else "agent crashes"] += 1
        machine.incarnation += 1
        machine.agent_up = False
        machine.machine_up = not whole
        machine.died_s = self._agenda.now_s
        machine.frozen_until_s = self._agenda.now_s + self._chance.rng.uniform(
            0, self._rules.agentless_s
        )
        self._settle(machine)
        self._settle_at(machine, machine.frozen_until_s)
        self._agenda.after(self._chance.rng.uniform(2, 300), lambda: self._restart(machine))

    def _restart(self, machine: Machine) -> None:
        machine.start()
        self._settle_with(machine)

    def _settle_with(self, machine: Machine) -> None:
        """Settle now and when the grant that is held ends."""
        self._settle(machine)
        held = machine.grants.held
        if held is not None:
            self._settle_at(machine, machine.at_s(held.end_s))

    def _settle(self, machine: Machine) -> None:
        """Let the node go by what holds now, and look at the sum."""
        if self._count(machine) and self._agenda.now_s > 0:
            self._check()

    def _count(self, machine: Machine) -> bool:
        """Note what the node goes by and is commanded; whether the sum changed."""
        machine.limit_w, before_w = machine.goes_by_w(), machine.counted_w
        machine.counted_w = machine.commanded_w()
        self._total_w += machine.counted_w - before_w
        return machine.counted_w != before_w

    def _settle_at(self, machine: Machine, at_s: float) -> None:
        self._agenda.after(
            max(0.0, at_s - self._agenda.now_s) + 1e-6, lambda: self._settle(machine)
        )

    # --- what is looked at ------------------------------------------------------------------

    def _check(self) -> None:
        made = self._ledger
        made.changes += 1
        if made.changes % 1000 == 0:
            self._total_w = sum(one.counted_w for one in self._machines)
        over_w = self._total_w - self._plan.budget_w_at(self._agenda.now_s)
        made.commanded_over_w = max(made.commanded_over_w, over_w)

    def _second(self) -> None:
        """Draw may follow the limit of a second ago: a limit takes a moment to act."""
        limits = np.array([one.limit_w for one in self._machines])
        up = np.array([one.machine_up for one in self._machines])
        lies = np.array([one.lies_until_s > self._agenda.now_s for one in self._machines])
        demand = (
            np.array([one.load for one in self._machines]) * self._fleet.curve_tokens_per_s[:, -1]
        )
        wanted_w = self._fleet.power_w_at(demand)
        allowed_w = np.maximum(limits, self._before_w) * np.where(lies, 1.5, 1.0)
        self._before_w = limits
        noise = self._noise.normal(0, 0.01, len(limits))
        now_w = np.where(up, np.minimum(wanted_w, allowed_w) * (1 + noise), 0.0)
        for machine, power_w in zip(self._machines, now_w.tolist(), strict=True):
            machine.drawn_w = power_w
        self._allocators.set_clock_by_chance(1.0)
        made, budget_w = self._ledger, self._plan.budget_w_at(self._agenda.now_s)
        site_w = float(now_w.sum())
        made.seconds_over += site_w > budget_w * (1 + OVERSHOOT_RATIO)
        made.worst_draw_ratio = max(made.worst_draw_ratio, site_w / budget_w)
        planned = self._fleet.tokens_per_s_at(np.array(self._plan.schedule_at(self._agenda.now_s)))
        made.served += float(np.minimum(demand, self._fleet.tokens_per_s_at(limits))[up].sum())
        made.scheduled += float(np.minimum(demand, planned)[up].sum())
        made.demanded += float(demand[up].sum())
        self._agenda.after(1.0, self._second)

    # --- time and the network ---------------------------------------------------------------

    def _send(self, machine: Machine, deliver: Callable[[], None]) -> None:
        rng, faults = self._chance.rng, self._chance.faults
        if self._agenda.now_s < machine.cut_off_until_s or rng.random() < faults.lost_ratio:
            self._chance.counts["lost"] += 1
            return
        for _ in range(1 + (rng.random() < faults.doubled_ratio)):
            late = rng.random() < faults.late_ratio
            delay_s = rng.uniform(0, faults.late_s) if late else rng.expovariate(1 / 0.03)
            self._agenda.after(delay_s, deliver)
