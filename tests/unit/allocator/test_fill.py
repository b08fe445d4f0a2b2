from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from pals_grid.allocator.fill import Wants, split_power_w
from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.allocator.levels import Levels
from pals_grid.core.fleet import NodeCapability, PowerCurve

if TYPE_CHECKING:
    from pals_grid.allocator.fleet_arrays import Flags, Floats


def random_fleet(count: int, seed: int, kinds: int = 40) -> FleetArrays:
    """Nodes of several kinds, of 1 to 12 segments, with headroom above their curves."""
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(kinds):
        n, floor_w = int(rng.integers(1, 13)), float(rng.uniform(800, 3000))
        tokens = np.cumsum(rng.uniform(20, 400, n))
        power = floor_w + np.cumsum(rng.uniform(5, 200, n))
        points = [(float(t), float(p)) for t, p in zip(tokens, power, strict=True)]
        curves.append(PowerCurve.lower_hull(floor_w, points))
    chosen = [curves[int(k)] for k in rng.integers(0, kinds, count)]
    return FleetArrays.of(
        [
            NodeCapability(i, str(i), c.floor_w, c.max_power_w * 1.03, c, bool(rng.random() > 0.02))
            for i, c in enumerate(chosen)
        ]
    )


def middle_w(fleet: FleetArrays, ratio: float = 0.5) -> float:
    return float((1 - ratio) * fleet.power_min_w.sum() + ratio * fleet.curve_w[:, -1].sum())


def worth(fleet: FleetArrays, power_w: Floats, demand: Floats, value: Floats) -> float:
    tokens = np.where(fleet.online, fleet.tokens_per_s_at(power_w), 0.0)
    return float((np.minimum(tokens, demand) * value).sum())


def lp_bound(
    fleet: FleetArrays,
    limit_w: float,
    demand: Floats,
    value: Floats,
    at_points: Flags | None = None,
) -> float:
    """Most value of any split, as a linear programme over the curves' segments.

    A node ``at_points`` may be at two of its points by turns, and serves its demand at each.
    """
    tokens = fleet.curve_tokens_per_s
    if at_points is not None:
        tokens = np.where(at_points[:, None], np.minimum(tokens, demand[:, None]), tokens)
    width, rise = np.diff(tokens, axis=1), np.diff(fleet.curve_w, axis=1)
    real = (width > 0) & fleet.online[:, None]
    rows = np.nonzero(real)[0]
    per_node = (np.arange(fleet.count)[:, None] == rows).astype(float)
    found = linprog(
        -value[rows],
        A_ub=np.vstack([rise[real] / width[real], per_node]),
        b_ub=np.concatenate([[limit_w - fleet.power_min_w.sum()], demand]),
        bounds=np.column_stack([np.zeros(len(rows)), width[real]]),
    )
    assert found.success
    return float(-found.fun)


@pytest.mark.parametrize("seed", range(6))
def test_any_power_reaches_the_bound_of_the_linear_programme(seed: int) -> None:
    fleet, rng = random_fleet(120, seed), np.random.default_rng(seed)
    demand = rng.uniform(0.2, 1.3, 120) * fleet.curve_tokens_per_s[:, -1]
    value = rng.uniform(0.5, 2.0, 120)
    limit_w = middle_w(fleet, 0.1 + 0.15 * seed)
    power_w = split_power_w(fleet, limit_w, Wants(demand, value_per_token=value))
    assert power_w.sum() <= limit_w
    bound = lp_bound(fleet, limit_w, demand, value)
    assert worth(fleet, power_w, demand, value) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_levels_stay_within_a_thousandth_of_the_bound_and_inside_the_limit(seed: int) -> None:
    fleet, rng = random_fleet(600, seed), np.random.default_rng(seed)
    demand, value = rng.uniform(0.2, 1.3, 600) * fleet.curve_tokens_per_s[:, -1], np.ones(600)
    at_points = rng.random(600) < 0.5
    levels = Levels(np.where(rng.random(600) < 0.7, 4.0, 0.0), at_points)
    limit_w = middle_w(fleet, 0.1 + 0.08 * seed)
    power_w = split_power_w(fleet, limit_w, Wants(demand, levels=levels))
    assert power_w.sum() <= limit_w
    steps = (power_w - fleet.power_min_w)[~at_points & (levels.step_w > 0)] / 4.0
    assert np.abs(steps - np.round(steps)).max() < 1e-6
    gap_w = np.abs(fleet.curve_w - power_w[:, None]).min(axis=1)[at_points]
    assert gap_w.max() < 1e-6
    bound = lp_bound(fleet, limit_w, demand, value, at_points)
    assert bound * 0.999 <= worth(fleet, power_w, demand, value) <= bound * (1 + 1e-9)


