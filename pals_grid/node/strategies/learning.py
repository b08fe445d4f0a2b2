"""What one engine is found to do, against what its surface says of the last command.

Three learners look at it: the latency plan (misses), the correction of the table (tokens and
draw, over windows without disturbance), and the power tracker (draw, while a budget binds).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.node.strategies.correction import Window
from pals_grid.node.strategies.tracking import PowerTracker

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample
    from pals_grid.node.strategies.latency import LatencyPlan
    from pals_grid.node.strategies.levels import LevelTable
    from pals_grid.node.strategies.options import ControlOptions
    from pals_grid.node.strategies.standing import Standing


class Learner:
    """Of one engine. ``power_ratio`` is its draw over the model's while the budget binds."""

    def __init__(self, levels: LevelTable, plan: LatencyPlan, options: ControlOptions) -> None:
        self._levels = levels
        self._surface = levels.surface
        self._plan = plan
        self._corrects = options.correction
        self._tracks = options.tracking
        self._tracker = PowerTracker()
        self._window = Window()

    @property
    def power_ratio(self) -> float:
        """Draw over the model's; 1 while nothing is known."""
        return self._tracker.ratio

    def learn(
        self,
        before: EngineSample,
        engine: EngineSample,
        standing: Standing,
        *,
        tokens: float,
        power_draw_w: float,
        all_seen: bool,
        dt_s: float,
    ) -> None:
        """Take the tick between two samples, in which ``tokens`` came out.

        ``all_seen`` says that every GPU answered: then ``power_draw_w`` is the unit's.
        """
        standing.settled_ticks += 1
        limit_w, index = standing.limit_w, standing.index
        if limit_w is None or index is None or not all_seen:
            self._window.clear()
            return
        clock_mhz = self._surface.levels[index].sm_clock_mhz
        running = 0.5 * (before.requests_running + engine.requests_running)
        model = self._surface.track(clock_mhz).at(limit_w, running)
        correction = self._levels.corrections[clock_mhz]
        if standing.binds and self._tracks:
            expected_w = model.gpu_power_w * correction.at(limit_w)[1]
            self._tracker.learn(power_draw_w, expected_w, dt_s)
        if min(before.requests_running, engine.requests_running) < 1:
            self._window.clear()
            return
        self._plan.learn(engine, dt_s)
        if not standing.settled:
            self._window.clear()
            return
        found = self._window.add(limit_w, tokens, power_draw_w, model, dt_s)
        if found is not None and self._corrects:
            correction.learn(limit_w, *found)
            self._levels.changed()

    def release(self) -> None:
        """Forget the power ratio: the budget leaves the limit alone."""
        self._tracker.reset()

    def expect(self, standing: Standing, engine: EngineSample, power_draw_w: float) -> None:
        """Note what the command that was just given should draw, while the budget binds."""
        limit_w, index = standing.limit_w, standing.index
        if not (standing.binds and self._tracks) or limit_w is None or index is None:
            return
        clock_mhz = self._surface.levels[index].sm_clock_mhz
        inside = engine.requests_running + engine.requests_waiting
        running = max(1.0, min(standing.batch, inside))
        model_w = self._surface.track(clock_mhz).at(limit_w, running).gpu_power_w
        expected_w = model_w * self._levels.corrections[clock_mhz].at(limit_w)[1]
        self._tracker.command(expected_w * self._tracker.ratio, power_draw_w)
