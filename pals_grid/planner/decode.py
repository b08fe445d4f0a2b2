"""From the programme's solution back to tokens, watts and money."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.units import W_PER_KW
from pals_grid.planner.outcome import Outcome
from pals_grid.planner.programme import Programme
from pals_grid.planner.supply import slope_at

if TYPE_CHECKING:
    import numpy.typing as npt

    from pals_grid.planner.problem import Problem
    from pals_grid.planner.programme import QueueColumns
    from pals_grid.planner.solver import Solution

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

_NOTHING = 1e-7
"""The solver's tolerance: scaled values below it are zero."""

_NOTHING_SHARE = 1e-3
"""Shadow prices below this share of the mean price are the tie-break's, not the market's."""

MOST_ROUNDS = 3
"""Programmes solved until none wastes power to soften a ramp."""


def solve(problem: Problem, time_limit_s: float) -> Outcome:
    """Plan at the least cost.

    Raises:
        Unsolved: when there is no optimum within ``time_limit_s``.
    """
    straight = np.zeros(len(problem.slots), bool)
    for _ in range(MOST_ROUNDS):
        programme = Programme(problem, straight)
        reading = _Reading(programme, programme.lp.solve(time_limit_s))
        wasted = reading.wasted() & ~straight
        if not wasted.any():
            break
        straight |= wasted
    return reading.outcome()


class _Reading:
    def __init__(self, programme: Programme, solution: Solution) -> None:
        self._of = programme
        self._problem = programme.problem
        self._scale = programme.scale
        values = solution.values
        self._values: Floats = np.where(np.abs(values) < _NOTHING, 0.0, values)
        self._duals = solution.duals

    def wasted(self) -> Bools:
        """Slots whose power is above their tokens' need: a ramp would like it, no node draws it."""
        if not len(self._of.ramp_rows):
            return np.zeros(self._of.count, bool)
        power_w = self._values[self._of.power] * self._scale.power_w
        tokens = self._values[self._of.pieces].sum(axis=1) + self._of.start
        above_w = power_w - self._needed_w(tokens * self._scale.rate)
        gaps_w = np.array([supply.gap_w for supply in self._problem.supplies])
        return ~self._problem.dark & (above_w > gaps_w + 1e-4 * self._scale.power_w)

    def _needed_w(self, tokens_per_s: Floats) -> Floats:
        return np.array(
            [
                supply.curve.power_w_at(float(rate))
                for supply, rate in zip(self._problem.supplies, tokens_per_s, strict=True)
            ]
        )

    def outcome(self) -> Outcome:
        rate, queues = self._scale.rate, self._of.queues
        broken = self._values[self._of.broken] * rate
        lost = self._values[self._of.lost] * rate + broken
        served = self._by_queue([self._served(queue) for queue in queues])
        planned = self._problem.work.at_once - lost.sum(axis=1) + served.sum(axis=1)
        reserve_used = np.zeros(self._of.count)
        reserve_used[self._of.reserve_slots] = self._values[self._of.reserve_used] * rate
        at_peak, at_cap = self._at_peak(), self._at_carbon_cap()
        return Outcome(
            planned=np.clip(planned, 0.0, np.where(self._problem.dark, 0.0, self._problem.room)),
            lost=lost,
            lost_floor=broken,
            waiting_served=served,
            late=self._by_queue([self._late(queue) for queue in queues]),
            late_floor=np.array(
                [self._values[queue.dropped].sum() * rate * self._scale.time_s for queue in queues]
            ),
            reserve_used=reserve_used,
            ramp_over_w=self._ramp_over_w(planned),
            carbon_over_g=np.array(
                [float(self._values[over][0]) * most_g for _, over, most_g in self._of.days]
            ),
            at_ramp=self._at_ramp(),
            at_peak=at_peak,
            at_carbon_cap=at_cap,
            shadow_per_j=self._shadow_per_j(planned),
        )

    def _by_queue(self, columns: list[Floats]) -> Floats:
        return np.array(columns).reshape(len(columns), self._of.count).T

    def _served(self, queue: QueueColumns) -> Floats:
        found: Floats = (self._values[queue.served] + self._values[queue.own]) * self._scale.rate
        return found

    def _late(self, queue: QueueColumns) -> Floats:
        tokens = self._values[queue.dropped]
        if queue.optional is not None:
            tokens = tokens + self._values[queue.optional]
        late: Floats = tokens / self._scale.hours * self._scale.rate
        return late

    def _ramp_over_w(self, planned: Floats) -> Floats:
        """Steps beyond what the ramp allows; less what the chords may be off."""
        if not len(self._of.ramp_rows):
            return np.zeros(self._of.count)
        steps_w = np.diff(self._needed_w(planned), prepend=0.0) + self._of.reserved_rise_w
        off_w = 2 * max(supply.gap_w for supply in self._problem.supplies)
        return np.maximum(0.0, np.abs(steps_w) - self._of.steps_w - off_w)

    def _at_ramp(self) -> Bools:
        """Slots at either end of a step that the ramp bounds."""
        held = np.zeros(self._of.count + 1, bool)
        if len(self._of.ramp_rows):
            held[:-1] = np.abs(self._duals[self._of.ramp_rows]) > _NOTHING
        either: Bools = held[:-1] | held[1:]
        return either

    def _at_peak(self) -> Bools:
        held = np.zeros(self._of.count, bool)
        for peak, rows in zip(self._problem.peaks, self._of.peak_rows, strict=True):
            for window, dual in zip(peak.windows, self._duals[rows], strict=True):
                if dual < -_NOTHING:
                    held[list(window.slots)] = True
        return held

    def _at_carbon_cap(self) -> Bools:
        held = np.zeros(self._of.count, bool)
        for day, (row, _, _) in zip(self._problem.days, self._of.days, strict=True):
            if self._duals[row][0] < -_NOTHING:
                held |= day.g_per_w > 0
        return held

    def _shadow_per_j(self, planned: Floats) -> Floats:
        """Worth of one more joule beyond its cost.

        The prices of what must not happen are no money, so the dual counts up to what a joule
        could earn: the dearest slot's cost, a peak's charge, or the tokens that it would serve.
        """
        problem, scale = self._problem, self._scale
        duals = self._duals[self._of.power_rows] * scale.money / scale.power_w / problem.duration_s
        found = np.where(problem.dark, 0.0, duals - problem.cost_per_j)
        most = float(problem.cost_per_j.max()) - problem.cost_per_j
        worth = problem.work.most_value_per_token
        slopes = np.array(
            [slope_at(supply, x) for supply, x in zip(problem.supplies, planned, strict=True)]
        )
        most = np.maximum(most, worth / slopes - problem.cost_per_j)
        for peak in problem.peaks:
            most += peak.charge.price_per_kw / W_PER_KW / problem.duration_s
        least = _NOTHING_SHARE * float(np.abs(problem.cost_per_j).mean())
        clipped = np.minimum(found, most)
        return np.where(clipped > least, clipped, 0.0)
