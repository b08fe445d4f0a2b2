"""The linear programme of a plan: its columns, rows and prices, as in ``docs/planner.md``.

Everything is scaled: throughput by the fleets' most, power by the largest cap, time by the longest
slot, money by the dearest slot at full power. Prices of what must not happen follow from those of
what may, so that each rung of the ladder costs more than all below it can save.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.units import J_PER_MWH, W_PER_KW
from pals_grid.planner.solver import LinearProgramme
from pals_grid.planner.supply import slope_at

if TYPE_CHECKING:
    import numpy.typing as npt

    from pals_grid.planner.problem import CarbonDay, Problem
    from pals_grid.planner.work import Queue

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

DELAY_RATIO_PER_H = 1e-4
"""Waiting an hour costs this share of the mean cost: equal slots are taken earliest first, and
nothing waits for gains that the next forecast would undo."""

LEAST_PER_MWH = 1e-3
"""Costs are told apart down to a small part of this."""

FURTHEST = 1e-4
"""Energy is told apart from values and charges that are as many times dearer, and not beyond."""


class Scale:
    """What a problem is measured in, and the ladder of prices, per ``rate`` held ``time_s``."""

    def __init__(self, problem: Problem) -> None:
        most = [supply.curve.max_tokens_per_s for supply in problem.supplies]
        mean = sum(float(queue.arrived[-1]) for queue in problem.work.queues)
        mean /= float(problem.duration_s.sum())
        self.rate = max([*most, float(problem.work.at_once.max()), mean, 1e-9])
        self.power_w = max([*(cap.limit_w for cap in problem.caps), 1.0])
        self.time_s = float(problem.duration_s.max())
        dearest = max(float(np.abs(problem.cost_per_j).max()), LEAST_PER_MWH / J_PER_MWH)
        tokens = self.rate * self.time_s
        peaks = sum(peak.charge.price_per_kw / W_PER_KW for peak in problem.peaks)
        self.money = max(
            dearest * self.power_w * self.time_s,
            FURTHEST * problem.work.most_value_per_token * tokens,
            FURTHEST * peaks * self.power_w,
        )
        self.slopes = [supply.slopes * self.rate / self.power_w for supply in problem.supplies]
        known = np.concatenate([*self.slopes, [0.0]])
        self.steepest = max(float(known.max()), 1e-6)
        self.mean_slope = max(float(known.mean()), 1e-6)
        self.flattest = max(min(known[known > 0], default=0.0), self.mean_slope / 20)
        self.hours = problem.duration_s / self.time_s
        self.cost = problem.cost_per_j * self.power_w * self.time_s / self.money
        self._ladder(problem)

    def _ladder(self, problem: Problem) -> None:
        peaks = sum(peak.charge.price_per_kw / W_PER_KW for peak in problem.peaks)
        peaks *= self.power_w / self.money
        energy = max(float(np.abs(self.cost).max()), 1e-3) * self.steepest
        peak = peaks * self.steepest / float(self.hours.min())
        worth = problem.work.most_value_per_token * self.rate * self.time_s / self.money
        self.delay = (
            DELAY_RATIO_PER_H * max(float(np.abs(self.cost).mean()), 1e-3) * self.mean_slope
        )
        self.reserve = 2 * energy
        self.stay = 4 * (energy + peak)
        self.carbon = 2 * (worth + energy + peak) / self.flattest
        dirtiest, self.cleanest = self._carbon_range(problem)
        self.floor = 4 * (self.stay + worth)
        if problem.days:
            self.floor += 2 * self.carbon * self.steepest * dirtiest / self.cleanest

    def _carbon_range(self, problem: Problem) -> tuple[float, float]:
        """Most and least of what a slot's power adds to a day's share, by time."""
        shares = [day.g_per_w / max(day.g_per_w.sum(), 1e-12) / self.hours for day in problem.days]
        positive = np.concatenate([*shares, [0.0]])
        positive = positive[positive > 0]
        if not len(positive):
            return 1.0, 1.0
        most = float(positive.max())
        return most, max(float(positive.min()), most / 20)


@dataclass(frozen=True, slots=True)
class QueueColumns:
    """One queue: served and dropped by slot (rates), and all that is gone by the slot's end."""

    served: Ints
    own: Ints
    gone: Ints
    dropped: Ints
    optional: Ints | None


