from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_grid.planner.shift import Piece, fill_cheapest, unserved_work


def test_work_goes_to_the_cheapest_room_inside_its_window() -> None:
    pieces = [Piece(3.0, 0, 10.0), Piece(1.0, 1, 10.0), Piece(0.5, 2, 10.0)]
    assert fill_cheapest([5.0, 0.0, 0.0], [1, 1, 2], pieces) == [0.0, 5.0, 0.0]
    assert fill_cheapest([5.0, 0.0, 0.0], [2, 2, 2], pieces) == [0.0, 0.0, 5.0]


def test_equal_costs_keep_work_where_it_arrives() -> None:
    pieces = [Piece(1.0, slot, 10.0) for slot in range(3)]
    assert fill_cheapest([4.0, 5.0, 6.0], [2, 2, 2], pieces) == [4.0, 5.0, 6.0]


def test_work_without_room_is_named_by_the_slot_that_it_came_in() -> None:
    pieces = [Piece(1.0, 0, 2.0), Piece(1.0, 1, 3.0)]
    served = fill_cheapest([4.0, 4.0], [0, 1], pieces)
    assert served == [2.0, 3.0]
    assert unserved_work([4.0, 4.0], [0, 1], served) == [2.0, 1.0]


@settings(max_examples=150, deadline=None)
@given(
    work=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    window=st.integers(0, 2),
    costs=st.lists(st.integers(1, 9), min_size=6, max_size=6),
)
def test_no_assignment_of_single_tokens_serves_more_or_costs_less(
    work: list[int], window: int, costs: list[int]
) -> None:
    last = [min(2, i + window) for i in range(3)]
    room = [(cost, slot) for slot in range(3) for cost in sorted(costs[2 * slot : 2 * slot + 2])]
    pieces = [Piece(float(cost), slot, 1.0) for cost, slot in room]
    served = fill_cheapest([float(amount) for amount in work], last, pieces)
    cost = 0.0
    for slot, amount in enumerate(served):
        own = sorted(c for c, s in room if s == slot)
        cost += sum(own[: round(amount)])
    assert (-sum(served), cost) == pytest.approx(_best(work, last, room))


def _best(work: list[int], last: list[int], room: list[tuple[int, int]]) -> tuple[int, int]:
    sources = [i for i, amount in enumerate(work) for _ in range(amount)]
    best = (0, 0)
    for order in permutations(range(len(room)), len(sources)):
        used = [
            room[place][0]
            for source, place in zip(sources, order, strict=True)
            if source <= room[place][1] <= last[source]
        ]
        best = min(best, (-len(used), sum(used)))
    return best
