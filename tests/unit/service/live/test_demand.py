from __future__ import annotations

import math

import numpy as np
import pytest

from pals_grid.core.site import ServiceTier
from pals_grid.service.live.demand import DemandHolder, kept_ratio, urgent_tokens_per_s
from pals_grid.store.live_sites import LiveEngine, LiveNode, LiveStatus
from tests.unit.service.world import T0


def status(*engines: tuple[int, int, float], deferred: int = 0) -> LiveStatus:
    made = [LiveEngine(run, wait, rate, deferred) for run, wait, rate in engines]
    return LiveStatus("following", 1, 500.0, made)


def node(said: LiveStatus | None) -> LiveNode:
    return LiveNode(1, 1, T0, T0, T0, said)


@pytest.mark.parametrize(
    ("said", "tokens_per_s"),
    [
        (status((10, 0, 300.0)), 300.0),
        (status((10, 5, 300.0)), 450.0),
        (status((10, 5, 300.0), (0, 0, 0.0)), 450.0),
        (status((0, 5, 0.0)), math.inf),
        (status((0, 0, 0.0)), 0.0),
        (status(), math.inf),
        (None, math.inf),
    ],
)
def test_what_waits_counts_beside_what_runs(said: LiveStatus | None, tokens_per_s: float) -> None:
    assert urgent_tokens_per_s(said) == tokens_per_s


def test_demand_rises_at_once_and_falls_by_a_fifth_a_round() -> None:
    holder, none = DemandHolder(), np.zeros(1)
    found = [
        float(holder.observe([node(status((1, 0, rate)))], none)[0][0])
        for rate in (100.0, 500.0, 100.0, 100.0)
    ]
    assert found == [100.0, 500.0, 400.0, 320.0]
    assert holder.observe([node(None)], none)[0][0] == math.inf
    assert holder.observe([node(status((1, 0, 50.0)))], none)[0][0] == 50.0


def test_what_may_wait_counts_up_to_what_the_plan_fills_up_to() -> None:
    waiting = [node(status((1, 0, 100.0), deferred=9))]
    demand, urgent = DemandHolder().observe(waiting, np.array([250.0]))
    assert (demand[0], urgent[0]) == (250.0, 100.0)
    demand, _ = DemandHolder().observe(waiting, np.array([50.0]))
    assert demand[0] == 100.0
    idle = [node(status((1, 0, 100.0)))]
    assert DemandHolder().observe(idle, np.array([250.0]))[0][0] == 100.0


def test_tiers_say_what_is_assured_of_what_cannot_wait() -> None:
    tiers = [
        ServiceTier("gold", 0.3),
        ServiceTier("tin", 0.3, loss_ratio=0.5, value_per_mtoken=1.0),
        ServiceTier("batch", 0.4, deferral_s=3600.0),
    ]
    assert kept_ratio(tiers) == pytest.approx(0.75)
    assert kept_ratio(tiers[2:]) == 0.0
