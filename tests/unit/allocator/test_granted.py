"""Nodes fill up with work that may wait only where the plan serves some of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pals_grid.allocator.envelopes import allocate_envelopes
from pals_grid.core.fleet import NodeCapability
from pals_grid.core.site import ServiceTier
from pals_grid.planner.linear import plan_power_budget
from tests.unit.planner.enumeration import CURVE
from tests.unit.planner.test_batch_work import request
from tests.unit.planner.test_linear import POLICY


def test_a_slot_without_waiting_work_grants_none() -> None:
    tiers = (ServiceTier("chat", 0.6), ServiceTier("batch", 0.4, deferral_s=3 * 3600.0))
    asked = replace(request(()), policy=replace(POLICY, tiers=tiers, minimum_w=0.0))
    node = NodeCapability(1, "n", 600.0, 2400.0, CURVE)
    dear = cheap = 0
    for item in plan_power_budget(asked).intervals:
        (envelope,) = allocate_envelopes(item, [node])
        if (item.waiting_tokens_per_s or 0.0) < 1.0:
            dear += 1
            assert item.planned_tokens_per_s == pytest.approx(180.0)
            assert envelope.target_tokens_per_s == 0.0
        else:
            cheap += 1
            assert envelope.target_tokens_per_s == pytest.approx(item.planned_tokens_per_s)
    assert dear > 0
    assert cheap > 0


def test_where_nobody_says_what_waits_the_plan_is_granted() -> None:
    item = replace(plan_power_budget(request(())).intervals[0], waiting_tokens_per_s=None)
    assert item.granted_tokens_per_s == item.planned_tokens_per_s > 0
