from __future__ import annotations

import pytest

from pals_grid.node.deadlines import Deadlines


def test_ticks_in_time_have_no_lag() -> None:
    deadlines = Deadlines(0.5)
    assert [deadlines.begin(10 + i * 0.5) for i in range(3)] == [(0.0, 0)] * 3
    assert deadlines.wait_s(11.2) == pytest.approx(0.3)


def test_the_grid_stays_when_one_tick_is_late() -> None:
    deadlines = Deadlines(0.5)
    deadlines.begin(10.0)
    assert deadlines.begin(10.7) == pytest.approx((0.2, 0))
    assert deadlines.wait_s(10.8) == pytest.approx(0.2)


def test_missed_ticks_are_counted_not_piled_up() -> None:
    deadlines = Deadlines(0.5)
    deadlines.begin(10.0)
    assert deadlines.begin(12.6) == pytest.approx((2.1, 4))
    assert deadlines.wait_s(12.6) == pytest.approx(0.4)
