from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pals_grid.counterfactual.ledger import Ledger


def test_what_must_be_served_comes_before_what_may_wait() -> None:
    ledger = Ledger(10)
    ledger.arrive(30.0, 0)
    ledger.arrive(50.0, 5)
    served = ledger.serve(0, at_once=20.0, grant=0.0, room=100.0)
    assert (served.tokens, served.late_at_once, served.late_waiting) == (50.0, 0.0, 0.0)
    assert list(ledger.dues()) == [(5, 50.0)]


def test_a_grant_takes_the_earliest_deadline_first() -> None:
    ledger = Ledger(10)
    ledger.arrive(40.0, 7)
    ledger.arrive(40.0, 3)
    served = ledger.serve(0, at_once=10.0, grant=60.0, room=100.0)
    assert served.tokens == 60.0
    assert list(ledger.dues()) == [(7, 30.0)]


def test_work_without_room_is_late_once_and_served_first_afterwards() -> None:
    ledger = Ledger(4)
    ledger.arrive(30.0, 0)
    short = ledger.serve(0, at_once=90.0, grant=math.inf, room=100.0)
    assert (short.tokens, short.late_at_once, short.late_waiting) == (100.0, 0.0, 20.0)
    after = ledger.serve(1, at_once=10.0, grant=0.0, room=100.0)
    assert (after.tokens, after.late_at_once, after.late_waiting) == (30.0, 0.0, 0.0)
    assert ledger.late == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 100), st.integers(0, 6), st.floats(0, 300)),
        min_size=1,
        max_size=30,
    )
)
def test_no_token_is_lost_or_served_twice(steps: list[tuple[float, float, int, float]]) -> None:
    ledger = Ledger(len(steps) + 8)
    arrived = served = 0.0
    for slot, (at_once, later, window, grant) in enumerate(steps):
        ledger.arrive(later, slot + window)
        arrived += at_once + later
        served += ledger.serve(slot, at_once, grant, room=120.0).tokens
    left = ledger.waiting + ledger.late
    assert math.isclose(arrived, served + left, abs_tol=1e-6)
    assert math.isclose(ledger.waiting, sum(tokens for _, tokens in ledger.dues()), abs_tol=1e-4)
