from __future__ import annotations

import itertools
from datetime import UTC, datetime
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.sim.arrivals import (
    RateWindow,
    Request,
    cut,
    daily_envelope,
    envelope,
    load_envelope,
    load_trace,
    poisson,
    repeat_daily,
    saturating,
    step_burst,
)

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


def test_a_burst_steps_up_and_down_at_its_rates() -> None:
    drawn = step_burst(4.0, start_s=1000.0, duration_s=500.0, seed=6, factor=5.0, rise_s=1.0)
    at_s = [r.arrival_s for r in _until(drawn, 2500.0)]
    assert at_s == sorted(at_s)

    def rate(start_s: float, end_s: float) -> float:
        return sum(start_s <= s < end_s for s in at_s) / (end_s - start_s)

    assert rate(0.0, 1000.0) == pytest.approx(4.0, rel=0.06)
    assert rate(1001.0, 1500.0) == pytest.approx(20.0, rel=0.04)
    assert rate(1501.0, 2500.0) == pytest.approx(4.0, rel=0.06)


def test_a_burst_rises_within_its_time() -> None:
    counts = [0, 0, 0]
    for seed in range(200):
        drawn = step_burst(
            20.0, start_s=1.0, duration_s=3.0, seed=seed, rise_s=1.0, tokens_in=9, tokens_out=9
        )
        for r in _until(drawn, 3.0):
            counts[int(r.arrival_s)] += 1
    assert [count / 200 for count in counts] == pytest.approx([20.0, 60.0, 100.0], rel=0.03)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"base_rate_per_s": 0.0}, "base_rate_per_s"),
        ({"factor": 0.0}, "factor"),
        ({"rise_s": 0.0}, "rise_s"),
        ({"rise_s": 60.0}, "rise_s"),
    ],
)
def test_an_impossible_burst_is_refused(values: dict[str, float], field: str) -> None:
    usual = {"base_rate_per_s": 1.0, "start_s": 1.0, "duration_s": 30.0}
    with pytest.raises(InvalidValue, match=field):
        next(step_burst(**{**usual, **values}, seed=0))


def _windows(*rates: float, cv: float = 1.0) -> list[RateWindow]:
    return [RateWindow(600.0 * i, rate, cv, 200.0, 50.0) for i, rate in enumerate(rates) if rate]


@pytest.mark.parametrize("cv", [0.0, 1.0, 2.0, 900.0])
def test_an_envelope_keeps_each_windows_rate_whatever_the_burstiness(cv: float) -> None:
    drawn = list(envelope(_windows(5.0, 0.0001, 0.0, 20.0, cv=cv), seed=7))
    counts = [sum(600 * i <= r.arrival_s < 600 * (i + 1) for r in drawn) for i in range(4)]
    assert counts[0] == pytest.approx(3000, rel=0.25 if cv > 2 else 0.08)
    assert counts[1] <= 3
    assert counts[2] == 0
    assert counts[3] == pytest.approx(12_000, rel=0.12 if cv > 2 else 0.04)
    assert all(a.arrival_s <= b.arrival_s for a, b in itertools.pairwise(drawn))
    assert fmean(r.tokens_out for r in drawn) == pytest.approx(50.0, rel=0.05)


def test_an_envelopes_gaps_have_its_coefficient_of_variation() -> None:
    for cv in (0.5, 1.0, 2.0):
        at_s = [r.arrival_s for r in envelope(_windows(20.0, cv=cv), seed=8)]
        gaps = [b - a for a, b in itertools.pairwise(at_s)]
        assert pstdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.08)


def test_an_envelope_is_scaled_and_depends_on_its_seed_alone() -> None:
    windows = _windows(5.0, 8.0)
    one, same, other = (list(envelope(windows, seed=s)) for s in (1, 1, 2))
    assert one == same != other
    assert len(list(envelope(windows, seed=1, scale=0.1))) == pytest.approx(780, rel=0.1)


def test_impossible_envelopes_are_refused() -> None:
    with pytest.raises(InvalidValue, match="windows"):
        next(envelope([], seed=1))
    with pytest.raises(InvalidValue, match="windows"):
        next(envelope([*_windows(1.0), *_windows(1.0)], seed=1))
    with pytest.raises(InvalidValue, match="scale"):
        next(envelope(_windows(1.0), seed=1, scale=0.0))


ENVELOPE_HEADER = (
    "model,t_s,rate_rps,n_active_clients,mean_client_cv,mean_input_tokens,mean_output_tokens"
)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b"], "envelope header"),
        ([ENVELOPE_HEADER], "model"),
        ([ENVELOPE_HEADER, "m,0,x,1,1,1,1"], "line 2, rate_rps"),
        ([ENVELOPE_HEADER, "m,0,-1,1,1,1,1"], "line 2, rate_rps"),
        ([ENVELOPE_HEADER, "m,0,1,1,nan,1,1"], "line 2, mean_client_cv"),
    ],
)
def test_a_torn_envelope_is_named_by_line_and_column(lines: list[str], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        load_envelope(lines, "m")


def test_the_servegen_rates_are_read_as_published(shared_data: Path) -> None:
    with (shared_data / "llm-traces/servegen_rate_10min.csv").open(newline="") as lines:
        windows = load_envelope(lines, "deepseek-r1")
    assert len(windows) == 144
    drawn = list(envelope(windows[:6], seed=1))
    expected = 600 * sum(window.rate_per_s for window in windows[:6])
    assert len(drawn) == pytest.approx(expected, rel=0.05)


def test_a_cut_is_played_faster_and_keeps_its_lengths() -> None:
    trace = [Request(2.0 * i, 100 + i, 10) for i in range(500)]
    part = cut(trace, 100.0, 60.0, 3.0)
    assert [r.tokens_in for r in part] == list(range(150, 240))
    assert part[0].arrival_s == 0.0
    assert part[-1].arrival_s == pytest.approx(178.0 / 3)
    assert cut(trace, 0.0, 999.0) == trace


@pytest.mark.parametrize(
    ("start_s", "duration_s", "scale", "field"),
    [
        (-1.0, 10.0, 1.0, "start_s"),
        (0.0, 0.0, 1.0, "duration_s"),
        (0.0, 10.0, 0.0, "scale"),
        (90.0, 60.0, 1.0, "trace ends"),
    ],
)
def test_an_impossible_cut_is_refused(
    start_s: float, duration_s: float, scale: float, field: str
) -> None:
    with pytest.raises(InvalidValue, match=field):
        cut([Request(float(i), 1, 1) for i in range(100)], start_s, duration_s, scale)


def test_a_closed_loop_has_the_lengths_that_are_asked_for() -> None:
    alike = saturating(300.4, 20.0, varied=False)
    assert alike.request(3.0) == Request(3.0, 300, 20)
    varied = saturating(300.0, 20.0, seed=4)
    drawn = [varied.request(0.0) for _ in range(4000)]
    assert fmean(r.tokens_in for r in drawn) == pytest.approx(300, rel=0.06)
    assert fmean(r.tokens_out for r in drawn) == pytest.approx(20, rel=0.06)
    with pytest.raises(InvalidValue, match="waiting"):
        saturating(waiting=0)
    with pytest.raises(InvalidValue, match="tokens_in"):
        saturating(tokens_in=0.0)
