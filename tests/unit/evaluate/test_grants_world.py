from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pals_grid.evaluate.grants_nodes import Faults, make_fleet
from pals_grid.evaluate.grants_table import GrantTable
from pals_grid.evaluate.grants_world import GrantsWorld

if TYPE_CHECKING:
    from pals_grid.evaluate.grants_nodes import Tally

GIVEN_RUNS = os.environ.get("PALS_GRID_GRANT_RUNS")

CALM = Faults(
    lost_ratio=0.0,
    doubled_ratio=0.0,
    late_ratio=0.0,
    cut_off_per_h=0.0,
    agent_crashes_per_h=0.0,
    machine_crashes_per_h=0.0,
    lies_per_h=0.0,
    meter_noise_ratio=0.0,
    takeovers_per_h=0.0,
    unwritten_ratio=0.0,
    clock_steps_per_h=0.0,
)


def run(count: int, seed: int, seconds: float, faults: Faults) -> Tally:
    return GrantsWorld(make_fleet(count, seed), seed, faults, slot_s=300.0).run(seconds)


@st.composite
def faults(draw: st.DrawFn) -> Faults:
    return Faults(
        lost_ratio=draw(st.floats(0, 0.5)),
        doubled_ratio=draw(st.floats(0, 0.3)),
        late_ratio=draw(st.floats(0, 0.5)),
        late_s=draw(st.floats(0.5, 60)),
        cut_off_per_h=draw(st.floats(0, 20)),
        agent_crashes_per_h=draw(st.floats(0, 10)),
        machine_crashes_per_h=draw(st.floats(0, 5)),
        lies_per_h=draw(st.floats(0, 5)),
        meter_noise_ratio=draw(st.floats(0, 0.05)),
        takeovers_per_h=draw(st.floats(0, 20)),
        drift_ratio=draw(st.floats(0, 9e-4)),
        write_late_s=draw(st.floats(0, 60)),
        unwritten_ratio=draw(st.floats(0, 0.5)),
        clock_steps_per_h=draw(st.floats(0, 60)),
    )


# A failing example is many thousand events anyway: making it smaller takes minutes.
# The same few examples in every run; `make test-grants` looks at many others.
@settings(
    max_examples=int(GIVEN_RUNS or 12),
    deadline=None,
    derandomize=GIVEN_RUNS is None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(count=st.integers(2, 10), seed=st.integers(0, 10**6), wrong=faults())
def test_whatever_goes_wrong_the_commanded_sum_stays_inside_the_budget(
    count: int, seed: int, wrong: Faults
) -> None:
    tally = run(count, seed, 900.0, wrong)
    assert tally.changes > 0
    assert tally.commanded_over_w <= 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_a_common_day_draws_inside_its_budget_and_serves_more_than_the_schedule(seed: int) -> None:
    tally = run(40, seed, 3000.0, Faults())
    assert tally.commanded_over_w <= 1e-6
    assert tally.over_ratio < 0.001
    assert tally.served_tokens > 1.01 * tally.scheduled_tokens
    assert tally.counts["raises"] > 100
    assert tally.counts["lost"] > 1000


def test_without_faults_more_is_served_and_nobody_seems_to_lie() -> None:
    tally = run(20, 3, 1500.0, CALM)
    assert tally.counts.get("liars counted", 0) == 0
    assert tally.served_tokens > 1.02 * tally.scheduled_tokens
    assert tally.served_tokens <= tally.demanded_tokens


def test_the_same_seed_is_the_same_run() -> None:
    assert run(5, 9, 400.0, Faults()) == run(5, 9, 400.0, Faults())


def test_without_the_fence_an_allocator_that_was_replaced_breaks_the_budget() -> None:
    often = Faults(takeovers_per_h=20.0)

    def worst_w(table: GrantTable) -> float:
        world = GrantsWorld(make_fleet(10, 2), 2, often, slot_s=300.0, table=table)
        return world.run(1800.0).commanded_over_w

    fenced = GrantTable()
    assert worst_w(fenced) <= 1e-6
    assert fenced.refused > 10
    assert worst_w(GrantTable(fenced=False)) > 100.0
