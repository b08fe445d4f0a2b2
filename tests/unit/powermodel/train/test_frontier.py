from __future__ import annotations

import itertools
import random
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("scipy")

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.table import operating_point
from pals_grid.powermodel.train.frontier import fit_frontier

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.fleet import FrontierTable

ENGINE = engine_model("H100", "meta-llama/Llama-3.1-70B-Instruct", 4)
LIMITS_W = [200.0 + 500.0 * i / 6 for i in range(7)]
BATCHES = (4, 16, 64, 256)
MIX = 5.5


def _row(
    limit_w: float, batch: int, clock_mhz: float | None = None, noise: float = 1.0
) -> ProfileRow:
    point = operating_point(ENGINE, limit_w, batch, 200 * MIX, 200, sm_clock_mhz=clock_mhz)
    return ProfileRow(
        ENGINE.gpu_model, 4, ENGINE.model, limit_w, batch, point.tokens_per_s * noise,
        point.gpu_power_w / noise, 4, sm_clock_mhz=clock_mhz, input_per_output=MIX,
        ttft_s=point.ttft_s * noise, itl_s=point.itl_s / noise, origin=Origin.SIMULATED,
    )  # fmt: skip


def _profile(*clocks_mhz: float | None) -> list[ProfileRow]:
    noise = random.Random(5)
    return [
        _row(limit_w, batch, clock, noise.gauss(1.0, 0.005))
        for clock in clocks_mhz
        for limit_w in LIMITS_W
        for batch in BATCHES
    ]


def _mean_errors(table: FrontierTable) -> list[float]:
    """Of throughput, power, TTFT and ITL against the plant that the rows came from."""
    errors = []
    for point in table.points:
        true = _row(point.power_limit_w, point.max_num_seqs, point.sm_clock_mhz)
        assert true.ttft_s is not None
        assert true.itl_s is not None
        errors.append(
            (
                abs(point.tokens_per_s / true.tokens_per_s - 1),
                abs(point.gpu_power_w / true.gpu_power_w - 1),
                abs(point.ttft_s / true.ttft_s - 1),
                abs(point.itl_s / true.itl_s - 1),
            )
        )
    return [fmean(column) for column in zip(*errors, strict=True)]


def _require_monotone(table: FrontierTable) -> None:
    by_cell = {(p.sm_clock_mhz, p.power_limit_w, p.max_num_seqs): p for p in table.points}
    limits_w = sorted({p.power_limit_w for p in table.points})
    batches = sorted({p.max_num_seqs for p in table.points})
    for clock in {p.sm_clock_mhz for p in table.points}:
        for batch in batches:
            for low_w, high_w in itertools.pairwise(limits_w):
                low, high = by_cell[clock, low_w, batch], by_cell[clock, high_w, batch]
                assert low.tokens_per_s <= high.tokens_per_s * (1 + 1e-9)
                assert low.gpu_power_w <= high.gpu_power_w * (1 + 1e-9)
                assert low.itl_s >= high.itl_s * (1 - 1e-9)
                assert low.ttft_s >= high.ttft_s * (1 - 1e-9)
        for limit_w in limits_w:
            for few, many in itertools.pairwise(batches):
                assert by_cell[clock, limit_w, few].itl_s <= by_cell[clock, limit_w, many].itl_s * (
                    1 + 1e-9
                )


def test_a_simulated_profile_gives_a_fine_table_close_to_the_plant() -> None:
    table = fit_frontier(_profile(None), power_limits_w=[200 + 12.5 * i for i in range(41)])
    assert len(table.points) == 41 * 7
    _require_monotone(table)
    speed, power, ttft, itl = _mean_errors(table)
    assert speed < 0.015
    assert power < 0.01
    assert ttft < 0.045
    assert itl < 0.015


def test_measured_clocks_are_an_axis() -> None:
    clocks = (900.0, 1400.0, None)
    table = fit_frontier(_profile(*clocks), max_num_seqs=BATCHES, sm_clocks_mhz=clocks)
    _require_monotone(table)
    speed, power, ttft, itl = _mean_errors(table)
    assert speed < 0.015
    assert power < 0.015
    assert ttft < 0.04
    assert itl < 0.015


def test_axes_origin_and_mix_follow_from_the_rows() -> None:
    rows = [replace(row, origin=Origin.MEASURED) for row in _profile(None)]
    rows[3] = replace(rows[3], origin=Origin.SIMULATED, input_per_output=MIX * 1.02)
    table = fit_frontier(rows)
    assert table.origin is Origin.SIMULATED
    assert table.input_per_output == MIX
    assert set(LIMITS_W) <= {p.power_limit_w for p in table.points}
    assert {p.max_num_seqs for p in table.points} == {4, 8, 16, 32, 64, 128, 256}


def test_without_times_the_itl_is_a_turn_of_the_batch() -> None:
    rows = [replace(row, ttft_s=None, itl_s=None) for row in _profile(None)]
    table = fit_frontier(rows)
    for point in table.points:
        turn_s = point.max_num_seqs / point.tokens_per_s
        assert point.itl_s == pytest.approx(turn_s, rel=0.02)
        assert point.ttft_s == pytest.approx(turn_s, rel=0.02)


def test_other_engines_help_where_rows_are_few() -> None:
    """One row at the highest limit; another engine on the same kind of GPU has a whole profile."""
    other = [
        replace(row, model="other", tokens_per_s=2 * row.tokens_per_s) for row in _profile(None)
    ]
    few = [_row(700.0, 64)]
    alone = fit_frontier(few, power_limits_w=LIMITS_W)
    helped = fit_frontier(few, power_limits_w=LIMITS_W, prior_rows=other)
    assert _mean_errors(helped)[0] < 0.08
    assert _mean_errors(helped)[0] < _mean_errors(alone)[0]


def test_a_batch_that_costs_throughput_stays_that_way() -> None:
    rows = _profile(None)
    rows += [
        replace(row, max_num_seqs=512, tokens_per_s=0.7 * row.tokens_per_s)
        for row in rows
        if row.max_num_seqs == 256
    ]
    table = fit_frontier(rows, max_num_seqs=(256, 512), power_limits_w=[700.0])
    largest = {p.max_num_seqs: p.tokens_per_s for p in table.points}
    assert largest[512] == pytest.approx(0.7 * largest[256], rel=0.05)


def test_what_cannot_be_a_table_is_refused() -> None:
    rows = _profile(None)[:4]
    unknown = [replace(row, input_per_output=None) for row in rows]
    calls: list[tuple[str, Callable[[], object]]] = [
        ("rows", lambda: fit_frontier([])),
        ("one engine", lambda: fit_frontier([*rows, replace(rows[0], model="other")])),
        ("input_per_output: must be given", lambda: fit_frontier(unknown)),
        ("power_limits_w", lambda: fit_frontier(rows, power_limits_w=[0.0])),
        ("max_num_seqs", lambda: fit_frontier(rows, max_num_seqs=[])),
        ("sm_clocks_mhz", lambda: fit_frontier(rows, sm_clocks_mhz=[-5.0])),
        ("points", lambda: fit_frontier(rows, max_num_seqs=range(1, 20_002))),
    ]
    for named, call in calls:
        with pytest.raises(InvalidValue, match=named):
            call()
    assert fit_frontier(unknown, input_per_output=2.0).input_per_output == 2.0
