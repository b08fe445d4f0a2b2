"""Water-filling: a site's watts to where they give the most, by tier, never above the limit.

Tokens/s as a function of power are concave at every node, so that filling segments by rising
power per token is the optimum of the linear programme, but for discrete levels (``levels``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fleet_arrays import segment_of
from pals_grid.allocator.levels import NOTHING_LEFT_RATIO, Levels, round_to_levels

if TYPE_CHECKING:
    from pals_grid.allocator.fleet_arrays import Flags, FleetArrays, Floats, Indices

_SORT_AT_ONCE = 4096
_SAMPLE = 1024
_SPREAD = 0.05  # of all widths, on either side: three deviations of the sample


@dataclass(frozen=True, slots=True, eq=False)
class Wants:
    """What the nodes' work asks for; each (N,), None where all are alike.

    ``demand_tokens_per_s`` bounds what a watt is worth anything for. Of it,
    ``assured_tokens_per_s`` is served first, lower ``tier`` before higher; the rest counts by
    ``value_per_token``, which must be above 0. ``levels`` are those of nodes that cannot take
    any power.
    """

    demand_tokens_per_s: Floats | None = None
    assured_tokens_per_s: Floats | None = None
    tier: Floats | None = None
    value_per_token: Floats | None = None
    levels: Levels | None = None

    def subset(self, rows: Flags | Indices) -> Wants:
        """What the nodes of ``rows`` ask for."""

        def of(values: Floats | None) -> Floats | None:
            return None if values is None else values[rows]

        levels = self.levels
        return Wants(
            of(self.demand_tokens_per_s),
            of(self.assured_tokens_per_s),
            of(self.tier),
            of(self.value_per_token),
            None if levels is None else Levels(levels.step_w[rows], levels.at_points[rows]),
        )


ANYTHING = Wants()


def split_power_w(fleet: FleetArrays, limit_w: float, wants: Wants = ANYTHING) -> Floats:
    """Share of each node in W, (N,); the sum is at most ``limit_w`` in any order of adding.

    First every node's ``power_min_w``, also where it is offline, scaled down alike when even these
    do not fit; then the gap to its curve's floor. To online nodes go the assured tokens by tier,
    then the rest of the demand by power per value, and what nobody can use as headroom up to
    ``power_max_w``. Equal nodes get equal shares, but for levels.
    """
    granted = relaxed_power_w(fleet, limit_w, wants)
    if wants.levels is not None:
        demand, value = wants.demand_tokens_per_s, wants.value_per_token
        granted = round_to_levels(granted, wants.levels, fleet, limit_w, demand, value)
        granted = _spend_between_levels(granted, wants.levels, fleet, wants, limit_w)
    return fit(granted, limit_w)


def relaxed_power_w(fleet: FleetArrays, limit_w: float, wants: Wants = ANYTHING) -> Floats:
    """Split as if every node could be between its levels: the optimum that bounds any split."""
    granted = fleet.power_min_w.copy()
    total_w = float(granted.sum())
    if total_w > limit_w:
        return granted * (limit_w / total_w)
    floor_gap_w = np.maximum(0.0, fleet.curve_w[:, 0] - granted)
    left_w = _pour(granted, floor_gap_w, limit_w - total_w)
    left_w = _pour_assured(granted, fleet, wants, left_w)
    demand, value = wants.demand_tokens_per_s, wants.value_per_token
    at_points = None if wants.levels is None else wants.levels.at_points
    left_w = _pour_curve(granted, fleet, demand, value, left_w, at_points)
    headroom_w = np.where(fleet.online, np.maximum(0.0, fleet.power_max_w - granted), 0.0)
    _pour(granted, headroom_w, left_w)
    return granted


def split_tokens_per_s(fleet: FleetArrays, power_w: Floats, tokens_per_s: float) -> Floats:
    """Split a throughput by rising power per token inside each node's ``power_w``; (N,)."""
    most = np.where(fleet.online, fleet.tokens_per_s_at(power_w), 0.0)
    tokens = np.minimum(fleet.curve_tokens_per_s, most[:, None])
    return fill_cheapest(np.diff(tokens, axis=1), fleet.slopes_w_per_token_per_s, tokens_per_s)