def test_assured_tokens_of_a_lower_tier_come_before_cheaper_ones() -> None:
    curve, cheap = PowerCurve((0, 100), (100, 300)), PowerCurve((0, 100), (100, 200))
    fleet = FleetArrays.of(
        [NodeCapability(0, "dear", 100, 300, curve), NodeCapability(1, "cheap", 100, 200, cheap)]
    )
    demand = np.array([80.0, 100.0])
    wants = Wants(demand, np.array([90.0, 20.0]), np.array([0.0, 1.0]))
    # 160 W serve the dear one's 80 tokens/s, and 20 are left for the next tier.
    assert split_power_w(fleet, 380.0, wants).tolist() == pytest.approx([260.0, 120.0])
    # One tier further nobody is left out while the first is not whole.
    assert split_power_w(fleet, 300.0, wants).tolist() == pytest.approx([200.0, 100.0])
    # Without assured tokens the cheaper watt comes first.
    assert split_power_w(fleet, 350.0, Wants(demand)).tolist() == pytest.approx([150.0, 200.0])


def test_value_turns_the_order_and_demand_ends_it() -> None:
    curve, cheap = PowerCurve((0, 100), (100, 300)), PowerCurve((0, 100), (100, 200))
    fleet = FleetArrays.of(
        [NodeCapability(0, "dear", 100, 300, curve), NodeCapability(1, "cheap", 100, 200, cheap)]
    )
    wants = Wants(np.array([40.0, 100.0]), value_per_token=np.array([3.0, 1.0]))
    assert split_power_w(fleet, 300.0, wants).tolist() == pytest.approx([180.0, 120.0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ratio=st.floats(0, 1.2),
    step_w=st.sampled_from([0.0, 1.0, 7.5, 60.0]),
    points=st.floats(0, 1),
)
def test_levels_never_lift_the_sum_above_the_limit(
    seed: int, ratio: float, step_w: float, points: float
) -> None:
    fleet, rng = random_fleet(30, seed, kinds=8), np.random.default_rng(seed)
    levels = Levels(np.full(30, step_w), rng.random(30) < points)
    limit_w = ratio * middle_w(fleet, 1.0)
    tier = rng.integers(0, 3, 30).astype(np.float64)
    wants = Wants(rng.uniform(0, 2000, 30), rng.uniform(0, 500, 30), tier, None, levels)
    power_w = split_power_w(fleet, limit_w, wants)
    assert sum(power_w.tolist()) <= limit_w
    assert sum(power_w[::-1].tolist()) <= limit_w
    assert (power_w >= 0).all()
    again = split_power_w(fleet, limit_w, wants)
    assert (again == power_w).all()


def test_ten_thousand_nodes_take_milliseconds() -> None:
    fleet, rng = random_fleet(10_000, 1, kinds=500), np.random.default_rng(1)
    wants = Wants(rng.uniform(0.3, 1.2, 10_000) * fleet.curve_tokens_per_s[:, -1])
    limit_w, times_s = middle_w(fleet), []
    for _ in range(10):
        started_s = time.thread_time()
        split_power_w(fleet, limit_w, wants)
        times_s.append(time.thread_time() - started_s)
    assert min(times_s) < 0.1  # five times the aim: this machine is shared
