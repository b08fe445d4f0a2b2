from __future__ import annotations

from pals_grid.accounting.per_token import energy_j_per_token, idle_ratio, miss_ratio


def test_ratios() -> None:
    assert energy_j_per_token(500.0, 250.0) == 2.0
    assert idle_ratio(25.0, 100.0) == 0.25
    assert miss_ratio(1, 4) == 0.25


def test_nothing_to_divide_by_is_none_not_zero() -> None:
    assert energy_j_per_token(500.0, 0.0) is None
    assert idle_ratio(0.0, 0.0) is None
    assert miss_ratio(0, 0) is None


def test_an_idle_share_is_never_above_one() -> None:
    assert idle_ratio(100.0000001, 100.0) == 1.0