def fill_cheapest(width: Floats, key: Floats, amount: float) -> Floats:
    """Fill segments (N, K) by rising ``key`` with ``amount``; what each row got, (N,).

    Segments of equal key share in proportion to their width.
    """
    if amount <= 0 or width.size == 0:
        return np.zeros(len(width))
    if float(width.sum()) <= amount:
        return np.asarray(width.sum(axis=1))
    marginal = _marginal_key(key.ravel("F"), width.ravel("F"), amount)
    before = (width * (key < marginal)).sum(axis=1)
    level = (width * (key == marginal)).sum(axis=1)
    wide = float(level.sum())
    ratio = min(1.0, max(0.0, amount - float(before.sum())) / wide) if wide > 0 else 0.0
    return np.asarray(before + ratio * level)


def _marginal_key(keys: Floats, widths: Floats, amount: float) -> float:
    """Key of the segment in which ``amount`` ends.

    A sample says between which keys that should be; what lies between them is sorted.
    """
    while len(keys) > _SORT_AT_ONCE:
        low_key, high_key = _bracket(keys, widths, amount)
        low, high = keys < low_key, keys > high_key
        below = float((widths * low).sum())
        upto = below + float((widths * ~(low | high)).sum())
        if amount < below:
            kept = low
        elif amount < upto:
            kept, amount = ~(low | high), amount - below
        else:
            kept, amount = high, amount - upto
        some = np.flatnonzero(kept)
        if len(some) in {0, len(keys)}:
            break
        keys, widths = keys[some], widths[some]
    order = np.argsort(keys)
    last = int(np.searchsorted(np.cumsum(widths[order]), amount, side="right"))
    return float(keys[order[min(last, len(order) - 1)]])


def _bracket(keys: Floats, widths: Floats, amount: float) -> tuple[float, float]:
    """Two keys between which ``amount`` is likely to end."""
    sample = np.random.default_rng(0).integers(0, len(keys), _SAMPLE)
    sample = sample[np.argsort(keys[sample])]
    sums = np.cumsum(widths[sample])
    part = amount / max(float(widths.sum()), 1e-300)
    at = np.searchsorted(sums, sums[-1] * np.array([part - _SPREAD, part + _SPREAD]))
    low, high = np.clip(at, 0, _SAMPLE - 1)
    return float(keys[sample[low]]), float(keys[sample[high]])


def fit(power_w: Floats, limit_w: float) -> Floats:
    """Take rounding errors off the largest share, until any order of summing stays inside."""
    bound_w = limit_w * (1 - len(power_w) * 2**-52)
    while (over_w := float(power_w.sum()) - bound_w) > 0:
        largest = int(np.argmax(power_w))
        power_w[largest] = max(0.0, np.nextafter(power_w[largest] - over_w, 0.0))
    return power_w


def _pour_assured(granted: Floats, fleet: FleetArrays, wants: Wants, left_w: float) -> float:
    """Serve each tier's assured tokens before the next one's: only one can be served in part."""
    if wants.assured_tokens_per_s is None:
        return left_w
    upto = wants.assured_tokens_per_s
    if wants.demand_tokens_per_s is not None:
        upto = np.minimum(upto, wants.demand_tokens_per_s)
    tiers = wants.tier if wants.tier is not None else np.zeros(fleet.count)
    names, which = np.unique(tiers, return_inverse=True)
    ends_w = np.clip(
        fleet.curve_w[:, [0, -1]],
        granted[:, None],
        _top_w(granted, fleet, fleet.power_w_at(upto))[:, None],
    )
    room_w = ends_w[:, 1] - ends_w[:, 0]
    needed_w = np.cumsum(np.bincount(which, room_w, len(names)))
    whole = int(np.searchsorted(needed_w, left_w, side="right"))
    granted += np.where(which < whole, room_w, 0.0)
    left_w -= float(needed_w[whole - 1]) if whole else 0.0
    if whole == len(names):
        return max(0.0, left_w)
    rows = np.flatnonzero(which == whole)
    value = None if wants.value_per_token is None else wants.value_per_token[rows]
    part = granted[rows]
    left_w = _pour_curve(part, fleet.subset(rows), upto[rows], value, left_w)
    granted[rows] = part
    return left_w


