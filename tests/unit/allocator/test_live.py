from __future__ import annotations

import numpy as np
import pytest

from pals_grid.allocator.fill import Wants
from pals_grid.allocator.fleet_arrays import FleetArrays
from pals_grid.allocator.grants import GrantBook
from pals_grid.allocator.live import live_round, with_margin
from pals_grid.allocator.outlook import GrantRules, SiteBudget
from pals_grid.core.fleet import NodeCapability, PowerCurve

CURVE = PowerCurve((0.0, 1000.0), (500.0, 1500.0))
FLEET = FleetArrays.of([NodeCapability(i, str(i), 500.0, 1500.0, CURVE) for i in range(3)])


def book(power_w: float) -> GrantBook:
    made = GrantBook(1, 0.0, GrantRules(lie_reports=3))
    made.quiet_until_s = 0.0
    for node_id in range(3):
        made.join(node_id, power_w, 1500.0)
    return made


def test_power_goes_from_the_idle_node_to_the_busy_one() -> None:
    made, demand = book(1000.0), np.array([0.0, 900.0, 400.0])
    rows = {0: 0, 1: 1, 2: 2}
    for now_s in (0.0, 5.0, 10.0):
        found = live_round(made, rows, FLEET, Wants(demand), SiteBudget(3000.0), now_s)
        for node_id, one in found.issued.items():
            made.acknowledge(node_id, 1, one.grant.sequence)
    held = [made.allowed_w(node_id, 10.0) for node_id in range(3)]
    # 700 W for 900 + 400 tokens/s and 15.4 % of each more.
    assert held == pytest.approx([500.0, 1500.0, 1000.0], abs=45.0)
    assert sum(held) <= 3000.0


def test_silent_nodes_and_liars_keep_what_they_may_have() -> None:
    made, demand = book(1000.0), np.array([0.0, 900.0, 400.0])
    for at_s in range(3):
        made.observe_draw(2, 1400.0, at_s)
    found = live_round(made, {1: 1, 2: 2}, FLEET, Wants(demand), SiteBudget(3000.0), 3.0)
    # 3000 less 1000 of the silent node and 1400 of the liar.
    assert {key: round(one.grant.power_w, 6) for key, one in found.issued.items()} == {1: 600.0}


def test_nobody_to_reach_is_no_grant() -> None:
    found = live_round(book(900.0), {}, FLEET, Wants(), SiteBudget(3000.0), 0.0)
    assert (found.issued, found.allowed_w, found.excess_w) == ({}, 2700.0, 0.0)


def test_margins_are_alike_as_far_as_the_limit_has_them() -> None:
    demand = np.array([100.0, 200.0, 300.0])
    # 1500 W of floors, and 600 tokens/s at 1 W each.
    assert with_margin(FLEET, demand, 2400.0) == pytest.approx(1.5 * demand, rel=0.01)
    assert with_margin(FLEET, demand, 5000.0) == pytest.approx(2.0 * demand)
    assert with_margin(FLEET, demand, 1600.0) == pytest.approx(demand, rel=0.01)
