from __future__ import annotations

from pals_grid.evaluate.bench_live import measure_live


def test_rounds_of_several_sites_are_timed_and_grant_something() -> None:
    cost = measure_live(sites=3, nodes=20, rounds=4, space_s=0.0)
    assert (cost.sites, cost.nodes) == (3, 20)
    assert 0 < cost.cpu_p50_ms <= cost.cpu_max_ms
    assert cost.granted > 10
