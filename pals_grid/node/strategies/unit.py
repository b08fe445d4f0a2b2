"""One engine's control: what it needs, and the command inside its share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.fleet import floor_point
from pals_grid.core.ports import ClockLock
from pals_grid.node.decision import Decision
from pals_grid.node.strategies.batch_cap import BatchCap
from pals_grid.node.strategies.choice import NOTHING, LevelChooser
from pals_grid.node.strategies.demand import Demand
from pals_grid.node.strategies.explore import Explorer
from pals_grid.node.strategies.latency import LatencyPlan
from pals_grid.node.strategies.learning import Learner
from pals_grid.node.strategies.levels import LevelTable
from pals_grid.node.strategies.options import Target
from pals_grid.node.strategies.pid import ThroughputPid
from pals_grid.node.strategies.standing import HOLD_TICKS, Standing
from pals_grid.node.strategies.surface import Surface
from pals_grid.node.strategies.tiers import Need
from pals_grid.node.strategies.tracking import DrawMeter

if TYPE_CHECKING:
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.strategies.options import ControlOptions

LEAST = "least power for the load inside the latency objectives"
BEST = "best tokens/J that meets the target"
MOST = "most throughput inside the envelope"
CHEAPEST = "cheapest point: none fits the envelope"
TRIED = "; neighbour tried"
HELD = "; held by measured power"
STUCK = "; lowest limit: measured power is still over the envelope"

TARGET_MARGIN_RATIO = 0.005
KEEP_LIMIT_RATIO = 0.004
BATCH_KEEP_RATIO = 0.1
LEVELS_DOWN = 4
STEP_W = 0.25


class UnitControl:
    """The state of one unit's control between ticks; the unit has a table."""

    def __init__(self, unit: EngineUnit, slo: Slo, options: ControlOptions) -> None:
        assert unit.table is not None
        self._table = unit.table
        self._options = options
        self._slo = slo
        self._low_w = max(gpu.limit_range.min_w for gpu in unit.gpus)
        self._high_w = min(gpu.limit_range.max_w for gpu in unit.gpus)
        self._surface = Surface(
            unit.table.points,
            self._low_w,
            self._high_w,
            clocks=options.clock_lock and all(isinstance(gpu, ClockLock) for gpu in unit.gpus),
            interpolate=options.interpolate,
        )
        open_loop = options.target is not Target.ENVELOPE
        self._plan = LatencyPlan(
            slo,
            adaptive=options.latency,
            itl=open_loop or options.envelope_itl,
            ttft=open_loop,
            itl_tail=options.itl_tail,
            max_slowdown_ratio=options.max_slowdown_ratio,
        )
        self._levels = LevelTable(self._surface, self._plan)
        self._chooser = LevelChooser(self._levels, hysteresis=options.hysteresis)
        self._demand = Demand(options, unit.table.input_per_output)
        self._cap = BatchCap()
        self._meter = DrawMeter(len(unit.gpus))
        self._learner = Learner(self._levels, self._plan, options)
        self._explorer = Explorer(self._levels)
        self._pid = ThroughputPid()
        self._standing = Standing()
        self._planned_index: int | None = None
        self._scarce = False
        self._unseen_s = 0.0
        self.max_loss_ratio = unit.max_loss_ratio
        self.power_draw_w = 0.0

    # --- what the node asks ------------------------------------------------------------------

    @property
    def max_tokens_per_s(self) -> float:
        """The most that the engine serves."""
        return self._levels.most_tokens_per_s

    def set_slo(self, slo: Slo) -> None:
        """Plan by these objectives."""
        self._slo = slo
        self._plan.set_slo(slo)
        self._levels.refresh_all()

    def hold_batch(self, max_num_seqs: int | None, *, refused: bool) -> None:
        """Plan with what the engine lets be set."""
        self._cap.hold(max_num_seqs, refused=refused)
        self._levels.hold(self._cap.most)

    # --- observe -----------------------------------------------------------------------------

    def observe(self, view: UnitObservation, dt_s: float, *, planned: bool) -> bool:
        """Take the samples; returns whether this unit can be controlled at this tick."""
        self.power_draw_w = self._meter.update(view.gpus, dt_s)
        self._unseen_s += dt_s
        standing, demand = self._standing, self._demand
        engine = view.engine
        if engine is None or view.gpus_seen == 0:
            standing.settled_ticks = 0
            return False
        dt_s, self._unseen_s = self._unseen_s, 0.0  # counters rose over all of it
        before = demand.engine
        self._cap.observe(engine)
        self._levels.hold(self._cap.most)
        demand.observe(engine, dt_s, planned=planned, scarce=self._scarce)
        if before is not None and dt_s > 0:
            self._learner.learn(
                before,
                engine,
                standing,
                tokens=demand.tokens_out_per_s * dt_s,
                power_draw_w=self.power_draw_w,
                all_seen=view.gpus_seen == len(view.gpus),
                dt_s=dt_s,
            )
        index = standing.index
        demand.prepare(
            dt_s,
            headroom=self._plan.headroom,
            ttft_s=self._slo.ttft_s,
            tokens_per_s=math.inf if index is None else self._levels.fit_tokens[index],
            scarce=self._scarce,
        )
        self._levels.refresh_some()
        return True

    # --- plan --------------------------------------------------------------------------------

    def set_target(self, target_per_s: float | None) -> None:
        """Take the unit's part of the envelope's target; None without a plan."""
        self._demand.grant(target_per_s, self.max_tokens_per_s)

    def need_w(self) -> float:
        """GPU power that the unit asks for while nothing limits it."""
        index = self._planned_index = self._wish(1.0, math.inf)
        return self._power_w(index, 1.0)

    def need(self, full_w: float) -> Need:
        """What it needs at least, and with the loss that its tier allows."""
        floor_w = min(self._levels.fit_power_w[self._chooser.floor()], full_w)
        tier = self.max_loss_ratio
        if tier <= 0:
            return Need(full_w, full_w, floor_w)
        reduced_w = self._power_w(self._wish(1 - tier, math.inf), 1 - tier)
        return Need(full_w, max(floor_w, min(full_w, reduced_w)), floor_w, tier)

    @property
    def _saturated_target_per_s(self) -> float | None:
        return self._demand.saturated_target_per_s(self._standing.batch)

    def _wish(self, part: float, budget_w: float) -> int | None:
        """Level for ``part`` of what is asked for, inside a budget; None where none does it."""
        chooser, demand, current = self._chooser, self._demand, self._standing.index
        saturated = self._saturated_target_per_s
        if saturated is not None:
            target = saturated * (1 + TARGET_MARGIN_RATIO) * part
            return chooser.for_target(target, budget_w, current)
        wanted, backlog = demand.wanted_per_s, demand.backlog
        if part < 1:
            wanted, backlog = part * min(wanted, self.max_tokens_per_s), NOTHING
        if not self._options.part_load:
            return chooser.for_target(wanted, budget_w, current)
        mean = min(demand.mean_per_s, wanted)
        slower = self._plan.slowdown_ratio
        return chooser.for_load(mean, wanted, backlog, budget_w, current, slower)

    def _power_w(self, index: int | None, part: float) -> float:
        """Draw at a level under what is asked for."""
        levels = self._levels
        if index is None:
            return levels.most_power_w
        if self._saturated_target_per_s is not None or not self._options.part_load:
            return levels.fit_power_w[index]
        wanted = part * min(self._demand.wanted_per_s, self.max_tokens_per_s)
        load = min(wanted, levels.fit_tokens[index]) / levels.tokens_ratio[index]
        table_w = self._surface.levels[index].load_power_w(load, self._surface.idle_w)
        return table_w * levels.power_ratio[index]

    # --- decide ------------------------------------------------------------------------------

    def decide(self, share_w: float, held_ratio: float, note: str, *, over: bool) -> Decision:
        """Command inside ``share_w`` of GPU power.

        ``held_ratio`` below 1 scales the last limit down: measured power did not obey. ``over``
        says that it is above the envelope by more than noise.
        """
        engine, standing = self._demand.engine, self._standing
        assert engine is not None
        standing.risen_ticks += 1
        self._scarce = share_w < self._levels.most_power_w
        index, limit_w, reason = self._choose(share_w)
        cap_w = self._cap_w(index, share_w, reason)
        limited = reason == MOST or cap_w < limit_w
        if limited:
            limit_w = cap_w
        else:
            self._learner.release()
        standing.binds = limited and cap_w < self._high_w
        batch = self._next_batch(index, reason)
        if reason == CHEAPEST and over:
            note = STUCK + note
        if held_ratio < 1 and standing.limit_w is not None:
            held_w = standing.limit_w * held_ratio
            if held_w < limit_w:
                reason += HELD if limit_w > self._low_w else ""
                limit_w = held_w
        limit_w = min(max(limit_w, self._low_w), self._high_w)
        limit_w = STEP_W * math.floor(limit_w / STEP_W)
        clock_mhz = self._surface.levels[index].sm_clock_mhz
        before = standing.index
        moved = before is not None and self._surface.levels[before].sm_clock_mhz != clock_mhz
        standing.move(index, limit_w, batch, clock_moved=moved)
        self._learner.expect(standing, engine, self.power_draw_w)
        deferrable = self._demand.deferrable_seqs(self._levels.fit_tokens[index], batch)
        command = NodeCommand(limit_w, batch, reason + note, deferrable, clock_mhz)
        wanted_per_s = min(self._demand.wanted_per_s, self.max_tokens_per_s)
        return Decision(wanted_per_s, command, self._demand.tokens_deferred)

    def _choose(self, share_w: float) -> tuple[int, float, str]:
        """Level, limit per GPU and reason inside ``share_w``."""
        chooser, levels = self._chooser, self._surface.levels
        index, self._planned_index = self._planned_index, None
        if index is None or self._levels.fit_power_w[index] > share_w:
            index = self._wish(1.0, share_w)
        if index is not None:
            saturated = self._saturated_target_per_s
            if saturated is not None:
                return self._at_target(index, saturated * (1 + TARGET_MARGIN_RATIO), share_w)
            index = self._slewed(index)
            return index, levels[index].limit_w, LEAST
        index = chooser.most(share_w)
        if index is not None:
            return index, levels[index].limit_w, MOST
        index = chooser.floor()
        return index, levels[index].limit_w, CHEAPEST

    def _at_target(self, index: int, target: float, share_w: float) -> tuple[int, float, str]:
        standing = self._standing
        if not self._options.correction:
            limit_w = self._surface.levels[index].limit_w
            error = (target - self._demand.served_per_s) / target if target > 0 else 0.0
            basis = (limit_w, share_w, target)
            limit_w = self._pid.correct(
                limit_w, error, 0.5, basis=basis, low_w=self._low_w, high_w=self._high_w
            )
            return index, limit_w, BEST
        if self._options.explore:
            tried = self._explorer.next(index, target, share_w, settled=standing.settled_ticks)
            if tried is not None:
                return tried, self._surface.levels[tried].limit_w, BEST + TRIED
        limit_w = self._chooser.between(index, target)
        before_w = standing.limit_w
        near = before_w is not None and abs(limit_w - before_w) < KEEP_LIMIT_RATIO * limit_w
        return index, before_w if near and before_w is not None else limit_w, BEST

    def _slewed(self, index: int) -> int:
        """Go down half of the way a tick, or a few levels, and not at once after a rise."""
        standing, levels = self._standing, self._surface.levels
        before = standing.index
        if before is None or not self._options.hysteresis or index == before:
            return index
        if index > before:
            standing.risen_ticks = 0
            return index
        if standing.risen_ticks < HOLD_TICKS:
            return before
        same = levels[index].sm_clock_mhz == levels[before].sm_clock_mhz
        return max(index, before - max(LEVELS_DOWN, (before - index) // 2)) if same else index

    def _fit_running(self, index: int, reason: str) -> float:
        """Most requests to have inside at a level; a queue under a short budget keeps its batch."""
        levels = self._levels
        fit = levels.overload_running(index) if reason == MOST else levels.fit_running[index]
        return fit or levels.cap_running

    def _cap_w(self, index: int, share_w: float, reason: str) -> float:
        """Highest limit at which the engine, busy, stays inside its share."""
        engine, standing = self._demand.engine, self._standing
        assert engine is not None
        level = self._surface.levels[index]
        track = self._surface.track(level.sm_clock_mhz)
        correction = self._levels.corrections[level.sm_clock_mhz]
        running = self._fit_running(index, reason)
        inside = engine.requests_running + engine.requests_waiting
        if reason == MOST and inside > 0:
            running = max(1.0, min(running, inside))
        ratio = self._learner.power_ratio if standing.binds else 1.0
        limit_w = standing.limit_w or level.limit_w
        for _ in range(2):  # the correction is the limit's own: once more with what came out
            corrected = correction.at(limit_w)[1] * ratio
            limit_w = track.limit_for_w(share_w / corrected, running)
        # A GPU that does not answer may still draw: its share stays its own.
        return min(limit_w, self._high_w)

    def _next_batch(self, index: int, reason: str) -> int:
        if reason == CHEAPEST:
            return floor_point(self._table.points, self._slo.planned_itl_s).max_num_seqs
        wanted, batch = max(1, math.floor(self._fit_running(index, reason))), self._standing.batch
        near = wanted <= batch * (1 + BATCH_KEEP_RATIO) and batch <= wanted * (1 + BATCH_KEEP_RATIO)
        return batch if self._options.hysteresis and near else wanted
