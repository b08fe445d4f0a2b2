"""Levels and the choice among them, against what a scan of everything finds."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.fleet import OperatingPoint
from pals_grid.core.site import Slo
from pals_grid.node.strategies.choice import (
    KEEP_LOAD_RATIO,
    NOTHING,
    REFERENCE,
    Backlog,
    LevelChooser,
)
from pals_grid.node.strategies.latency import LatencyPlan
from pals_grid.node.strategies.levels import LevelTable
from pals_grid.node.strategies.surface import Surface
from tests.unit.node.strategies.world import hand_table, point

SLO = Slo(2.0, 0.1)
BATCHES = (1, 8, 64)


def level_table(points: list[OperatingPoint] | None = None) -> LevelTable:
    surface = Surface(points or list(hand_table().points), 100.0, 400.0)
    return LevelTable(surface, LatencyPlan(SLO))


@st.composite
def tables(draw: st.DrawFn) -> LevelTable:
    """Up to four limits and a lock, three batches each; corrected at one limit."""
    points = []
    for clock_mhz in (None, 1000.0) if draw(st.booleans()) else (None,):
        limits_w = (100.0, 180.0, 300.0, 400.0)[: draw(st.integers(1, 4))]
        for limit_w in limits_w:
            scale = draw(st.floats(0.3, 1.5)) * limit_w
            for batch in BATCHES:
                tokens = scale * batch**0.6 * draw(st.floats(0.8, 1.2))
                power_w = draw(st.floats(0.5, 1.0)) * limit_w * (1 + batch / 64)
                itl_s = 0.01 + batch / draw(st.floats(500, 2000))
                points.append(
                    OperatingPoint(limit_w, batch, tokens, power_w, 0.2, itl_s, clock_mhz)
                )
    table = level_table(points)
    correction = next(iter(table.corrections.values()))
    correction.learn(
        draw(st.floats(100, 400)), draw(st.floats(0.7, 1.4)), draw(st.floats(0.7, 1.4))
    )
    table.refresh_all()
    return table


loads = st.floats(1, 8000)
backlogs = st.one_of(st.just(NOTHING), st.builds(Backlog, st.integers(0, 100), st.floats(0, 50)))
budgets_w = st.one_of(st.just(math.inf), st.floats(50, 900))
slowdowns = st.one_of(st.just(math.inf), st.just(0.0), st.floats(0, 1))


@given(tables(), loads)
def test_a_load_orders_the_levels_by_draw_and_the_fastest_is_no_slower(
    table: LevelTable, load: float
) -> None:
    found = table.at_load(load)
    count = len(table.surface.levels)
    assert sorted(found.order) == list(range(count))
    ranked = [found.power_w[i] for i in found.order]
    assert ranked == sorted(ranked)
    assert min(found.slowdown_ratio) == 0.0
    assert len(found.slowdown_ratio) == count


def test_slowdown_by_hand() -> None:
    """At 400 tokens/s each limit runs within its batch of 8, where all have the same ITL; at
    700 tokens/s 100 W needs some 38 requests inside and is the slowest."""
    table = level_table()
    assert set(table.at_load(400.0).slowdown_ratio) == {0.0}
    slower = table.at_load(700.0).slowdown_ratio
    assert slower[0] == max(slower) > 0.5
    assert slower == sorted(slower, reverse=True)
    assert slower[-1] == 0.0


def does(
    table: LevelTable,
    i: int,
    load: float,
    ready: float,
    backlog: Backlog,
    budget_w: float,
    slowdown: float,
) -> bool:
    found = table.at_load(load)
    fit = table.fit_running[i]
    spare = table.fit_tokens[i] - ready
    return (
        fit > 0
        and spare >= 0
        and spare >= (backlog.inside - fit) * backlog.tokens_per_s
        and found.slowdown_ratio[i] <= slowdown
        and found.power_w[i] * table.power_ratio[i] <= budget_w
    )


@given(tables(), loads, st.floats(1, 2), backlogs, budgets_w, slowdowns)
def test_the_choice_for_a_load_equals_a_scan_of_all_levels(
    table: LevelTable,
    load: float,
    margin: float,
    backlog: Backlog,
    budget_w: float,
    slowdown: float,
) -> None:
    ready = load * margin
    chosen = LevelChooser(table, hysteresis=False).for_load(
        load, ready, backlog, budget_w, None, slowdown
    )
    seen = load / table.tokens_ratio[REFERENCE]
    powers_w = table.at_load(seen).power_w
    able = [
        i for i in range(len(powers_w)) if does(table, i, seen, ready, backlog, budget_w, slowdown)
    ]
    if not able:
        assert chosen is None
        return
    assert chosen in able
    assert powers_w[chosen] == min(powers_w[i] for i in able)


@given(tables(), loads, slowdowns, st.data())
def test_a_kept_level_does_it_too_and_costs_hardly_more(
    table: LevelTable, load: float, slowdown: float, data: st.DataObject
) -> None:
    current = data.draw(st.integers(0, len(table.surface.levels) - 1))
    chooser = LevelChooser(table)
    kept = chooser.for_load(load, load, NOTHING, math.inf, current, slowdown)
    if kept != current or kept is None:
        return
    seen = load / table.tokens_ratio[current]
    powers_w = table.at_load(seen).power_w
    able = [
        i for i in range(len(powers_w)) if does(table, i, seen, load, NOTHING, math.inf, slowdown)
    ]
    assert kept in able
    clock = table.surface.levels[kept].sm_clock_mhz
    least_w = min(powers_w[i] for i in able if table.surface.levels[i].sm_clock_mhz == clock)
    assert powers_w[kept] <= least_w * (1 + KEEP_LOAD_RATIO)


def test_a_current_level_is_not_kept_where_nothing_does_it() -> None:
    table = level_table()
    chooser = LevelChooser(table)
    beyond = 2 * table.most_tokens_per_s
    assert chooser.for_load(400.0, beyond, NOTHING, math.inf, 3) is None
    assert chooser.for_load(400.0, 400.0, NOTHING, 1.0, 3) is None


def test_requests_too_many_inside_ask_for_a_higher_limit() -> None:
    """At 100 W and 64 inside 100 tokens/s are to spare; 20 more ask for 10 tokens/s each."""
    chooser = LevelChooser(level_table())
    calm = chooser.for_load(700.0, 700.0, Backlog(64, 10.0), math.inf, None)
    full = chooser.for_load(700.0, 700.0, Backlog(84, 10.0), math.inf, None)
    assert calm is not None
    assert full is not None
    assert calm < full


def test_a_bound_on_the_slowdown_asks_for_a_faster_level() -> None:
    chooser = LevelChooser(level_table())
    free = chooser.for_load(700.0, 700.0, NOTHING, math.inf, None)
    bounded = chooser.for_load(700.0, 700.0, NOTHING, math.inf, None, 0.1)
    fastest = chooser.for_load(700.0, 700.0, NOTHING, math.inf, None, 0.0)
    assert free is not None
    assert bounded is not None
    assert fastest is not None
    assert free < bounded < fastest


def test_limits_between_the_tables_are_for_the_free_clock_only() -> None:
    locked = [dataclasses.replace(p, sm_clock_mhz=1000.0) for p in hand_table().points]
    surface = Surface([*hand_table().points, *locked], 100.0, 400.0)
    assert len(surface.track(1000.0).levels) == 3
    assert len(surface.track(None).levels) > 50


def test_a_batch_that_is_held_bounds_every_level() -> None:
    table = level_table()
    free = list(table.fit_tokens)
    table.hold(20)
    assert max(table.fit_running) == 20
    assert table.overload_running(0) == 20
    assert all(a < b for a, b in zip(table.fit_tokens, free, strict=True))
    table.hold(math.inf)
    assert table.fit_tokens == pytest.approx(free)


def test_most_inside_a_budget_is_what_objectives_allow_first() -> None:
    slow = dataclasses.replace(point(300.0, 8, 5000.0, 300.0), itl_s=0.5)
    points = [point(100.0, 8, 500.0, 200.0), slow]
    surface = Surface(points, 100.0, 400.0, interpolate=False)
    chooser = LevelChooser(LevelTable(surface, LatencyPlan(SLO)))
    assert chooser.most(1000.0) == 0
    assert chooser.most(100.0) is None
