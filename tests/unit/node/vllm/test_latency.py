from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pals_grid.node.vllm.channel import FrontFile
from pals_grid.node.vllm.latency import (
    GAP,
    REQUEST,
    TTFT,
    LatencyMeter,
    LatencyView,
    bin_of,
    bin_top_s,
)
from pals_grid.node.vllm.layout import BINS, LatencyTotals

if TYPE_CHECKING:
    from pathlib import Path


def iteration(
    ttft_s: tuple[float, ...] = (), gap_s: tuple[float, ...] = (), ended: tuple[float, ...] = ()
) -> SimpleNamespace:
    return SimpleNamespace(
        time_to_first_tokens_iter=list(ttft_s),
        inter_token_latencies_iter=list(gap_s),
        finished_requests=[
            SimpleNamespace(
                prefill_time=0.5, num_generation_tokens=9, mean_time_per_output_token=mean_s
            )
            for mean_s in ended
        ],
    )


def totals(kind: int, values_s: list[float], prefills: int = 0) -> LatencyTotals:
    bins = array("Q", bytes(3 * BINS * 8))
    for value_s in values_s:
        bins[kind + bin_of(value_s)] += 1
    return LatencyTotals(0.0, prefills, prefills * 0.5, bins.tobytes())


@pytest.mark.parametrize("value_s", [0.0, 0.0011, 0.02, 0.1, 2.0, 200.0, 1e9])
def test_a_value_lies_in_its_bin(value_s: float) -> None:
    index = bin_of(value_s)
    assert 0 <= index < BINS
    if index < BINS - 1:
        assert value_s <= bin_top_s(index) * (1 + 1e-9)
    if index > 0:
        assert value_s >= bin_top_s(index - 1) * (1 - 1e-9)


def test_what_the_front_end_saw_reaches_the_agent(tmp_path: Path) -> None:
    with FrontFile.create_front(tmp_path / "channel", 0) as file:
        meter, view = LatencyMeter(file), LatencyView()
        view.update({"a": read(file)}, 0.0)
        meter.record(iteration(ttft_s=(0.3, 3.0), gap_s=(0.02,) * 99 + (0.5,), ended=(0.02, 0.2)))
        view.update({"a": read(file)}, 1.0)
    assert view.misses(TTFT, 2.0) == 1
    assert view.misses(REQUEST, 0.1) == 1
    assert view.prefills == (2, 1.0)
    assert view.quantile_s(GAP, 0.5) == pytest.approx(0.02, rel=0.12)
    assert view.quantile_s(GAP, 1.0) == pytest.approx(0.5, rel=0.12)


def read(file: FrontFile) -> LatencyTotals:
    found = file.latency.read()
    assert found is not None
    return found


def test_a_fault_is_logged_once_and_stops_the_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FrontFile.create_front(tmp_path / "channel", 0) as file:
        meter = LatencyMeter(file)
        for _ in range(3):
            meter.record(SimpleNamespace())
        assert read(file).prefills_total == 0
    assert len(caplog.records) == 1


def test_front_ends_add_up_and_those_that_ended_stay_counted() -> None:
    view = LatencyView()
    view.update({"a": totals(TTFT, [3.0], 1), "b": totals(TTFT, [3.0, 3.0], 2)}, 0.0)
    assert view.misses(TTFT, 2.0) == 3
    view.update({"b": totals(TTFT, [3.0, 3.0], 2)}, 1.0)
    assert (view.misses(TTFT, 2.0), view.prefills) == (3, (3, 1.5))
    view.update({"c": totals(TTFT, [3.0], 1)}, 2.0)
    assert (view.misses(TTFT, 2.0), view.prefills) == (4, (4, 2.0))


def test_quantiles_are_of_the_last_ten_seconds() -> None:
    view = LatencyView()
    view.update({"a": totals(GAP, [])}, 0.0)
    assert view.quantile_s(GAP, 0.99) is None
    view.update({"a": totals(GAP, [1.0])}, 1.0)
    assert view.quantile_s(GAP, 0.99) == pytest.approx(1.0, rel=0.12)
    for now_s in (2.0, 11.0, 12.0, 13.0):
        view.update({"a": totals(GAP, [1.0])}, now_s)
    assert view.quantile_s(GAP, 0.99) is None


def test_misses_at_the_bound_count_in_part() -> None:
    view = LatencyView()
    view.update({"a": totals(GAP, [0.1] * 1000)}, 0.0)
    assert view.misses(GAP, bin_top_s(bin_of(0.1))) == 0
    assert view.misses(GAP, bin_top_s(bin_of(0.1) - 1) * 1.0001) >= 990
    assert 0 < view.misses(GAP, 0.1) < 1000