def _spend_between_levels(
    granted: Floats, levels: Levels, fleet: FleetArrays, wants: Wants, limit_w: float
) -> Floats:
    """Give what rounding left to the nodes that can take any power."""
    rows = np.flatnonzero((levels.step_w <= 0) & ~levels.at_points)
    left_w = limit_w - float(granted.sum())
    if len(rows) == 0 or left_w <= NOTHING_LEFT_RATIO * limit_w:
        return granted
    demand, value = wants.demand_tokens_per_s, wants.value_per_token
    part, some = granted[rows], fleet.subset(rows)
    left_w = _pour_curve(
        part,
        some,
        None if demand is None else demand[rows],
        None if value is None else value[rows],
        left_w,
    )
    _pour(part, np.where(some.online, np.maximum(0.0, some.power_max_w - part), 0.0), left_w)
    granted[rows] = part
    return granted


def _pour_curve(
    granted: Floats,
    fleet: FleetArrays,
    upto_tokens_per_s: Floats | None,
    value_per_token: Floats | None,
    left_w: float,
    at_points: Flags | None = None,
) -> float:
    """Raise online nodes along their curves, up to a throughput each; return what is left.

    Nodes ``at_points`` need the whole way to their next point for the last of their demand.
    """
    needed_w, key = None, fleet.slopes_w_per_token_per_s
    if upto_tokens_per_s is not None:
        needed_w = fleet.power_w_at(upto_tokens_per_s)
        if at_points is not None:
            needed_w, key = _up_to_points(fleet, upto_tokens_per_s, needed_w, at_points)
    top_w = _top_w(granted, fleet, needed_w)
    edges_w = np.clip(fleet.curve_w, granted[:, None], top_w[:, None])
    if value_per_token is not None:
        key = key / value_per_token[:, None]
    added_w = fill_cheapest(np.diff(edges_w, axis=1), key, left_w)
    granted += added_w
    return max(0.0, left_w - float(added_w.sum()))


def _top_w(granted: Floats, fleet: FleetArrays, needed_w: Floats | None) -> Floats:
    """What a node can use of its curve; (N,)."""
    top_w = fleet.power_max_w if needed_w is None else np.minimum(fleet.power_max_w, needed_w)
    return np.where(fleet.online, np.maximum(top_w, granted), granted)


def _up_to_points(
    fleet: FleetArrays, upto_tokens_per_s: Floats, needed_w: Floats, at_points: Flags
) -> tuple[Floats, Floats]:
    """Power of the point above a demand, and the slopes with only the demand's part counted."""
    low = segment_of(fleet.curve_tokens_per_s, upto_tokens_per_s)
    rows = np.flatnonzero(at_points & (low >= 0) & (low < fleet.curve_w.shape[1] - 1))
    at, above = low[rows], low[rows] + 1
    tokens = upto_tokens_per_s[rows] - fleet.curve_tokens_per_s[rows, at]
    rise_w = fleet.curve_w[rows, above] - fleet.curve_w[rows, at]
    between = (tokens > 0) & (rise_w > 0)
    rows, at, above = rows[between], at[between], above[between]
    needed_w, key = needed_w.copy(), fleet.slopes_w_per_token_per_s.copy()
    needed_w[rows] = fleet.curve_w[rows, above]
    key[rows, at] = rise_w[between] / tokens[between]
    return needed_w, key


def _pour(granted: Floats, room_w: Floats, left_w: float) -> float:
    """Fill every room in the same proportion; return what is left."""
    total_w = float(room_w.sum())
    if total_w <= 0 or left_w <= 0:
        return max(0.0, left_w)
    ratio = min(1.0, left_w / total_w)
    granted += room_w * ratio
    return left_w - total_w * ratio
