from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.sim.clock import SimClock

START = datetime(2022, 11, 1, tzinfo=UTC)


def test_both_times_go_together_and_only_when_told() -> None:
    clock = SimClock(START, monotonic_s=7.0)
    assert (clock.now(), clock.monotonic_s()) == (START, 7.0)
    clock.advance(0.5)
    assert clock.now() == START + timedelta(seconds=0.5)
    assert clock.monotonic_s() == 7.5


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf])
def test_it_never_steps_back(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="seconds"):
        SimClock(START).advance(seconds)


def test_a_naive_start_is_refused() -> None:
    with pytest.raises(InvalidValue, match="start_at"):
        SimClock(datetime(2022, 11, 1))  # noqa: DTZ001  # the point of the test
