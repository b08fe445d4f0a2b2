"""``pals-grid`` decision by decision, on a table that can be worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from pals_grid.core.fleet import FrontierTable, Origin
from pals_grid.core.site import Slo
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.strategies.options import Target
from pals_grid.node.strategies.registry import make_strategy
from pals_grid.node.strategies.unit import BEST, CHEAPEST, HELD, LEAST, MOST, STUCK
from tests.unit.node.strategies.bench import OVERHEAD, Bench, LockableGpu
from tests.unit.node.strategies.world import (
    engine_sample,
    envelope,
    hand_table,
    node_power,
    point,
    seen,
)


def test_at_part_load_the_least_power_for_what_arrives() -> None:
    """400 tokens/s: 100 W can do it (800), and draw the least there."""
    (command,) = Bench().run(envelope(2000.0), rate_per_s=4.0, running=4)
    assert (command.power_limit_w, command.reason) == (100.0, LEAST)


def test_without_part_load_the_levels_are_compared_saturated() -> None:
    """At 200 W a full batch gives the most tokens/J, 5."""
    (command,) = Bench(part_load=False, correction=False).run(
        envelope(2000.0), rate_per_s=4.0, running=4
    )
    assert command.power_limit_w == 200.0


def test_more_load_needs_a_higher_limit_and_no_more_than_that() -> None:
    (command,) = Bench(correction=False).run(envelope(2000.0), rate_per_s=14.0)
    assert command.reason == LEAST
    assert 100.0 < command.power_limit_w < 200.0


def test_five_times_the_arrivals_get_everything_at_the_first_tick() -> None:
    bench = Bench()
    bench.run(envelope(2000.0), rate_per_s=4.0, running=4)
    (command,) = bench.run(envelope(2000.0), rate_per_s=20.0, running=12, ticks=1)
    assert (command.power_limit_w, command.max_num_seqs) == (300.0, 64)
    assert command.reason == MOST
    slow = Bench(feed_forward=False)
    slow.run(envelope(2000.0), rate_per_s=4.0, running=4)
    (command,) = slow.run(envelope(2000.0), rate_per_s=20.0, running=12, ticks=1)
    assert command.power_limit_w < 200.0


def test_after_a_jump_the_limit_comes_down_step_by_step() -> None:
    bench = Bench(correction=False)
    bench.run(envelope(2000.0), rate_per_s=4.0, running=4)
    bench.run(envelope(2000.0), rate_per_s=20.0, running=12, ticks=3)
    limits_w = [
        bench.run(envelope(2000.0), rate_per_s=4.0, running=4, ticks=1)[0].power_limit_w
        for _ in range(120)
    ]
    assert limits_w == sorted(limits_w, reverse=True)
    assert limits_w[0] > 200.0
    assert limits_w[-1] == 100.0


def test_a_throughput_target_of_a_saturated_engine() -> None:
    """Best tokens/J is at 200 W; 2200 tokens/s need a limit between 200 and 300 W."""
    bench = Bench(target="envelope")
    (command,) = bench.run(envelope(2000.0, 1500.0), running=64, waiting=4, ticks=1)
    assert (command.power_limit_w, command.max_num_seqs, command.reason) == (200.0, 64, BEST)
    (command,) = bench.run(envelope(2000.0, 2200.0), running=64, waiting=4, ticks=1)
    assert command.power_limit_w == pytest.approx(252.75, abs=1.5)


def test_without_correction_the_pid_does_it() -> None:
    bench = Bench(target="envelope", correction=False)
    (command,) = bench.run(envelope(2000.0, 1900.0), rate_per_s=15.0, running=64, waiting=4)
    assert command.power_limit_w > 220.0


@pytest.mark.parametrize("power_w", [350.0, 500.0, 590.0])
def test_a_budget_is_used_but_for_its_margin(power_w: float) -> None:
    bench = Bench(correction=False, tracking=False)
    (command,) = bench.run(envelope(power_w), running=64, waiting=9, power_w=0.0, ticks=3)
    assert command.reason == MOST
    # At 64 sequences the table's draw is twice the limit.
    assert command.power_limit_w == pytest.approx(power_w * 0.994 / 2, abs=0.3)


def test_a_smaller_budget_is_obeyed_in_the_same_tick() -> None:
    bench = Bench(correction=False)
    bench.run(envelope(600.0), running=64, waiting=9, power_w=298.0, ticks=20)
    (command,) = bench.run(envelope(400.0), running=64, waiting=9, power_w=298.0, ticks=1)
    assert command.power_limit_w <= 200.0


def test_below_everything_the_cheapest_point_and_what_is_still_over_is_said() -> None:
    bench = Bench()
    (command,) = bench.run(envelope(150.0), running=64, waiting=9, power_w=100.0)
    assert command.power_limit_w == 100.0
    assert command.reason.startswith(CHEAPEST)
    assert STUCK in command.reason


def test_power_that_does_not_obey_is_held_whatever_the_table_says() -> None:
    bench = Bench(tracking=False)
    (command,) = bench.run(
        envelope(560.0), rate_per_s=14.0, running=64, waiting=9, power_w=300.0, ticks=6
    )
    assert command.power_limit_w <= 300.0 * (560 / 600)
    assert HELD in command.reason


def test_itl_of_an_objective_bounds_the_batch() -> None:
    (command,) = Bench(slo=Slo(2.0, 0.05), latency=False, correction=False).run(
        envelope(2000.0), rate_per_s=4.0, running=4
    )
    assert command.max_num_seqs == 30  # 10 ms + 1 ms a sequence within 80 % of 50 ms


def test_misses_shrink_the_part_of_the_objective_that_is_planned_with() -> None:
    bench = Bench(slo=Slo(2.0, 0.05))
    (before,) = bench.run(envelope(2000.0), rate_per_s=4.0, running=4)
    for k in range(120):
        done = bench.finished[0] + 2 * (k + 1)
        sample = dataclasses.replace(
            engine_sample(running=4, tokens=100.0 * done, finished=done), itl_misses_total=k
        )
        (after,) = bench.strategy.decide(
            [seen(sample, 100.0, 100.0)], envelope(2000.0), node_power(200.0), 0.5
        )
    assert after.command is not None
    assert after.command.max_num_seqs < 0.8 * before.max_num_seqs


def test_new_objectives_count_at_once() -> None:
    bench = Bench(latency=False, correction=False)
    (wide,) = bench.run(envelope(2000.0), rate_per_s=4.0, running=4)
    bench.strategy.set_slo(Slo(2.0, 0.05))
    (tight,) = bench.run(envelope(2000.0), rate_per_s=4.0, running=4, ticks=1)
    assert (wide.max_num_seqs, tight.max_num_seqs) == (64, 30)


def test_the_lowest_tier_loses_first_and_says_so() -> None:
    bench = Bench(2, loss_ratios=(0.0, 0.5), correction=False, tracking=False)
    goal = envelope(1000.0)
    first, second = bench.run(goal, running=64, waiting=9, power_w=0.0, ticks=3)
    assert first.power_limit_w == pytest.approx(300.0, abs=3.0)
    assert second.power_limit_w == pytest.approx(200.0, abs=6.0)
    assert "loses" in second.reason
    assert "loses" not in first.reason


def test_with_tiers_off_all_lose_alike() -> None:
    bench = Bench(2, loss_ratios=(0.0, 0.5), correction=False, tracking=False, tiers=False)
    first, second = bench.run(envelope(1000.0), running=64, waiting=9, power_w=0.0, ticks=3)
    assert first.power_limit_w == pytest.approx(second.power_limit_w, abs=0.5)


def locked_table() -> FrontierTable:
    """At 300 W a lock gives the same throughput for two thirds of the power."""
    free = [p for p in hand_table().points if p.max_num_seqs == 64]
    locked = dataclasses.replace(point(300.0, 64, 2390.0, 390.0), sm_clock_mhz=1000.0)
    return FrontierTable("Fake GPU", 2, "m", 5.0, Origin.SIMULATED, (*free, locked))


@pytest.mark.parametrize(
    ("gpu", "on", "clock_mhz"),
    [(LockableGpu, True, 1000.0), (LockableGpu, False, None), (FakeGpu, True, None)],
)
def test_the_clock_is_a_third_knob_where_the_gpus_have_it(
    gpu: type[FakeGpu], on: bool, clock_mhz: float | None
) -> None:
    bench = Bench(table=locked_table(), gpu=gpu, target="envelope", clock_lock=on)
    (command,) = bench.run(envelope(2000.0, 2300.0), running=64, waiting=4, ticks=1)
    assert command.sm_clock_mhz == clock_mhz


def test_a_unit_without_table_is_only_observed_and_its_power_counts() -> None:
    bare = EngineUnit("bare", FakeEngine(), (FakeGpu("c"),))
    ours = EngineUnit("ours", FakeEngine(), (FakeGpu("a"), FakeGpu("b")), hand_table())
    strategy = make_strategy(
        "pals-grid", [bare, ours], OVERHEAD, Slo(), correction=False, tracking=False
    )
    views = [
        seen(engine_sample(running=1), 200.0),
        seen(engine_sample(running=64, waiting=9), 0.0, 0.0),
    ]
    for _ in range(3):
        left, right = strategy.decide(views, envelope(600.0), node_power(200.0), 0.5)
    assert left.command is None
    assert right.command is not None
    assert right.command.power_limit_w == pytest.approx((600 * 0.994 - 200) / 2, abs=0.5)


def test_with_both_the_envelopes_target_counts_though_nobody_asks() -> None:
    (idle,) = Bench().run(envelope(2000.0, 1900.0), running=1)
    (ready,) = Bench(target=Target.BOTH).run(envelope(2000.0, 1900.0), running=1)
    assert idle.power_limit_w == 100.0
    assert ready.power_limit_w > 190.0
