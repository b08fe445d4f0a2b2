"""The same plan as one large linear programme, written down directly and solved by SciPy.

Every fleet, curve segment and slot has a column, deferred work flows from the slot that it arrives
in to the one that serves it, and nothing may be relaxed. Shares no code with the planner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest
    from pals_grid.core.site import ServiceTier


@dataclass
class _Rows:
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)

    def add(self, terms: dict[int, float], bound: float) -> None:
        self.entries += [(len(self.bounds), column, value) for column, value in terms.items()]
        self.bounds.append(bound)

    def matrix(self, columns: int) -> coo_array:
        rows, cols, values = zip(*self.entries, strict=True) if self.entries else ((), (), ())
        return coo_array((values, (rows, cols)), shape=(len(self.bounds), columns))


def least_cost(request: PlanRequest, caps_w: list[float]) -> float | None:
    """Cost of the best plan in the site's currency; None where no plan keeps everything.

    For requests with known prices, no negative cost, no carbon price, no ramp and no events:
    ``caps_w`` has their limits. Peak charges have windows of one slot.
    """
    return _Full(request, caps_w).solve()


class _Full:
    def __init__(self, request: PlanRequest, caps_w: list[float]) -> None:
        self.request = request
        self.seconds = [slot.interval.duration_s for slot in request.slots]
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.fixed = 0.0
        self.equal, self.below = _Rows(), _Rows()
        self.power = [self._power(t) for t in range(len(request.slots))]
        self.wanted = [0.0] * len(request.slots)
        for tier in request.policy.service_tiers:
            (self._queue if tier.deferral_s > 0 else self._at_once)(tier)
        for t, (floor_w, watts, tokens) in enumerate(self.power):
            self.equal.add(tokens, self.wanted[t])
            self.below.add(watts, caps_w[t] - floor_w)
        self._peaks()
        self._carbon()

    def _column(self, price: float, most: float = np.inf) -> int:
        self.cost.append(price)
        self.upper.append(most)
        return len(self.cost) - 1

    def _power(self, t: int) -> tuple[float, dict[int, float], dict[int, float]]:
        """Floor, and watts and tokens/s of each segment of each fleet."""
        slot = self.request.slots[t]
        per_j = (slot.price_per_mwh or 0.0) / 3.6e9
        floor_w = slot.reserved_w
        watts: dict[int, float] = {}
        for fleet in self.request.fleets:
            curve = fleet.curve
            floor_w += curve.floor_w
            most = curve.tokens_per_s_at(fleet.most_w(slot.interval))
            for k, slope in enumerate(curve.slopes_w_per_token_per_s):
                width = min(curve.tokens_per_s[k + 1], most) - curve.tokens_per_s[k]
                x = self._column(per_j * slope * self.seconds[t], max(0.0, width))
                watts[x] = slope
        self.fixed += per_j * floor_w * self.seconds[t]
        return floor_w, watts, dict.fromkeys(watts, 1.0)

    def _at_once(self, tier: ServiceTier) -> None:
        for t, slot in enumerate(self.request.slots):
            rate = slot.demand_tokens_per_s * tier.demand_ratio
            value = tier.value_per_mtoken / 1e6 * self.seconds[t]
            self.power[t][2][self._column(value, rate * tier.loss_ratio)] = 1.0
            self.wanted[t] += rate

    def _queue(self, tier: ServiceTier) -> None:
        slots = self.request.slots
        allowance: dict[int, float] = {}
        total = 0.0
        for i, slot in enumerate(slots):
            lost = self._column(tier.value_per_mtoken / 1e6)
            allowance[lost] = 1.0
            flows = {lost: 1.0}
            for j in range(i, len(slots)):
                wait_s = (slots[j].interval.end_at - slot.interval.start_at).total_seconds()
                if j == i or wait_s <= tier.deferral_s:
                    flow = self._column(0.0)
                    flows[flow] = 1.0
                    self.power[j][2][flow] = -1.0 / self.seconds[j]
            tokens = slot.demand_tokens_per_s * tier.demand_ratio * self.seconds[i]
            self.equal.add(flows, tokens)
            total += tokens
        self.below.add(allowance, tier.loss_ratio * total)

    def _peaks(self) -> None:
        for charge in self.request.peak_charges:
            peak = self._column(charge.price_per_kw / 1000)
            self.fixed -= charge.price_per_kw / 1000 * charge.reached_w
            self.below.add({peak: -1.0}, -charge.reached_w)
            for floor_w, watts, _ in self.power:
                self.below.add({**watts, peak: -1.0}, -floor_w)

    def _carbon(self) -> None:
        cap_kg = self.request.policy.carbon_cap_kg_per_day
        if cap_kg is None:
            return
        grams: dict[int, float] = {}
        left_g = 1000 * (cap_kg - self.request.carbon_spent_kg)
        for t, (floor_w, watts, _) in enumerate(self.power):
            g_per_w = (self.request.slots[t].carbon_g_per_kwh or 0.0) * self.seconds[t] / 3.6e6
            left_g -= floor_w * g_per_w
            grams |= {x: value * g_per_w for x, value in watts.items()}
        self.below.add(grams, left_g)

    def solve(self) -> float | None:
        found = linprog(
            self.cost,
            A_ub=self.below.matrix(len(self.cost)),
            b_ub=self.below.bounds,
            A_eq=self.equal.matrix(len(self.cost)),
            b_eq=self.equal.bounds,
            bounds=[(0.0, most) for most in self.upper],
            method="highs",
        )
        return cast("float", found.fun) + self.fixed if found.status == 0 else None