class Programme:
    """A problem's linear programme; the arrays of numbers say where each quantity is."""

    def __init__(self, problem: Problem, straight: Bools) -> None:
        """``straight`` slots have their curve's tangent at what comes at once in its place."""
        self.problem = problem
        self.straight = straight
        self.scale = Scale(problem)
        self.count = len(problem.slots)
        self.slots = np.arange(self.count)
        self.lp = LinearProgramme()
        self.at_once = problem.work.at_once / self.scale.rate
        self.demand = np.array([t.demand for t in problem.work.tiers]).T / self.scale.rate
        self._add_power()
        self._add_losses()
        self.queues = [self._add_queue(queue) for queue in problem.work.queues]
        self._add_balance()
        self._add_reserve()
        self.peak_columns, self.peak_rows = self._add_peaks()
        self.ramp_rows: Ints = np.zeros(0, np.int64)
        self.steps_w = self._add_ramps()
        self.days = [self._add_day(day) for day in problem.days]

    @cached_property
    def _held(self) -> Bools:
        """Slots where energy earns money: what comes at once is served, not sought."""
        return (self.problem.cost_per_j < 0) & ~self.problem.dark

    def _pieces(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Power at the start, tokens at the start, widths and slopes of each slot's pieces.

        Where energy earns money, marginal power would put the steepest piece first: there the
        curve from what comes at once, as far as work that waits can reach, is one chord.
        """
        problem, scale = self.problem, self.scale
        start_w = np.minimum(problem.floor_w, problem.spare_w)
        start = np.zeros(self.count)
        most = max(1, *(len(slopes) for slopes in scale.slopes))
        widths, slopes = np.zeros((self.count, most)), np.zeros((self.count, most))
        for t in np.flatnonzero(~problem.dark & ~self._held & self.straight):
            supply, room = problem.supplies[t], float(problem.room[t])
            nominal = min(float(self.at_once[t]) * scale.rate, room)
            slope = slope_at(supply, nominal)
            start_w[t] = supply.curve.power_w_at(nominal) - slope * nominal
            widths[t, 0], slopes[t, 0] = room / scale.rate, slope * scale.rate / scale.power_w
        for t in np.flatnonzero(~problem.dark & ~self._held & ~self.straight):
            own = len(scale.slopes[t])
            widths[t, :own] = problem.supplies[t].widths / scale.rate
            slopes[t, :own] = scale.slopes[t]
        reachable = problem.work.reachable / problem.duration_s
        for t in np.flatnonzero(self._held):
            curve, room = problem.supplies[t].curve, float(problem.room[t])
            base = min(float(self.at_once[t]) * scale.rate, room)
            start[t], start_w[t] = base / scale.rate, curve.power_w_at(base)
            reach = min(room, base + reachable[t])
            if reach - base > 1e-9 * scale.rate:
                rise_w = curve.power_w_at(reach) - start_w[t]
                widths[t, 0] = (curve.max_tokens_per_s - base) / scale.rate
                slopes[t, 0] = rise_w / (reach - base) * scale.rate / scale.power_w
        return start_w, start, widths, slopes

    def _add_power(self) -> None:
        scale = self.scale
        self.start_w, self.start, widths, slopes = self._pieces()
        start_w = self.start_w / scale.power_w
        self.pieces = self.lp.columns(widths.shape, upper=widths)
        self.power = self.lp.columns(
            (self.count,),
            lower=-np.inf,
            upper=np.maximum(self.problem.spare_w / scale.power_w, start_w),
            cost=scale.cost * scale.hours,
        )
        self.power_rows = self.lp.rows(self.count, start_w, start_w)
        self.lp.put(self.power_rows, self.power, 1.0)
        self.lp.put(self.power_rows[:, None], self.pieces, -slopes)

    def _add_losses(self) -> None:
        """Tokens of a tier not served: at their value, below its floor at the ladder's too."""
        scale, tiers = self.scale, self.problem.work.tiers
        ratios = np.array([tier.loss_ratio for tier in tiers])
        values = np.array([self._value(tier.value_per_token) for tier in tiers])
        floors = np.array([self._floor_price(tier.rank) for tier in tiers])
        keeps = (self._held & (self.problem.work.at_once <= self.problem.room))[:, None]
        demand = np.where(keeps, 0.0, self.demand)
        hours = scale.hours[:, None]
        self.lost = self.lp.columns(demand.shape, upper=demand * ratios, cost=values * hours)
        self.broken = self.lp.columns(
            demand.shape, upper=demand * (1 - ratios), cost=(values + floors) * hours
        )

    def _value(self, value_per_token: float) -> float:
        scale = self.scale
        return value_per_token * scale.rate * scale.time_s / scale.money

    def _floor_price(self, rank: int) -> float:
        """What ranks lower goes first; half as much again from the last to the first."""
        ranks = len(self.problem.work.tiers) + len(self.problem.work.queues)
        return self.scale.floor * (1.5 - 0.5 * min(1.0, rank / (ranks + 1)))

    def _add_queue(self, queue: Queue) -> QueueColumns:
        """Work that may wait: what is gone lies between what is due and what has arrived."""
        lp, scale, known = self.lp, self.scale, self.problem.known
        tokens = scale.rate * scale.time_s
        waits_h = np.cumsum(self.problem.duration_s) / 3600.0
        value = self._value(queue.value_per_token)
        stay = np.where(known, 0.0, scale.stay)
        served = lp.columns((self.count,), cost=(stay + scale.delay * waits_h) * scale.hours)
        own = lp.columns(
            (self.count,),
            upper=np.where(known, 0.0, queue.arrivals / tokens / scale.hours),
            cost=-scale.stay * scale.hours,
        )
        last_cost = np.zeros(self.count)
        if (queue.last >= self.count).any():
            last_cost[-1] = -self._later_cost()
        gone = lp.columns(
            (self.count,), lower=queue.due / tokens, upper=queue.arrived / tokens, cost=last_cost
        )
        floor = value + self._floor_price(queue.rank)
        sooner = -scale.delay * waits_h  # what is given up is given up as late as can be
        dropped = lp.columns((self.count,), cost=floor + sooner)
        optional = lp.columns((self.count,), cost=value + sooner) if queue.may_lose > 0 else None
        rows = lp.rows(self.count, 0.0, 0.0)
        lp.put(rows, gone, 1.0)
        lp.put(rows[1:], gone[:-1], -1.0)
        lp.put(rows, served, -scale.hours)
        lp.put(rows, own, -scale.hours)
        lp.put(rows, dropped, -1.0)
        if optional is not None:
            lp.put(rows, optional, -1.0)
            lp.put(lp.rows(1, -np.inf, queue.may_lose / tokens), optional, 1.0)
        return QueueColumns(served, own, gone, dropped, optional)

    def _later_cost(self) -> float:
        """What a token is taken to cost after the horizon: the mean of the slots with a signal."""
        known = self.problem.known
        mean = float(self.scale.cost[known].mean()) if known.any() else 0.0
        return mean * float(self.scale.mean_slope)

    def _add_balance(self) -> None:
        """Tokens served are those that came at once, less losses, and those that waited."""
        rhs = self.at_once - self.start
        rows = self.lp.rows(self.count, rhs, rhs)
        self.lp.put(rows[:, None], self.pieces, 1.0)
        self.lp.put(rows[:, None], self.lost, 1.0)
        self.lp.put(rows[:, None], self.broken, 1.0)
        for queue in self.queues:
            self.lp.put(rows, queue.served, -1.0)
            self.lp.put(rows, queue.own, -1.0)

    def _add_reserve(self) -> None:
        """Work that waited leaves the room of the upper quantile free, unless it would be late."""
        at = np.flatnonzero(self.problem.extra > 0)
        self.reserve_slots = at
        self.reserve_used = self.lp.columns(
            (len(at),), cost=self.scale.reserve * self.scale.hours[at]
        )
        free = (self.problem.room[at] - self.problem.extra[at]) / self.scale.rate - self.at_once[at]
        rows = self.lp.rows(len(at), -np.inf, np.maximum(0.0, free))
        self.lp.put(rows, self.reserve_used, -1.0)
        for queue in self.queues:
            self.lp.put(rows, queue.served[at], 1.0)
            self.lp.put(rows, queue.own[at], 1.0)

    def _add_peaks(self) -> tuple[Ints, list[Ints]]:
        scale = self.scale
        charges = [peak.charge for peak in self.problem.peaks]
        columns = self.lp.columns(
            (len(charges),),
            lower=[charge.reached_w / scale.power_w for charge in charges],
            cost=[
                charge.price_per_kw / W_PER_KW * scale.power_w / scale.money for charge in charges
            ],
        )
        reserved = self.problem.reserved_w / scale.power_w
        all_rows = []
        for peak, column in zip(self.problem.peaks, columns, strict=True):
            at = [np.array(window.slots) for window in peak.windows]
            shares = [np.array(window.shares) for window in peak.windows]
            held = [-float(reserved[i] @ share) for i, share in zip(at, shares, strict=True)]
            rows = self.lp.rows(len(at), -np.inf, held)
            self.lp.put(
                np.repeat(rows, [len(i) for i in at]),
                self.power[np.concatenate(at)],
                np.concatenate(shares),
            )
            self.lp.put(rows, column, -1.0)
            all_rows.append(rows)
        return columns, all_rows

    def _add_ramps(self) -> Floats:
        """Steps between slots, the one before the first included where its power is known.

        What caps, floors and reserved power force beyond them widens a step; so may a fall of the
        demand that cannot wait, for power without work cannot be held. Returns the steps as the
        ramp allows them, in W.
        """
        problem, scale = self.problem, self.scale
        ramp_w_per_min = problem.request.policy.ramp_w_per_min
        if ramp_w_per_min is None:
            return np.full(self.count, np.inf)
        minutes = problem.duration_s / 60
        allowed_w: Floats = ramp_w_per_min * (minutes + np.concatenate([[0.0], minutes[:-1]])) / 2
        if problem.request.power_before_w is None:
            allowed_w[0] = np.inf
        steps = (allowed_w + self._forced_w(allowed_w)) / scale.power_w
        rise = self.reserved_rise_w / scale.power_w
        falls = np.maximum(0.0, self._natural_falls_w() - allowed_w) / scale.power_w
        dearest = max(float(np.abs(scale.cost).max()), 1e-3)
        fallen = self.lp.columns((self.count,), upper=falls, cost=2 * dearest * scale.hours)
        self.ramp_rows = self.lp.rows(self.count, -steps - rise, steps - rise)
        self.lp.put(self.ramp_rows, self.power, 1.0)
        self.lp.put(self.ramp_rows[1:], self.power[:-1], -1.0)
        self.lp.put(self.ramp_rows, fallen, 1.0)
        return allowed_w

    @cached_property
    def _natural_w(self) -> Floats:
        """What the work of each slot that cannot wait takes without any event."""
        problem = self.problem
        limit_w = problem.request.policy.limit_w
        return np.array(
            [
                held_w + min(supply.curve.power_w_at(float(rate)), max(0.0, limit_w - held_w))
                for supply, rate, held_w in zip(
                    problem.supplies, problem.work.at_once, problem.reserved_w, strict=True
                )
            ]
        )

    def _natural_falls_w(self) -> Floats:
        """How much less that is in each slot than in the one before."""
        before_w = self.problem.request.power_before_w
        first_w = self._natural_w[0] if before_w is None else before_w
        falls_w: Floats = -np.diff(self._natural_w, prepend=first_w)
        return falls_w

    @property
    def reserved_rise_w(self) -> Floats:
        """What the reserved power adds to each step; the first counts from the power before."""
        rise_w: Floats = np.diff(self.problem.reserved_w, prepend=0.0)
        rise_w[0] -= self.problem.request.power_before_w or 0.0
        return rise_w

    def _forced_w(self, steps_w: Floats) -> Floats:
        """Parts of steps that reserved power, floors and caps force, whatever is served."""
        reserved_w = self.problem.reserved_w
        bent = self.straight & ~self._held
        least_w = np.where(bent, self.problem.floor_w, self.start_w) + reserved_w
        most_w = np.maximum(np.minimum(self.problem.spare_w + reserved_w, self._natural_w), least_w)
        before_w = self.problem.request.power_before_w
        low_w, high_w = (-np.inf, np.inf) if before_w is None else (before_w, before_w)
        over_w = np.zeros(self.count)
        for t in range(self.count):
            low_w, high_w = low_w - steps_w[t], high_w + steps_w[t]
            over_w[t] = max(0.0, least_w[t] - high_w, low_w - most_w[t])
            low_w = max(least_w[t], low_w - over_w[t])
            high_w = min(most_w[t], high_w + over_w[t])
        return over_w

    def _add_day(self, day: CarbonDay) -> tuple[Ints, Ints, float]:
        """Row and column of a day's cap, and the grams of a unit of the column."""
        most_g = max(float(day.g_per_w.sum()), 1e-12) * self.scale.power_w
        over = self.lp.columns((1,), cost=self.scale.carbon / self.scale.cleanest)
        left_g = day.left_g - float(day.g_per_w @ self.problem.reserved_w)
        row = self.lp.rows(1, -np.inf, left_g / most_g)
        self.lp.put(row, self.power, day.g_per_w * self.scale.power_w / most_g)
        self.lp.put(row, over, -1.0)
        return row, over, most_g
