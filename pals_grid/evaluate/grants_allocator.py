"""The allocators of the simulated site: rounds, writes on their way to the table, takeovers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fill import Wants
from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.live import live_round
from pals_grid.allocator.outlook import SiteBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.allocator.outlook import GrantRules
    from pals_grid.core.fleet import NodeCapability
    from pals_grid.core.grant import Grant
    from pals_grid.evaluate.grants_agenda import Agenda
    from pals_grid.evaluate.grants_nodes import Chance
    from pals_grid.evaluate.grants_plan import GrantsPlan
    from pals_grid.evaluate.grants_table import GrantTable

ROUND_S = 5.0
HEARD_S = 8.0
OBLIVIOUS_S = 300.0


@dataclass(frozen=True, slots=True)
class Said:
    """A node's status as the service keeps it: ``at_s`` is wall time, ``asked_s`` its own clock."""

    node: int
    at_s: float
    asked_s: float
    key: tuple[int, int]
    power_draw_w: float
    demand_tokens_per_s: float
    incarnation: int


class GrantsAllocators:
    """One allocator in force at a time, and those before it that do not know it yet.

    Each sees the last status of every node, at its rounds alone, and writes to the table. All
    leases are reckoned by the database's clock.
    """

    def __init__(
        self,
        nodes: Sequence[NodeCapability],
        plan: GrantsPlan,
        table: GrantTable,
        agenda: Agenda,
        chance: Chance,
        rules: GrantRules,
    ) -> None:
        self._nodes, self._plan, self._table = nodes, plan, table
        self._agenda, self._chance, self._rules = agenda, chance, rules
        self._clock_offset_s = 0.0
        self._said: dict[int, Said] = {}
        self._heard_s = np.full(len(nodes), -np.inf)
        self._newest_s = np.full(len(nodes), -np.inf)
        self._demand = np.full(len(nodes), np.inf)
        self._replaced_s: dict[int, float] = {}
        self._book = self._new_book(table.epoch)
        self._book.quiet_until_s = 0.0  # nobody was here before

    def start(self) -> None:
        """Begin the rounds."""
        self._agenda.after(0.0, self._rounds_of(self._book))
        self._agenda.after(ROUND_S, self._replace_by_chance)

    def hear(self, said: Said) -> Grant | None:
        """Keep what a node says; return what the table has for it."""
        last = self._said.get(said.node)
        if last is None or said.at_s >= last.at_s:  # one that was overtaken is not kept
            self._said[said.node] = said
        self._heard_s[said.node] = self._agenda.now_s
        return self._table.read(said.node, self._database_s)

    def set_clock_by_chance(self, seconds: float) -> None:
        """Set the database's clock, as often as that happens in ``seconds``."""
        rng, faults = self._chance.rng, self._chance.faults
        if rng.random() < faults.clock_steps_per_h * seconds / 3600:
            self._clock_offset_s = rng.uniform(-0.5, 0.5)

    @property
    def _database_s(self) -> float:
        return self._agenda.now_s + self._clock_offset_s

    def _new_book(self, epoch: int) -> GrantBook:
        book = GrantBook(epoch, self._database_s, self._rules)
        for node in self._nodes:
            book.join(node.node_id, 0.0, node.power_max_w)
        return book

    def _rounds_of(self, book: GrantBook) -> Callable[[], None]:
        """Rounds of one allocator. One that was replaced goes on for a while: it does not know."""
        oblivious_s = self._chance.rng.uniform(0, OBLIVIOUS_S)

        def go() -> None:
            replaced_s = self._replaced_s.get(book.epoch, np.inf)
            if self._agenda.now_s > replaced_s + oblivious_s:
                return
            written_s = self._round(book)
            self._agenda.after(max(ROUND_S, written_s or 0.0), go)

        return go

    def _round(self, book: GrantBook) -> float | None:
        """Decide and write; how long the write is on its way."""
        plan, fleet, table = self._plan, self._plan.fleet, self._table
        true_s, now_s = self._agenda.now_s, self._database_s
        for said in self._said.values():
            self._observe(book, said)
        at_s = plan.next_slot_s(true_s)
        step_s = now_s + at_s - true_s
        schedule, after = plan.schedule_at(true_s), plan.schedule_at(at_s)
        for node_id in book.node_ids:
            book.set_fallback(node_id, schedule[node_id], step_s, after[node_id])
        heard = np.flatnonzero(true_s - self._heard_s < HEARD_S)
        rows = {int(row): int(row) for row in heard}
        budget = SiteBudget(plan.budget_w_at(true_s), step_s, plan.budget_w_at(at_s))
        done = live_round(book, rows, fleet, Wants(self._demand.copy()), budget, now_s)
        counts = self._chance.counts
        counts["rounds"] += 1
        counts["grants"] += len(done.issued)
        counts["raises"] += done.raises
        counts["liars counted"] += len(book.liars)
        written_s = self._written_after_s()
        if written_s is not None:
            self._agenda.after(written_s, lambda: table.write(book.epoch, done.issued))
        return written_s

    def _observe(self, book: GrantBook, said: Said) -> None:
        book.acknowledge(said.node, *said.key)
        if book is self._book and said.asked_s > self._newest_s[said.node]:  # not overtaken
            self._newest_s[said.node] = said.asked_s
            self._demand[said.node] = said.demand_tokens_per_s
            book.observe_draw(said.node, said.power_draw_w, self._database_s)

    def _written_after_s(self) -> float | None:
        """How long a write is on its way; None for one that never arrives."""
        rng, faults = self._chance.rng, self._chance.faults
        if rng.random() < faults.unwritten_ratio:
            self._chance.counts["unwritten"] += 1
            return None
        late = rng.random() < faults.late_ratio
        return rng.uniform(0, faults.write_late_s) if late else rng.expovariate(1 / 0.05)

    def _replace_by_chance(self) -> None:
        rng, faults = self._chance.rng, self._chance.faults
        if rng.random() < faults.takeovers_per_h * ROUND_S / 3600:
            self._agenda.after(rng.uniform(0, ROUND_S), self._take_over)
        self._agenda.after(ROUND_S, self._replace_by_chance)

    def _take_over(self) -> None:
        """Another replica goes on with a book of its own; the one before may not know it yet."""
        self._chance.counts["takeovers"] += 1
        self._replaced_s[self._book.epoch] = self._agenda.now_s
        self._book = self._new_book(self._table.take_over())
        self._agenda.after(0.0, self._rounds_of(self._book))
