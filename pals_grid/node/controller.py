"""One tick's decision: from what was seen and what is allowed to a frozen command per engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.fleet import DRAW_NOISE_RATIO
from pals_grid.node.deferral import DeferrableQuota
from pals_grid.node.demand import DemandEstimator
from pals_grid.node.pid import PowerGuard, ThroughputPid
from pals_grid.node.report import Mode
from pals_grid.node.select import CALM_RATIO, PointChooser, split_budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.fleet import FrontierTable, OperatingPoint
    from pals_grid.core.ports import EngineSample, NodePower
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.powermodel.overhead import NodeOverhead

THROUGHPUT_TAU_S = 10.0

BEST = "best tokens/J that meets the target"
MOST = "most throughput inside the envelope"
CHEAPEST = "cheapest point: none fits the envelope"
HELD = "; held by measured power"
STUCK = "; lowest limit: measured power is still over the envelope"
CORRECTED = "; corrected by PID"


@dataclass(frozen=True, slots=True)
class Decision:
    """For one unit: what it should be able to serve, and the command (None: left alone).

    ``tokens_deferred`` is the estimated output of the requests that may wait and do.
    """

    target_tokens_per_s: float
    command: NodeCommand | None
    tokens_deferred: float = 0.0


class NodeController:
    """Decides for all units of a node, inside the one envelope that they share."""

    def __init__(
        self,
        units: Sequence[EngineUnit],
        overhead: NodeOverhead,
        slo: Slo,
        *,
        margin_ratio: float = 0.25,
    ) -> None:
        self._units = [_UnitController(unit, slo, margin_ratio) for unit in units]
        self._overhead = overhead
        self._guard = PowerGuard()

    def set_slo(self, slo: Slo) -> None:
        """Use the site's latency objectives from now on."""
        for unit in self._units:
            unit.set_slo(slo)

    def hold_batch(self, index: int, engine: EngineSample | None, *, refused: bool) -> None:
        """Take unit ``index``'s batch size as given while its engine refuses to change it."""
        self._units[index].hold_batch(engine, refused=refused)

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Decide for every unit, in order."""
        gpu_power_w = sum(unit.power_draw_w for unit in seen)
        # What the meter shows beyond the model is there whatever the GPUs do.
        beyond_w = node_power.power_w - self._overhead.node_power_w(gpu_power_w)
        allowed_w = self._overhead.gpu_power_w(max(0.0, envelope.power_max_w - beyond_w))
        ceiling_w = self._guard.ceiling_w(gpu_power_w, allowed_w, dt_s)
        controlled = [
            (unit, view)
            for unit, view in zip(self._units, seen, strict=True)
            if unit.observe(view, dt_s, planned=envelope.mode is Mode.FOLLOWING)
        ]
        draw_w = sum(view.power_draw_w for _, view in controlled)
        self._plan([unit for unit, _ in controlled], allowed_w - (gpu_power_w - draw_w), envelope)
        over = gpu_power_w > allowed_w * (1 + DRAW_NOISE_RATIO)
        commands: dict[int, Decision] = {}
        for unit, view in controlled:
            held_w = None
            if ceiling_w is not None:
                share = view.power_draw_w / draw_w if draw_w > 0 else 1 / len(controlled)
                held_w = (ceiling_w - (gpu_power_w - draw_w)) * share / view.gpus_seen
            commands[id(unit)] = unit.decide(view, dt_s, held_w, over=over)
        nothing = Decision(0.0, None)
        return [commands.get(id(unit), nothing) for unit in self._units]

    @staticmethod
    def _plan(units: list[_UnitController], budget_w: float, envelope: ActiveEnvelope) -> None:
        """Give each unit its target and its part of the budget, then pass on what is unused."""
        most = sum(unit.max_tokens_per_s for unit in units)
        for unit in units:
            part = unit.max_tokens_per_s / most if most > 0 else 0.0
            granted = envelope.target_tokens_per_s * part
            unit.set_target(None if envelope.mode is Mode.SAFE else granted)
        shares_w = (
            split_budget(
                budget_w, [unit.need_w for unit in units], [unit.floor_w for unit in units]
            )
            if units
            else []
        )
        unused_w = 0.0
        for unit, share_w in sorted(
            zip(units, shares_w, strict=True), key=lambda pair: pair[0].need_w - pair[1]
        ):
            unused_w = unit.choose(share_w + unused_w)


class _UnitController:
    """The state of one unit's control between ticks."""

    def __init__(self, unit: EngineUnit, slo: Slo, margin_ratio: float) -> None:
        self._unit = unit
        self._slo = slo
        self._demand = DemandEstimator(slo.ttft_s, margin_ratio=margin_ratio)
        self._pid = ThroughputPid()
        self._quota = DeferrableQuota()
        self._point: OperatingPoint | None = None
        self._fits = True
        self._meets = True
        self._budget_w = 0.0
        self._room_w = 0.0
        self._demanded = 0.0
        self._target = 0.0
        self._granted: float | None = None
        self._throughput: float | None = None
        self._unseen_s = 0.0
        self._fixed_batch: int | None = None
        self._chooser: PointChooser | None = None
        if unit.table is not None:
            self._chooser = PointChooser(unit.table.points, slo.planned_itl_s)
            self._low_w = max(gpu.limit_range.min_w for gpu in unit.gpus)
            self._high_w = min(gpu.limit_range.max_w for gpu in unit.gpus)

    @property
    def _choice(self) -> PointChooser:
        assert self._chooser is not None  # only units with a table are controlled
        return self._chooser

    @property
    def max_tokens_per_s(self) -> float:
        return self._choice.max_tokens_per_s

    @property
    def need_w(self) -> float:
        return self._choice.need_w(self._target)

    @property
    def floor_w(self) -> float:
        return min(self._choice.min_power_w, self.need_w)

    def set_slo(self, slo: Slo) -> None:
        self._slo = slo
        self._demand.ttft_slo_s = slo.ttft_s
        self._rank()

    def hold_batch(self, engine: EngineSample | None, *, refused: bool) -> None:
        fixed = self._nearest_batch(engine) if refused else None
        if fixed != self._fixed_batch:
            self._fixed_batch = fixed
            self._rank()

    def _nearest_batch(self, engine: EngineSample | None) -> int:
        """Return the table's batch size for the engine's own, which it may not tell."""
        assert self._unit.table is not None
        batches = sorted({point.max_num_seqs for point in self._unit.table.points})
        found = engine.max_num_seqs if engine is not None else None
        if found is None:
            return batches[-1]
        return max((b for b in batches if b <= found), default=batches[0])

    def _rank(self) -> None:
        table: FrontierTable | None = self._unit.table
        if table is not None:
            fixed = self._fixed_batch
            points = [p for p in table.points if fixed is None or p.max_num_seqs == fixed]
            self._chooser = PointChooser(points, self._slo.planned_itl_s)

    def observe(self, view: UnitObservation, dt_s: float, *, planned: bool) -> bool:
        """Take the samples; returns whether this unit can be controlled at this tick."""
        self._unseen_s += dt_s
        if self._chooser is None or view.engine is None or view.gpus_seen == 0:
            return False
        dt_s, self._unseen_s = self._unseen_s, 0.0  # counters rose over all of it
        self._demanded = self._demand.update(view.engine, dt_s, interactive_only=planned)
        now = self._demand.tokens_out_per_s
        before = self._throughput if self._throughput is not None else now
        self._throughput = before + (now - before) * (1 - math.exp(-dt_s / THROUGHPUT_TAU_S))
        self._quota.observe(view.engine, now, dt_s)
        return True

    def set_target(self, granted_tokens_per_s: float | None) -> None:
        self._granted = granted_tokens_per_s
        wanted = max(self._demanded, granted_tokens_per_s or 0.0)
        self._target = min(wanted, self.max_tokens_per_s)

    def choose(self, budget_w: float) -> float:
        """Choose a point inside the budget; returns what is left of it, in watts."""
        point = self._choice.choose(budget_w, self._target, self._point)
        before, self._point = self._point, point or self._choice.cheapest
        self._fits = point is not None
        # Once short of the target, the same point has to clear it by 5 %: no flutter about it.
        calm = 1.0 if self._meets or self._point != before else 1 + CALM_RATIO
        self._meets = self._fits and self._point.tokens_per_s >= self._target * calm
        # A GPU that does not answer may still draw: its share stays its own.
        self._room_w = max(self._point.power_limit_w, budget_w / len(self._unit.gpus))
        self._budget_w = budget_w
        uses_all = self._fits and not self._meets and self._room_w > self._point.power_limit_w
        return 0.0 if uses_all else max(0.0, budget_w - self._point.gpu_power_w)

    def decide(
        self, view: UnitObservation, dt_s: float, held_w: float | None, *, over: bool
    ) -> Decision:
        """Turn the point into a command: PID, then the guard's ceiling per GPU ``held_w``.

        ``over`` says that measured power is above the envelope by more than noise.
        """
        point = self._point
        assert point is not None
        assert view.engine is not None
        limit_w, reason = self._limit(point, view.engine, dt_s)
        batch = point.max_num_seqs
        if held_w is not None and held_w < limit_w:
            reason += HELD if limit_w > self._low_w else ""
            limit_w = held_w
            if held_w < self._low_w:
                batch = self._choice.cheapest.max_num_seqs
                reason += STUCK if over else ""
        limit_w = float(math.floor(min(max(limit_w, self._low_w), self._high_w)))
        deferrable = batch
        if self._granted is not None:  # without a plan nothing is held back
            granted = min(self._granted, point.tokens_per_s)
            deferrable = self._quota.seqs(view.engine, granted, batch)
        command = NodeCommand(max(limit_w, self._low_w), batch, reason, deferrable)
        size = self._demand.tokens_out_per_request or 0.0
        return Decision(self._target, command, view.engine.requests_deferred * size)

    def _limit(self, point: OperatingPoint, engine: EngineSample, dt_s: float) -> tuple[float, str]:
        """Limit per GPU in watts before the guard, and why."""
        if not self._fits:
            return point.power_limit_w, CHEAPEST
        if not self._meets:
            return self._room_w, MOST  # the table's steps leave none of the envelope unused
        limit_w = self._corrected(point, engine, dt_s)
        corrected = abs(limit_w - point.power_limit_w) >= 1.0
        return limit_w, BEST + CORRECTED if corrected else BEST

    def _corrected(self, point: OperatingPoint, engine: EngineSample, dt_s: float) -> float:
        target = self._target
        error = (target - (self._throughput or 0.0)) / target if target > 0 else 0.0
        # A queue, or a full batch, is short of power; an engine without one is short of work.
        starved = engine.requests_waiting > 0 or engine.requests_running >= point.max_num_seqs
        error = max(0.0, error) if starved else min(0.0, error)
        return self._pid.correct(
            point.power_limit_w,
            error,
            dt_s,
            basis=(point.power_limit_w, self._budget_w, self._target),
            low_w=self._low_w,
            high_w=min(self._high_w, self._room_w),
        )
