from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin, PowerCurve, floor_point

POINTS = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=12)


@st.composite
def curves(draw: st.DrawFn) -> PowerCurve:
    return PowerCurve.lower_hull(draw(st.floats(0, 1000)), draw(POINTS))


@given(floor_w=st.floats(0, 1000), points=POINTS)
def test_the_hull_is_convex_rising_and_below_every_point(
    floor_w: float, points: list[tuple[float, float]]
) -> None:
    curve = PowerCurve.lower_hull(floor_w, points)
    slopes = curve.slopes_w_per_token_per_s
    assert all(b >= a - 1e-6 * max(1.0, a) for a, b in pairwise(slopes))
    assert curve.floor_w == floor_w
    for tokens_per_s, power_w in points:
        bound_w = max(power_w, floor_w)
        assert curve.power_w_at(tokens_per_s) <= bound_w + 1e-6 * max(1.0, bound_w)


@given(curve=curves(), share=st.floats(0, 1))
def test_power_and_throughput_are_inverse(curve: PowerCurve, share: float) -> None:
    power_w = curve.floor_w + share * (curve.max_power_w - curve.floor_w)
    tokens_per_s = curve.tokens_per_s_at(power_w)
    assert curve.power_w_at(tokens_per_s) <= power_w + 1e-6 * max(1.0, power_w)
    assert curve.tokens_per_s_at(power_w + 1.0) >= tokens_per_s


@given(parts=st.lists(curves(), min_size=1, max_size=4), share=st.floats(0, 1))
def test_together_curves_need_no_more_than_any_split(parts: list[PowerCurve], share: float) -> None:
    joint = PowerCurve.combined(parts)
    assert joint.max_tokens_per_s == pytest.approx(sum(p.max_tokens_per_s for p in parts))
    assert joint.max_power_w == pytest.approx(sum(p.max_power_w for p in parts))
    even_w = sum(part.power_w_at(share * part.max_tokens_per_s) for part in parts)
    assert joint.power_w_at(share * joint.max_tokens_per_s) <= even_w * (1 + 1e-9) + 1e-6


def test_values_between_and_beyond_the_breakpoints() -> None:
    curve = PowerCurve((0.0, 100.0, 200.0), (50.0, 100.0, 300.0))
    assert [curve.power_w_at(t) for t in (-1, 0, 50, 150, 200, 999)] == [50, 50, 75, 200, 300, 300]
    assert [curve.tokens_per_s_at(w) for w in (49, 50, 75, 200, 300, 999)] == [
        0,
        0,
        50,
        150,
        200,
        200,
    ]


def test_a_flat_start_gives_all_its_tokens_at_idle_power() -> None:
    assert PowerCurve((0.0, 10.0, 20.0), (5.0, 5.0, 9.0)).tokens_per_s_at(5.0) == 10.0


@pytest.mark.parametrize(
    ("tokens", "power", "field"),
    [
        ((0.0, 1.0), (1.0,), "power_w"),
        ((), (), "power_w"),
        ((1.0, 2.0), (1.0, 2.0), "tokens_per_s[0]"),
        ((0.0, 2.0, 2.0), (1.0, 2.0, 3.0), "tokens_per_s"),
        ((0.0, 1.0), (2.0, 1.0), "power_w"),
        ((0.0, 1.0, 2.0), (0.0, 5.0, 6.0), "power_w"),
    ],
)
def test_an_impossible_curve_is_refused_by_field(
    tokens: tuple[float, ...], power: tuple[float, ...], field: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        PowerCurve(tokens, power)
    assert caught.value.field == field


def test_a_table_without_points_is_refused() -> None:
    with pytest.raises(InvalidValue, match="points"):
        FrontierTable("A100", 4, "m", 1.0, Origin.MODELLED, ())


def test_the_floor_point_is_the_most_throughput_at_about_the_least_power() -> None:
    def point(batch: int, tokens_per_s: float, gpu_power_w: float, itl_s: float) -> OperatingPoint:
        return OperatingPoint(100.0, batch, tokens_per_s, gpu_power_w, 0.1, itl_s)

    small, good, slow = (
        point(1, 10, 397, 0.01),
        point(16, 90, 400, 0.05),
        point(64, 300, 400, 0.3),
    )
    hungry = point(64, 900, 800, 0.05)
    assert floor_point([small, good, slow, hungry], 0.1) is good
    assert floor_point([slow, hungry], 0.1) is slow
