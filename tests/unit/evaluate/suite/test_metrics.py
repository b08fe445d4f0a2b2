from __future__ import annotations

import pytest

from pals_grid.core.site import Slo
from pals_grid.evaluate.suite.metrics import (
    Served,
    TickSample,
    direction_changes,
    energy,
    request_metrics,
    served,
    settling_ticks,
    tracking_metrics,
    windows_below_ratio,
    windows_outside_ratio,
)
from pals_grid.sim.arrivals import Request
from pals_grid.sim.engine import RequestRecord

SLO = Slo(ttft_s=2.0, itl_s=0.1)


def tick(
    at_s: float, *, node_w: float = 900.0, tokens: float = 0.0, gpu_j: float = 0.0
) -> TickSample:
    return TickSample(
        at_s=at_s,
        gpu_j=gpu_j,
        node_j=2 * gpu_j,
        tokens_out=tokens,
        draw_w=0.0,
        node_w=node_w,
        envelope_w=1000.0,
        limit_w=300.0,
        max_num_seqs=16.0,
        waiting=1,
        running=16,
    )


def fate(arrival_s: float, ttft_s: float | None = 1.0, itl_s: float = 0.05) -> Served:
    done = ttft_s is not None
    return Served(arrival_s, 100, ttft_s, itl_s if done else None, 9.0 if done else None)


def test_energy_counts_between_the_marks_alone() -> None:
    ticks = [tick(float(k), tokens=10.0 * k * k, gpu_j=500.0 * k) for k in range(11)]
    found = energy(ticks, 2.0, 4.0)
    assert (found.seconds, found.tokens, found.gpu_j) == (2.0, 120.0, 1000.0)
    metrics = found.metrics()
    assert metrics["tokens_per_j_gpu"] == pytest.approx(0.12)
    assert metrics["tokens_per_j_node"] == pytest.approx(0.06)
    assert metrics["gpu_power_w"] == 500.0


def test_requests_of_the_window_are_followed_to_their_end() -> None:
    arrived = [Request(float(k), 10 + k, 21) for k in range(4)]
    records = [
        RequestRecord(1.0, 1.5, 2.5, 4.5, 11, 21, deferrable=False),
        RequestRecord(3.0, 3.0, 3.5, 30.0, 13, 21, deferrable=False),
    ]
    found = served(arrived, records, 1.0, 3.0)
    assert [item.arrival_s for item in found] == [1.0, 2.0]
    assert found[0].ttft_s == pytest.approx(1.5)
    assert found[0].itl_s == pytest.approx(0.1)
    assert found[0].e2e_s == pytest.approx(3.5)
    assert found[1].e2e_s is None


def test_two_requests_alike_are_two_requests() -> None:
    arrived = [Request(1.0, 10, 5), Request(1.0, 10, 5)]
    records = [RequestRecord(1.0, 1.0, 1.5, 2.0, 10, 5, deferrable=False)]
    found = served(arrived, records, 0.0, 2.0)
    assert sorted(item.e2e_s is None for item in found) == [False, True]


def test_a_request_is_outside_by_any_of_three_ways() -> None:
    fates = [fate(0.0), fate(1.0, ttft_s=2.1), fate(2.0, itl_s=0.11), fate(3.0, ttft_s=None)]
    assert [item.inside(SLO) for item in fates] == [True, False, False, False]
    metrics = request_metrics(fates, SLO)
    assert metrics["outside_ratio"] == 0.75
    assert metrics["unfinished"] == 1.0
    assert metrics["ttft_p99_s"] == 2.1


def test_a_window_is_outside_when_a_twentieth_of_its_tokens_is() -> None:
    good = [fate(0.1 * k) for k in range(40)]
    assert windows_outside_ratio(good, SLO) == 0.0
    # 2 of 42 requests' tokens are 4.8 %: still inside; a third one is too much.
    assert windows_outside_ratio([*good, fate(4.5, 3.0), fate(4.6, 3.0)], SLO) == 0.0
    bad = [*good, *(fate(4.5, 3.0) for _ in range(3))]
    assert windows_outside_ratio(bad, SLO) == 1.0
    assert windows_outside_ratio([*bad, fate(7.0)], SLO) == 0.5
    assert windows_outside_ratio([], SLO) is None


def test_windows_below_a_throughput_target() -> None:
    ticks = [
        tick(0.5 * k, tokens=50.0 * k if k <= 20 else 1000.0 + 20.0 * (k - 20)) for k in range(41)
    ]
    # 100 tokens/s for 10 s, then 40.
    assert windows_below_ratio(ticks, 0.0, 20.0, 100.0) == 0.5
    assert windows_below_ratio(ticks, 0.0, 20.0, 40.0) == 0.0
    assert windows_below_ratio(ticks[:1], 0.0, 20.0, 40.0) is None


def test_tracking_counts_both_sides_and_overshoot_one() -> None:
    found = tracking_metrics([tick(0, node_w=w) for w in (1000.0, 990.0, 1019.0, 1021.0)])
    assert found["tracking_mae_ratio"] == pytest.approx((0 + 0.01 + 0.019 + 0.021) / 4)
    assert found["overshoot_ratio"] == 0.25
    assert tracking_metrics([])["overshoot_ratio"] is None


def test_settled_means_three_in_a_row() -> None:
    def settle(*draws_w: float) -> int | None:
        return settling_ticks([tick(0, node_w=w) for w in draws_w])

    assert settle(1000.0, 1000.0, 1000.0) == 1
    assert settle(900.0, 1000.0, 950.0, 1000.0, 990.0, 1010.0) == 4
    assert settle(900.0, 1000.0, 1000.0) is None


@pytest.mark.parametrize(
    ("limits_w", "turns"),
    [
        ((200.0, 201.0, 199.0, 202.0), 0),
        ((200.0, 300.0, 400.0), 0),
        ((200.0, 400.0, 200.0), 1),
        ((200.0, 400.0, 390.0, 400.0, 200.0), 1),
        ((200.0, 400.0, 300.0, 400.0, 200.0), 3),
        ((), 0),
    ],
)
def test_turns_of_a_limit(limits_w: tuple[float, ...], turns: int) -> None:
    assert direction_changes(limits_w) == turns
