from __future__ import annotations

import itertools
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.sim.arrivals import Request, daily_envelope, load_trace, poisson, repeat_daily

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIDNIGHT = datetime(2022, 11, 1, tzinfo=UTC)
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def _until(requests: Iterator[Request], end_s: float) -> list[Request]:
    return list(itertools.takewhile(lambda r: r.arrival_s < end_s, requests))


def test_a_trace_is_read_with_seven_decimals_and_starts_at_zero() -> None:
    lines = [HEADER, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109"]
    first, second = load_trace(lines)
    assert first == Request(0.0, 374, 44)
    assert second.arrival_s == pytest.approx(4.314579, abs=1e-6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b,c"], "trace header"),
        ([HEADER], "at least one request"),
        ([HEADER, "yesterday,1,1"], "line 2, TIMESTAMP"),
        ([HEADER, "2023-11-16 18:15:46,x,1"], "line 2, ContextTokens"),
        ([HEADER, "2023-11-16 18:15:46,1,0"], "line 2, GeneratedTokens"),
        ([HEADER, "2023-11-16 18:15:46,1"], "line 2, GeneratedTokens"),
    ],
)
def test_a_torn_trace_is_named_by_line_and_column(lines: list[str], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        load_trace(lines)


def test_a_share_is_marked_deferrable_evenly() -> None:
    lines = [HEADER, *(f"2023-11-16 18:15:{s:02d},1,1" for s in range(40))]
    marks = [r.deferrable for r in load_trace(lines, deferrable_ratio=0.25)]
    assert sum(marks) == 10
    assert all(sum(marks[i : i + 4]) == 1 for i in range(0, 40, 4))
    with pytest.raises(InvalidValue, match="deferrable_ratio"):
        load_trace(lines, deferrable_ratio=1.5)


def test_the_envelope_has_mean_one_and_peaks_in_the_afternoon() -> None:
    values = [daily_envelope(MIDNIGHT, 900.0 * i) for i in range(96)]
    assert fmean(values) == pytest.approx(1.0)
    assert max(values) == values[15 * 4]
    assert min(values) == values[3 * 4]


def test_a_repeated_trace_keeps_its_requests_and_its_mean_rate() -> None:
    trace = [Request(10.0 * i, 100 + i, 10) for i in range(60)]
    day = list(repeat_daily(trace, MIDNIGHT, 86_400.0, seed=3))
    assert len(day) == pytest.approx(8640, rel=0.01)
    assert all(a.arrival_s <= b.arrival_s for a, b in itertools.pairwise(day))
    assert {r.tokens_in for r in day} == {r.tokens_in for r in trace}
    night = sum(2 * 3600 <= r.arrival_s < 4 * 3600 for r in day)
    noon = sum(14 * 3600 <= r.arrival_s < 16 * 3600 for r in day)
    assert noon / night == pytest.approx(1.4 / 0.6, rel=0.05)
    doubled = list(repeat_daily(trace, MIDNIGHT, 86_400.0, seed=3, scale=2.0))
    assert len(doubled) == pytest.approx(2 * len(day), rel=0.01)


def test_a_repeat_depends_on_its_seed_alone() -> None:
    trace = [Request(float(i * i), 1 + i, 1) for i in range(50)]
    days = [list(repeat_daily(trace, MIDNIGHT, 5000.0, seed=s)) for s in (1, 1, 2)]
    assert days[0] == days[1] != days[2]


def test_a_trace_without_a_span_cannot_be_repeated() -> None:
    with pytest.raises(InvalidValue, match="span"):
        next(repeat_daily([Request(0.0, 1, 1)], MIDNIGHT, 10.0, seed=0))


@pytest.mark.parametrize("burst_ratio", [1.0, 3.0])
def test_poisson_arrivals_keep_their_mean_rate_and_lengths(burst_ratio: float) -> None:
    drawn = poisson(0.5, MIDNIGHT, seed=5, burst_ratio=burst_ratio, deferrable_ratio=0.2)
    requests = _until(drawn, 86_400.0)
    assert len(requests) / 86_400 == pytest.approx(0.5, rel=0.05)
    assert fmean(r.tokens_in for r in requests) == pytest.approx(1155, rel=0.05)
    assert fmean(r.tokens_out for r in requests) == pytest.approx(211, rel=0.05)
    assert fmean(r.deferrable for r in requests) == pytest.approx(0.2, abs=0.02)
    assert all(a.arrival_s <= b.arrival_s for a, b in itertools.pairwise(requests))


def test_bursts_make_the_busiest_half_minute_busier() -> None:
    def busiest(burst_ratio: float) -> int:
        counts: dict[int, int] = {}
        for r in _until(poisson(5.0, MIDNIGHT, seed=5, burst_ratio=burst_ratio), 14_400.0):
            counts[int(r.arrival_s // 15)] = counts.get(int(r.arrival_s // 15), 0) + 1
        return max(counts.values())

    assert busiest(4.0) > 1.5 * busiest(1.0)


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(InvalidValue, match="rate_per_s"):
        next(poisson(0.0, MIDNIGHT, seed=1))
    with pytest.raises(InvalidValue, match="burst_ratio"):
        next(poisson(1.0, MIDNIGHT, seed=1, burst_ratio=0.5))


def test_the_azure_trace_has_its_published_means(shared_data: Path) -> None:
    path = shared_data / "llm-traces/AzureLLMInferenceTrace_conv_2023.csv"
    with path.open(newline="") as lines:
        trace = load_trace(lines)
    assert len(trace) == 19_366
    assert len(trace) / trace[-1].arrival_s == pytest.approx(5.53, abs=0.01)
    assert fmean(r.tokens_in for r in trace) == pytest.approx(1155, abs=1)
    assert fmean(r.tokens_out for r in trace) == pytest.approx(211, abs=1)
