from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pals_grid.evaluate.bench import BINDING_W, FREE_W, controlling, cost, h100_rig, speed
from pals_grid.evaluate.bench_feeds import measure_feeds
from pals_grid.node.report import Mode


def test_quantiles_are_in_milliseconds() -> None:
    found = cost("x", [1_000_000] * 99 + [9_000_000])
    assert found.p50_ms == 1.0
    assert 1.0 < found.p99_ms <= 9.0
    assert found.calls == 100


@pytest.mark.parametrize(("power_w", "binds"), [(FREE_W, False), (BINDING_W, True)])
def test_four_engines_share_eight_gpus_under_a_budget(power_w: float, *, binds: bool) -> None:
    rig = h100_rig(4, power_w)
    tick, decision = rig.measure("tick", 100)
    assert 0 < decision.p50_ms < tick.p50_ms
    assert (tick.calls, decision.calls) == (100, 100)
    rig.clock.advance(0.5)
    report = rig.loop.tick()
    assert report.mode is Mode.FOLLOWING
    assert sum(len(engine.gpus) for engine in report.engines) == 8
    assert all(engine.sample and engine.sample.requests_running for engine in report.engines)
    assert report.node_power.power_w == pytest.approx(3500.0, rel=0.08)
    reasons = [engine.command.reason for engine in report.engines if engine.command]
    assert [reason.startswith("most throughput") for reason in reasons] == [binds] * 4


def test_a_driven_node_is_faster_than_time() -> None:
    best, mean = speed(controlling(6.0, 1155.0, 211.0), 50, repeats=3)
    assert best >= mean > 50.0


def test_days_of_five_minutes_are_stored_and_asked_for_by_quarter_hours() -> None:
    costs = measure_feeds(datetime(2026, 3, 31, tzinfo=UTC), days=3)
    assert (costs.values, costs.slots) == (3 * 288, 3 * 96)
    assert 0 < costs.query_p50_ms <= costs.query_max_ms
    assert costs.backfill_s > 0
