"""Several nodes under one site budget: capabilities, forecasts and the production allocator."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.allocator.envelopes import allocate_envelopes
from pals_grid.core.budget import BudgetInterval, Reason
from pals_grid.core.fleet import NodeCapability, PowerCurve, floor_power_w
from pals_grid.core.intervals import Interval
from pals_grid.evaluate.suite.drive import START_AT, TICK_S, Slot
from pals_grid.powermodel.curve import node_power_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.evaluate.suite.drive import EngineSetup, NodeRun
    from pals_grid.powermodel.overhead import NodeOverhead

ALLOCATE_S = 5.0
FORECAST_S = 60.0
MOST_RESERVE_RATIO = 1.0
_RESERVE_STEPS = 20


class Site:
    """Nodes on one clock. ``budget_w`` is the site's at an instant; ``split`` shares it out."""

    def __init__(
        self,
        runs: Sequence[NodeRun],
        budget_w: Callable[[float], float],
        split: Callable[[float], list[Slot]],
        slot_s: float,
    ) -> None:
        self.runs = runs
        self._budget_w = budget_w
        self._split = split
        self._slot_s = slot_s

    def run_until(self, end_s: float) -> None:
        """Tick all nodes; hand out leases at every slot and every ``ALLOCATE_S`` inside it."""
        clock = self.runs[0].clock
        if not self.runs[0].ticks:
            self._lease(0.0)
            for run in self.runs:
                run.tick()
        while clock.monotonic_s() < end_s - 1e-9:
            clock.advance(TICK_S)
            now_s = clock.monotonic_s()
            if now_s % self._slot_s < 1e-6 or now_s % ALLOCATE_S < 1e-6:
                self._lease(now_s)
            for run in self.runs:
                run.tick()

    def _lease(self, now_s: float) -> None:
        for run, slot in zip(self.runs, self._split(now_s), strict=True):
            run.grant([slot])


def equal_split(
    runs: Sequence[NodeRun], budget_w: Callable[[float], float], slot_s: float
) -> Callable[[float], list[Slot]]:
    """Every node the same part of the site's budget."""

    def split(now_s: float) -> list[Slot]:
        return [Slot(now_s, now_s + 10 * slot_s, budget_w(now_s) / len(runs)) for _ in runs]

    return split


def allocated(
    runs: Sequence[NodeRun],
    setups: Sequence[EngineSetup],
    overheads: Sequence[NodeOverhead],
    budget_w: Callable[[float], float],
    slot_s: float,
) -> Callable[[float], list[Slot]]:
    """The production allocator over each node's curve, as far as its demand is expected to go."""
    nodes = [
        capability(i, setup, overhead)
        for i, (setup, overhead) in enumerate(zip(setups, overheads, strict=True))
    ]

    def split(now_s: float) -> list[Slot]:
        demands = [expected_tokens_per_s(run, now_s) for run in runs]
        asked = with_equal_margins(nodes, demands, budget_w(now_s))
        interval = BudgetInterval(
            interval=Interval(
                START_AT + timedelta(seconds=now_s), START_AT + timedelta(seconds=now_s + slot_s)
            ),
            limit_w=budget_w(now_s),
            reason=Reason.DEMAND,
            explanation="evaluation",
            price_per_mwh=None,
            carbon_g_per_kwh=None,
            demand_tokens_per_s=sum(demand or 0.0 for demand in demands),
            planned_tokens_per_s=0.0,
            expected_power_w=budget_w(now_s),
        )
        return [
            Slot(now_s, now_s + 10 * slot_s, envelope.power_max_w)
            for envelope in allocate_envelopes(interval, asked)
        ]

    return split


def with_equal_margins(
    nodes: Sequence[NodeCapability], demands: Sequence[float | None], budget_w: float
) -> list[NodeCapability]:
    """The nodes, cut off at their demand and the largest margin that the budget has for all.

    Without this the shortage of a large margin falls on the node whose tokens cost most. A node
    whose demand is not known stays whole.
    """
    asked = list(nodes)
    for step in range(_RESERVE_STEPS, -1, -1):
        margin = 1 + MOST_RESERVE_RATIO * step / _RESERVE_STEPS
        asked = [
            node if demand is None else demand_capped(node, demand * margin)
            for node, demand in zip(nodes, demands, strict=True)
        ]
        if sum(max(node.power_min_w, node.curve.max_power_w) for node in asked) <= budget_w:
            break
    return asked


def capability(index: int, setup: EngineSetup, overhead: NodeOverhead) -> NodeCapability:
    """What a node reports of itself, from its controller's table."""
    points = setup.table.points
    floor_w = overhead.node_power_w(floor_power_w(points, setup.slo.planned_itl_s))
    most_w = overhead.node_power_w(max(point.gpu_power_w for point in points))
    curve = node_power_curve(setup.table, overhead, setup.slo)
    return NodeCapability(index, setup.name, min(floor_w, most_w), most_w, curve)


def demand_capped(node: NodeCapability, tokens_per_s: float) -> NodeCapability:
    """The node with its curve cut off at a demand: no watt goes where no work is expected.

    What is left of a budget beyond all demands is shared as headroom all the same.
    """
    curve = node.curve
    if tokens_per_s >= curve.max_tokens_per_s:
        return node
    kept = [
        (tokens, power)
        for tokens, power in zip(curve.tokens_per_s, curve.power_w, strict=True)
        if tokens < tokens_per_s - 1.0
    ]
    kept = kept or [(0.0, curve.floor_w)]
    if tokens_per_s > kept[-1][0]:
        kept.append((tokens_per_s, curve.power_w_at(tokens_per_s)))
    cut = PowerCurve(tuple(t for t, _ in kept), tuple(p for _, p in kept))
    return replace(node, curve=cut)


def expected_tokens_per_s(run: NodeRun, now_s: float) -> float | None:
    """Forecast by persistence: what arrived in the last minute, in output tokens/s, and waits.

    Requests count with the mean output of those that have finished, as a service can know it
    from telemetry. None before anything has finished.
    """
    engine = run.engines[0]
    finished = engine.finished
    if not finished or now_s < FORECAST_S:
        return None
    recent = finished[-500:]
    size = sum(record.tokens_out for record in recent) / len(recent)
    since_s = now_s - FORECAST_S
    count = 0
    for request in reversed(engine.arrived):
        if request.arrival_s < since_s:
            break
        count += request.arrival_s < now_s
    return (count / FORECAST_S + run.ticks[-1].waiting / ALLOCATE_S) * size
