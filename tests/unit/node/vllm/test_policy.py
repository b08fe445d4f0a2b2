from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.node.vllm.layout import MAX_LEASE_S, BatchMode, Control
from pals_grid.node.vllm.policy import BatchPolicy, StepPlan
from pals_grid.node.vllm.target import LeasedTarget

STEP_S = 0.02


@dataclass(eq=False)
class Stream:
    request_id: str
    num_output_placeholders: int = 0


def streams(count: int) -> list[Stream]:
    return [Stream(f"r{index}") for index in range(count)]


def names(plan: StepPlan) -> set[str]:
    return {request.request_id for request in plan.parked}


def test_below_the_target_nothing_happens_but_the_limit() -> None:
    for mode in BatchMode:
        assert BatchPolicy().plan(streams(3), 8, mode, 0.0) == StepPlan(8, [], ())


def test_drain_lets_nobody_in_and_never_asks_for_less_than_there_are() -> None:
    assert BatchPolicy().plan(streams(16), 4, BatchMode.DRAIN, 0.0).limit == 16


def test_preempt_puts_out_the_newest() -> None:
    running = streams(6)
    plan = BatchPolicy().plan(running, 4, BatchMode.PREEMPT, 0.0)
    assert (plan.limit, list(plan.preempted)) == (4, running[4:])


def test_park_leaves_out_the_newest_first_and_lets_nobody_new_in() -> None:
    plan = BatchPolicy().plan(streams(16), 4, BatchMode.PARK, 0.0)
    assert plan.limit == 4
    assert names(plan) == {f"r{index}" for index in range(4, 16)}


@pytest.mark.parametrize("cap", [1, 3, 8, 15])
def test_everybody_gets_a_turn_and_nobody_waits_long(cap: int) -> None:
    policy, running = BatchPolicy(), streams(16)
    last_s = dict.fromkeys((r.request_id for r in running), 0.0)
    longest_s = 0.0
    for step in range(1000):
        now_s = step * STEP_S
        parked = names(policy.plan(running, cap, BatchMode.PARK, now_s))
        assert len(running) - len(parked) == cap
        for request in running:
            if request.request_id not in parked:
                longest_s = max(longest_s, now_s - last_s[request.request_id])
                last_s[request.request_id] = now_s
    turns = -(-(16 - cap) // cap)
    assert longest_s <= 0.25 + (turns + 1) * STEP_S
    assert longest_s <= 1.0
    assert policy.longest_park_s == pytest.approx(longest_s, abs=2 * STEP_S)


def test_a_place_that_gets_free_goes_to_whoever_waits_longest() -> None:
    policy, running = BatchPolicy(), streams(4)
    assert names(policy.plan(running, 2, BatchMode.PARK, 0.0)) == {"r2", "r3"}
    assert names(policy.plan(running[1:], 2, BatchMode.PARK, 0.02)) == {"r2"}


def test_who_has_a_token_under_way_stays_parked_even_when_parking_ends() -> None:
    policy, running = BatchPolicy(), streams(3)
    policy.plan(running, 2, BatchMode.PARK, 0.0)
    running[2].num_output_placeholders = 1
    for mode in BatchMode:
        plan = policy.plan(running, 3, mode, 0.02)
        assert (names(plan), plan.limit) == ({"r2"}, 2)
    running[2].num_output_placeholders = 0
    assert policy.plan(running, 3, BatchMode.DRAIN, 0.04) == StepPlan(3, [], ())


def test_no_request_is_both_parked_and_preempted() -> None:
    policy, running = BatchPolicy(), streams(4)
    policy.plan(running, 2, BatchMode.PARK, 0.0)
    for request in running:
        request.num_output_placeholders = 1
    plan = policy.plan(running, 3, BatchMode.PREEMPT, 0.02)
    assert [r.request_id for r in plan.preempted] == ["r3"]
    assert (names(plan), plan.limit) == ({"r2"}, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from(BatchMode), st.integers(0, 14))))
def test_whatever_comes_a_plan_can_be_carried_out(
    steps: list[tuple[int, BatchMode, int]],
) -> None:
    policy = BatchPolicy()
    everybody = streams(14)
    for index, (cap, mode, count) in enumerate(steps):
        running = everybody[14 - count :] if index % 2 else everybody[:count]
        plan = policy.plan(running, cap, mode, index * STEP_S)
        inside = {id(request) for request in running}
        assert all(id(request) in inside for request in (*plan.parked, *plan.preempted))
        left = count - len(plan.parked) - len(plan.preempted)
        assert left <= plan.limit
        if mode is not BatchMode.DRAIN:
            assert left <= cap
        assert plan.limit + len(plan.parked) <= max(cap, count)


def control(max_num_seqs: int = 4, left_s: float = 3.0) -> Control:
    return Control(7, max_num_seqs, BatchMode.PARK, 100.0 + left_s)


@pytest.mark.parametrize(("asked", "got"), [(4, 4), (1, 1), (99, 16)])
def test_a_target_holds_within_the_engines_own_limit(asked: int, got: int) -> None:
    target = LeasedTarget().target(control(asked), 16, 100.0)
    assert target == (7, got, BatchMode.PARK)


@pytest.mark.parametrize("left_s", [0.0, -1.0, MAX_LEASE_S + 0.1, float("nan"), float("inf")])
def test_a_lease_that_ran_out_or_cannot_be_leaves_the_engine_to_itself(left_s: float) -> None:
    assert LeasedTarget().target(control(left_s=left_s), 16, 100.0) == (0, 16, BatchMode.DRAIN)


def test_no_target_is_no_lapse() -> None:
    lease = LeasedTarget()
    assert lease.target(None, 16, 0.0).generation == 0
    assert lease.target(control(0), 16, 100.0).generation == 0
    assert lease.lapses == 0


def test_a_lapse_is_counted_once() -> None:
    lease = LeasedTarget()
    lease.target(control(), 16, 100.0)
    for now_s in (104.0, 105.0):
        lease.target(control(), 16, now_s)
    assert lease.lapses == 1
