from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.node.strategies.tiers import BEYOND, Need, share_budget, split_budget

GOLD = Need(1000.0, 1000.0, 400.0, 0.0)
SILVER = Need(1000.0, 900.0, 400.0, 0.1)
BRONZE = Need(1000.0, 600.0, 400.0, 0.5)


def shares(budget_w: float) -> list[float]:
    return [share.power_w for share in share_budget(budget_w, [GOLD, SILVER, BRONZE])]


def test_what_fits_is_granted_and_the_rest_spread() -> None:
    assert shares(3300.0) == pytest.approx([1100.0] * 3)


@pytest.mark.parametrize(
    ("budget_w", "expected"),
    [
        (2800.0, [1000.0, 1000.0, 800.0]),  # half of what the lowest tier may give
        (2600.0, [1000.0, 1000.0, 600.0]),
        (2550.0, [1000.0, 950.0, 600.0]),  # then the next tier
        (2500.0, [1000.0, 900.0, 600.0]),
    ],
)
def test_the_lowest_tier_gives_first(budget_w: float, expected: list[float]) -> None:
    assert shares(budget_w) == pytest.approx(expected)


def test_the_loss_is_said() -> None:
    notes = [share.note for share in share_budget(2550.0, [GOLD, SILVER, BRONZE])]
    assert notes[0] == ""
    assert "loses 5% of its target inside its tier of 10%" in notes[1]
    assert "loses 50% of its target inside its tier of 50%" in notes[2]


def test_beyond_the_tiers_the_shortage_is_shared_in_proportion_and_said() -> None:
    found = share_budget(1850.0, [GOLD, SILVER, BRONZE])
    # Above the floors of 400 W they need 600, 500 and 200 W; 650 W of 1300 W are there.
    assert [share.power_w for share in found] == pytest.approx([700.0, 650.0, 500.0])
    assert all(BEYOND in share.note for share in found)


def test_without_tiers_all_share_alike() -> None:
    found = share_budget(2100.0, [GOLD, SILVER, BRONZE], tiers=False)
    assert [share.power_w for share in found] == pytest.approx([700.0] * 3)


@given(
    st.floats(0, 6000),
    st.lists(
        st.tuples(
            st.floats(1, 1000), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0, 0.1, 0.5])
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_the_budget_is_never_exceeded_and_used_while_it_is_short(
    budget_w: float, units: list[tuple[float, float, float, float]]
) -> None:
    needs = []
    for full_w, part, floor, tier in units:
        floor_w = full_w * floor
        reduced_w = full_w if tier == 0 else floor_w + (full_w - floor_w) * part
        needs.append(Need(full_w, reduced_w, floor_w, tier))
    found = sum(share.power_w for share in share_budget(budget_w, needs))
    assert found == pytest.approx(budget_w, abs=1e-6)


@given(
    st.floats(0, 5000),
    st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_shares_stay_inside_the_budget_and_cover_needs_that_fit(
    budget_w: float, units: list[tuple[float, float]]
) -> None:
    needs = [need for need, _ in units]
    floors = [need * part for need, part in units]
    shares = split_budget(budget_w, needs, floors)
    assert sum(shares) <= budget_w + 1e-6
    if sum(needs) <= budget_w:
        assert all(share >= need - 1e-6 for share, need in zip(shares, needs, strict=True))
    elif sum(floors) <= budget_w:
        assert all(share >= floor - 1e-6 for share, floor in zip(shares, floors, strict=True))


def test_a_negative_budget_gives_nothing() -> None:
    assert split_budget(-5.0, [100.0, 50.0], [40.0, 20.0]) == [0.0, 0.0]


def test_a_node_without_units_to_share_with_shares_nothing() -> None:
    assert split_budget(500.0, [], []) == []
    assert share_budget(500.0, []) == []


def test_units_that_need_nothing_get_alike() -> None:
    assert split_budget(90.0, [0.0, 0.0], [0.0, 0.0]) == [45.0, 45.0]
