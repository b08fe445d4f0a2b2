from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.fleet import Fleet, PowerCurve
from pals_grid.core.intervals import slots
from pals_grid.planner.supply import GAP_RATIO, MOST_PIECES, compress, slope_at, supplies_for

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def curve(floor_w: float, bend: float, segments: int) -> PowerCurve:
    return PowerCurve.lower_hull(
        floor_w,
        [(10.0 * k, floor_w + 5.0 * k + bend * k * k) for k in range(1, segments + 1)],
    )


@given(bend=st.floats(0.0, 5.0), segments=st.integers(1, 400))
def test_chords_lie_above_the_curve_by_no_more_than_is_said(bend: float, segments: int) -> None:
    exact = curve(500.0, bend, segments)
    supply = compress(exact)
    assert len(supply.widths) <= MOST_PIECES
    tokens = np.concatenate([[0.0], np.cumsum(supply.widths)])
    power_w = exact.floor_w + np.concatenate([[0.0], np.cumsum(supply.widths * supply.slopes)])
    above_w = np.array(
        [np.interp(rate, tokens, power_w) - exact.power_w_at(rate) for rate in exact.tokens_per_s]
    )
    range_w = exact.max_power_w - exact.floor_w
    assert -1e-9 * range_w <= above_w.min()
    assert above_w.max() <= supply.gap_w + 1e-9 * range_w
    # A quadratic's chords: a quarter of the width's square each.
    assert supply.gap_w <= max(GAP_RATIO, 1.1 / (4 * (MOST_PIECES / 2) ** 2)) * range_w + 1e-9


def test_few_segments_stay_as_they_are() -> None:
    exact = curve(500.0, 1.0, 8)
    supply = compress(exact)
    assert tuple(np.cumsum(supply.widths)) == pytest.approx(exact.tokens_per_s[1:])
    assert supply.gap_w == 0.0


def test_slots_with_the_same_limits_share_a_supply() -> None:
    step = timedelta(minutes=5)
    intervals = list(slots(NOW, NOW + 4 * step, step))
    hot = Fleet("hot", curve(500.0, 1.0, 8), thermal_limits=((intervals[1], 520.0),))
    first, second, third, _ = supplies_for([hot, Fleet("b", curve(300.0, 2.0, 8))], intervals)
    assert first is third
    assert second.curve.max_tokens_per_s < first.curve.max_tokens_per_s


def test_the_marginal_power_is_that_of_the_segment_below() -> None:
    supply = compress(PowerCurve((0.0, 10.0, 20.0), (100.0, 110.0, 140.0)))
    assert [slope_at(supply, rate) for rate in (0.0, 5.0, 10.0, 10.1, 20.0)] == [1, 1, 1, 3, 3]
    assert slope_at(compress(PowerCurve((0.0,), (100.0,))), 0.0) > 0
