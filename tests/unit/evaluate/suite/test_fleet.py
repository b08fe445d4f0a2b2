from __future__ import annotations

import pytest

from pals_grid.core.fleet import NodeCapability, PowerCurve
from pals_grid.evaluate.suite.fleet import demand_capped, with_equal_margins

CURVE = PowerCurve((0.0, 500.0, 1000.0), (800.0, 1000.0, 1500.0))
NODE = NodeCapability(1, "n", 800.0, 1500.0, CURVE)


def test_a_curve_ends_at_its_demand() -> None:
    found = demand_capped(NODE, 700.0).curve
    assert found.tokens_per_s == (0.0, 500.0, 700.0)
    assert found.power_w == pytest.approx((800.0, 1000.0, 1200.0))


def test_no_demand_leaves_the_floor_and_a_large_one_everything() -> None:
    assert demand_capped(NODE, 0.0).curve == PowerCurve((0.0,), (800.0,))
    assert demand_capped(NODE, 5000.0) is NODE


def test_all_get_the_same_margin_as_far_as_the_budget_goes() -> None:
    nodes = with_equal_margins([NODE, NODE], [400.0, 400.0], 2020.0)
    # 400 tokens/s need 960 W; a quarter more is 500 tokens/s for 1000 W, another step does not fit.
    assert [node.curve.max_tokens_per_s for node in nodes] == pytest.approx([500.0, 500.0])
    assert with_equal_margins([NODE], [None], 900.0) == [NODE]


def test_a_budget_below_the_demand_still_asks_for_the_demand() -> None:
    (node,) = with_equal_margins([NODE], [800.0], 900.0)
    assert node.curve.max_tokens_per_s == pytest.approx(800.0)
