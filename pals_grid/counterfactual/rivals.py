"""A plan's rivals over the same slots, with the same work, on the same nodes.

They look at no limit of the site: where they break the grid connection or an event, that is a
finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.budget import Finding
from pals_grid.core.intervals import Interval
from pals_grid.counterfactual import names
from pals_grid.counterfactual.course import Course
from pals_grid.counterfactual.ledger import NOTHING, Ledger
from pals_grid.counterfactual.policies import (
    AsItComes,
    FixedLimit,
    Threshold,
    best_rule,
    lowest_line,
)
from pals_grid.counterfactual.serving import Amount, energy_kwh, serve_slots
from pals_grid.planner.caps import caps_for
from pals_grid.planner.costs import cost_per_j
from pals_grid.planner.grid import cut_slots
from pals_grid.planner.work import work_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pals_grid.core.budget import PlanRequest, PlanSlot
    from pals_grid.counterfactual.plant import Plant
    from pals_grid.counterfactual.policies import Policy, Rule
    from pals_grid.counterfactual.serving import Floats, Trace
    from pals_grid.planner.caps import Cap
    from pals_grid.planner.work import Work

RIVALS = (
    names.NO_CONTROL,
    names.STATIC,
    names.AS_IT_COMES,
    names.PRICE_THRESHOLD,
    names.CARBON_THRESHOLD,
)
ABOVE_W = 1.0


class Absent(Exception):
    """A rival that cannot be worked out; the message says why."""


@dataclass(frozen=True)
class Expected:
    """A signal as it is expected to be: a threshold's level is a quantile of these same slots.

    Rules are tuned on the very slots that they are judged by, more than an operator could do: the
    one that misses least, and of those the cheapest.
    """

    values: Floats
    _levels: dict[float, float] = field(default_factory=dict)

    def value(self, slot: int) -> float | None:
        """As the port says."""
        value = float(self.values[slot])
        return None if np.isnan(value) else value

    def level(self, slot: int, quantile: float) -> float:  # noqa: ARG002 - the same in all
        """As the port says."""
        if quantile not in self._levels:
            self._levels[quantile] = float(np.nanquantile(self.values, quantile))
        return self._levels[quantile]


@dataclass(frozen=True)
class Rivals:
    """Everything that the rivals of one request share. ``modelled``: the plant knows every node."""

    request: PlanRequest
    plant: Plant
    modelled: bool

    @cached_property
    def slots(self) -> tuple[PlanSlot, ...]:
        """As the planner cuts them."""
        return cut_slots(self.request.slots, self.request.events)

    @cached_property
    def duration_s(self) -> Floats:
        """Length of every slot."""
        return np.array([slot.interval.duration_s for slot in self.slots])

    @cached_property
    def work(self) -> Work:
        """The planner's own view of what is to be served."""
        return work_of(self.request, self.slots)

    def course(self, name: str) -> Course:
        """Serve every slot as a rival would.

        Raises:
            Absent: when there is no model of it, or no signal.
        """
        policy, settings = self._policy(name)
        trace = self._serve(policy)
        power_w = self._power_w(policy, trace)
        lost = np.zeros(len(self.slots))
        lost[-1] = trace.unserved_tokens if trace.unserved_tokens > NOTHING else 0.0
        return Course(
            name=name,
            settings=settings,
            slots=self.slots,
            limit_w=None,
            power_w=power_w,
            served=trace.tokens,
            late=trace.late_at_once + trace.late_waiting,
            lost=lost,
            reasons=("",) * len(self.slots),
            findings=tuple(self._breaches(power_w)),
        )

    def _policy(self, name: str) -> tuple[Policy, str]:
        if name == names.AS_IT_COMES:
            return AsItComes(self.plant, self.duration_s), ""
        if name == names.NO_CONTROL:
            fixed = FixedLimit(self.plant.static_lines[-1], self.duration_s)
            return fixed, fixed.words if self.modelled else "straight line, no model of its engine"
        if name == names.STATIC:
            if not self.modelled:
                raise Absent("there is no model of the nodes' engines under a fixed power limit")
            peak = max(slot.demand_tokens_per_s for slot in self.slots)
            fixed = FixedLimit(lowest_line(self.plant, peak), self.duration_s)
            return fixed, fixed.words
        return self._threshold(name)

    def _threshold(self, name: str) -> tuple[Policy, str]:
        of_price = name == names.PRICE_THRESHOLD
        values = np.array(
            [
                np.nan if value is None else value
                for slot in self.slots
                for value in [slot.price_per_mwh if of_price else slot.carbon_g_per_kwh]
            ]
        )
        if np.isnan(values).all():
            what = "price" if of_price else "carbon intensity"
            raise Absent(f"no {what} is known or forecast for these hours")
        signal = Expected(values)
        costs = (cost_per_j(self.request.policy, slot) for slot in self.slots)
        per_j = np.array([np.nan if cost is None else cost for cost in costs])

        def cost(rule: Rule) -> tuple[float, float]:
            policy = Threshold(self.plant, self.duration_s, signal, rule)
            trace = self._serve(policy)
            energy = energy_kwh(self._power_w(policy, trace), self.duration_s)
            missed = trace.late_at_once_tokens + trace.late_waiting_tokens
            return round(missed), Amount.of(energy, per_j).value or 0.0

        rule = best_rule(cost)
        return Threshold(self.plant, self.duration_s, signal, rule), rule.words

    def _serve(self, policy: Policy) -> Trace:
        count = len(self.slots)
        ledger = Ledger(count)
        for queue in self.work.queues:
            due = np.diff(queue.waiting_due, prepend=0.0)
            for slot in np.flatnonzero(due > 0).tolist():
                ledger.arrive(float(due[slot]), slot)
            ledger.arrive(queue.waiting - float(queue.waiting_due[-1]), count - 1)
        at_once = (self.work.at_once * self.duration_s).tolist()

        def arrivals(slot: int) -> tuple[float, list[tuple[float, int]]]:
            later = [
                (float(queue.arrivals[slot]), int(queue.last[slot])) for queue in self.work.queues
            ]
            return at_once[slot], later

        return serve_slots(policy, arrivals, ledger, 0, count)

    def _power_w(self, policy: Policy, trace: Trace) -> Floats:
        reserved_w = np.array([slot.reserved_w for slot in self.slots])
        power_w: Floats = policy.draw_w(trace.tokens / self.duration_s) + reserved_w
        return power_w

    def _breaches(self, power_w: Floats) -> Iterator[Finding]:
        """Where the site's power is above what it may be, by what sets the cap."""
        intervals = [slot.interval for slot in self.slots]
        caps = caps_for(intervals, self.request.policy, self.request.events)
        above_w = (power_w - np.array([cap.limit_w for cap in caps])).tolist()
        over = [i for i, watts in enumerate(above_w) if watts > ABOVE_W]
        for run in _runs(over, caps):
            cap, worst_w = caps[run[0]], max(above_w[i] for i in run)
            yield Finding(
                cap.constraint,
                cap.event.order.name if cap.event else "",
                Interval(intervals[run[0]].start_at, intervals[run[-1]].end_at),
                worst_w,
                "W",
                f"{cap.words} limits the site to {cap.limit_w / 1000:.2f} kW; it draws up to"
                f" {worst_w / 1000:.2f} kW more, for nothing holds it.",
            )


def _runs(over: Sequence[int], caps: Sequence[Cap]) -> list[list[int]]:
    """Slots one after the other that break the same cap."""
    runs: list[list[int]] = []
    for i in over:
        if runs and runs[-1][-1] == i - 1 and caps[i] == caps[i - 1]:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs
