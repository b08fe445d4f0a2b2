"""Nodes that take only certain levels of power: round down, then spend what that freed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fleet_arrays import segment_of

if TYPE_CHECKING:
    from pals_grid.allocator.fleet_arrays import Flags, FleetArrays, Floats

_SLACK_W = 1e-9
NOTHING_LEFT_RATIO = 2e-5


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Which powers a node can take; both (N,).

    ``step_w`` is the distance of levels from ``power_min_w`` upwards, 0 where any power will do
    (power limits of whole watts, several GPUs at once). ``at_points`` are nodes that can only be at
    a breakpoint of their curve (a table of limit and whole batch size); ``step_w`` is not used
    there.
    """

    step_w: Floats
    at_points: Flags

    def below(self, fleet: FleetArrays, power_w: Floats) -> Floats:
        """Highest level of each node inside ``power_w``; what is below the lowest level stays."""
        stepped = self.step_w > 0
        step_w = np.where(stepped, self.step_w, 1.0)
        steps = np.floor((power_w - fleet.power_min_w) / step_w + _SLACK_W)
        grid_w = np.where(stepped, fleet.power_min_w + steps * step_w, power_w)
        index = segment_of(fleet.curve_w, power_w + _SLACK_W)
        rows = np.arange(fleet.count)
        point_w = np.where(index >= 0, fleet.curve_w[rows, np.maximum(index, 0)], power_w)
        found = np.where(self.at_points, np.maximum(point_w, fleet.power_min_w), grid_w)
        return np.where(power_w < fleet.power_min_w, power_w, np.minimum(found, power_w))

    def above(self, fleet: FleetArrays, power_w: Floats) -> Floats:
        """Next level above ``power_w``, at most ``power_max_w``; infinite where there is none."""
        grid_w = np.where(self.step_w > 0, power_w + self.step_w, np.inf)
        index = segment_of(fleet.curve_w, power_w + _SLACK_W) + 1
        last = fleet.curve_w.shape[1] - 1
        point_w = fleet.curve_w[np.arange(fleet.count), np.minimum(index, last)]
        found = np.where(self.at_points, np.where(index <= last, point_w, np.inf), grid_w)
        return np.where(found <= fleet.power_max_w + _SLACK_W, found, np.inf)


def round_to_levels(
    granted_w: Floats,
    levels: Levels,
    fleet: FleetArrays,
    limit_w: float,
    demand_tokens_per_s: Floats | None,
    value_per_token: Floats | None,
) -> Floats:
    """Each node's level inside ``granted_w``; then levels up, best value per watt first.

    The sum never rises above ``limit_w``. Ends when no node's next level fits any more, or with
    less than 20 ppm of the limit left.
    """
    power_w = levels.below(fleet, granted_w)
    while True:
        left_w = limit_w - float(power_w.sum())
        next_w = np.where(fleet.online, levels.above(fleet, power_w), np.inf)
        may = np.flatnonzero(next_w - power_w <= left_w)
        if len(may) == 0 or left_w <= NOTHING_LEFT_RATIO * limit_w:
            return power_w
        step_w = next_w[may] - power_w[may]
        tokens = fleet.tokens_per_s_at(power_w[may], may)
        gain = fleet.tokens_per_s_at(next_w[may], may) - tokens
        if demand_tokens_per_s is not None:
            gain = np.clip(demand_tokens_per_s[may] - tokens, 0.0, gain)
        if value_per_token is not None:
            gain *= value_per_token[may]
        order = np.argsort(-gain / step_w, kind="stable")
        taken = may[order[np.cumsum(step_w[order]) <= left_w]]
        if len(taken) == 0:
            taken = may[order[:1]]  # it fits alone
        power_w[taken] = next_w[taken]
