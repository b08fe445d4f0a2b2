"""What a split of ten thousand nodes costs, and how far from the optimum it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import TYPE_CHECKING

import click
import numpy as np

from pals_grid.allocator.fill import Wants, relaxed_power_w, split_power_w
from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.levels import Levels
from pals_grid.allocator.live import live_round
from pals_grid.allocator.outlook import SiteBudget
from pals_grid.core.fleet import NodeCapability, PowerCurve

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.allocator.fleet_arrays import Floats

NODES = 10_000
POINTS = 20
CALLS = 60


@dataclass(frozen=True, slots=True)
class SplitCost:
    """CPU time of one split, and the value lost against the linear programme's optimum."""

    what: str
    p50_ms: float
    p99_ms: float
    lost_ratio: float


def mixed_fleet(count: int, kinds: int, seed: int = 1) -> FleetArrays:
    """Nodes of ``kinds`` convex curves of up to 20 segments, made up."""
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(kinds):
        floor_w, top_w = rng.uniform(1500, 2500), rng.uniform(4000, 10_000)
        part = np.sort(rng.uniform(0.02, 1.0, POINTS))
        power_w = floor_w + (top_w - floor_w) * part ** rng.uniform(1.3, 2.5)
        points = zip((rng.uniform(1e3, 2e4) * part).tolist(), power_w.tolist(), strict=True)
        curves.append(PowerCurve.lower_hull(floor_w, points))
    chosen = [curves[i % kinds] for i in range(count)]
    return FleetArrays.of(
        [
            NodeCapability(i, str(i), curve.floor_w, curve.max_power_w * 1.02, curve)
            for i, curve in enumerate(chosen)
        ]
    )


def split_costs(count: int = NODES, calls: int = CALLS) -> list[SplitCost]:
    """Splits at half of the range, with demand; of one kind, of many, with levels, with tiers."""
    rng = np.random.default_rng(2)
    costs = []
    for what, fleet in (
        ("one kind", mixed_fleet(count, 1)),
        ("six kinds", mixed_fleet(count, 6)),
        ("every node its own kind", mixed_fleet(count, count)),
    ):
        demand = rng.uniform(0.3, 1.2, count) * fleet.curve_tokens_per_s[:, -1]
        mixed = Levels(np.where(rng.random(count) < 0.5, 20.0, 0.0), rng.random(count) < 0.5)
        tier = rng.integers(0, 4, count).astype(np.float64)
        cases = {
            "any power": Wants(demand),
            "levels of 20 W or points": Wants(demand, levels=mixed),
            "four tiers": Wants(demand, 0.2 * demand, tier),
        }
        costs += [_cost(f"{what}, {name}", fleet, wants, calls) for name, wants in cases.items()]
    return costs


def live_rounds(count: int) -> Callable[[], object]:
    """Whole live rounds of ``count`` nodes whose demand moves; every grant is acknowledged."""
    fleet = mixed_fleet(count, 6)
    limit_w = _half_w(fleet)
    schedule_w = split_power_w(fleet, limit_w)
    book = GrantBook(1, -1e6)
    for node_id in range(count):
        book.join(node_id, float(schedule_w[node_id]), float(fleet.power_max_w[node_id]))
    rows = {node_id: node_id for node_id in range(count)}
    rng = np.random.default_rng(3)
    top = fleet.curve_tokens_per_s[:, -1]
    clock = iter(range(0, 10**9, 5))

    def go() -> None:
        done = live_round(
            book,
            rows,
            fleet,
            Wants(rng.uniform(0.05, 1.2, count) * top),
            SiteBudget(limit_w),
            next(clock),
        )
        for node_id, one in done.issued.items():
            book.acknowledge(node_id, 1, one.grant.sequence)

    return go


def show_splits() -> None:
    """Print the table."""
    click.echo(
        f"\nsplit of {NODES} nodes, CPU time of{'':13} {'p50 ms':>9} {'p99 ms':>9} {'lost':>9}"
    )
    for item in split_costs():
        lost = f"{100 * item.lost_ratio:8.4f}%"
        click.echo(f"{item.what:54} {item.p50_ms:9.2f} {item.p99_ms:9.2f} {lost}")
    click.echo("Lost: value against the optimum of the linear programme, between levels by turns.")


def _half_w(fleet: FleetArrays) -> float:
    return float(fleet.power_min_w.sum() + fleet.curve_w[:, -1].sum()) / 2


def _cost(what: str, fleet: FleetArrays, wants: Wants, calls: int) -> SplitCost:
    limit_w = _half_w(fleet)
    times_ms = []
    power_w = split_power_w(fleet, limit_w, wants)
    for _ in range(calls):
        start_ns = time.process_time_ns()
        power_w = split_power_w(fleet, limit_w, wants)
        times_ms.append((time.process_time_ns() - start_ns) / 1e6)
    cuts = quantiles(times_ms, n=100)
    bound = _value(fleet, relaxed_power_w(fleet, limit_w, wants), wants)
    return SplitCost(what, cuts[49], cuts[98], 1 - _value(fleet, power_w, wants) / bound)


def _value(fleet: FleetArrays, power_w: Floats, wants: Wants) -> float:
    """Tokens/s inside the demand; between its points a node is at both of them by turns."""
    tokens, demand = fleet.curve_tokens_per_s, wants.demand_tokens_per_s
    if demand is not None:
        tokens = np.minimum(tokens, demand[:, None])
    by_turns = replace(fleet, curve_tokens_per_s=tokens).tokens_per_s_at(power_w)
    free = fleet.tokens_per_s_at(power_w)
    if demand is not None:
        free = np.minimum(free, demand)
    at_points = wants.levels.at_points if wants.levels is not None else False
    return float(np.where(at_points, by_turns, free).sum())
