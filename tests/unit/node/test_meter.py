from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.fleet import Origin
from pals_grid.core.ports import EngineSample, GpuSample, NodePower
from pals_grid.node.meter import RowMeter
from pals_grid.node.report import ActiveEnvelope, EngineTick, GpuTick, Mode, TickReport
from pals_grid.node.rows import Rows

START_AT = datetime(2026, 1, 5, 12, 0, 2, tzinfo=UTC)


def tick(
    seconds: float,
    energy_j: float,
    tokens: float = 0.0,
    running: int = 1,
    *,
    wall_s: float | None = None,
    draw_w: float = 300.0,
    node_w: float = 500.0,
    engines: int = 1,
    node_origin: Origin = Origin.MODELLED,
) -> TickReport:
    names = [f"e{i}" for i in range(engines)]
    return TickReport(
        at=START_AT + timedelta(seconds=seconds if wall_s is None else wall_s),
        monotonic_s=50 + seconds,
        lag_s=0.0,
        skipped=0,
        mode=Mode.SAFE,
        envelope=ActiveEnvelope(0, 0.0, 450.0, 0.0, None),
        node_power=NodePower(node_w, node_origin),
        gpu_power_w=draw_w * engines,
        engines=tuple(
            EngineTick(
                name=name,
                model="m",
                origin=Origin.MEASURED,
                gpus=(GpuTick(f"gpu-{name}", GpuSample(draw_w, energy_j, 350.0, 60.0, 1400.0)),),
                sample=EngineSample(running, 0, 0.0, tokens, int(tokens // 100), 0, 0, 32),
                power_draw_w=draw_w,
                power_limit_w=350.0,
                target_tokens_per_s=0.0,
                tokens_out_per_s=0.0,
                command=None,
            )
            for name in names
        ),
        notes=(),
    )


def run(reports: list[TickReport]) -> tuple[Rows, RowMeter]:
    meter = RowMeter()
    parts = [*(meter.add(report) for report in reports), meter.flush()]
    joined = Rows(
        tuple(row for part in parts for row in part.engine_rows),
        tuple(row for part in parts for row in part.gpu_rows),
    )
    return joined, meter


def test_rows_lie_on_the_five_second_grid_and_the_first_starts_with_the_agent() -> None:
    rows, _ = run([tick(i * 0.5, i * 150.0, i * 10.0) for i in range(20)])
    seconds = [
        (r.start_at.second, r.end_at.second + r.end_at.microsecond / 1e6) for r in rows.engine_rows
    ]
    assert seconds == [(2, 5), (5, 10), (10, 11.5)]
    assert [row.ticks for row in rows.engine_rows] == [5, 10, 4]
    full = rows.engine_rows[1]
    assert full.gpu_energy_j == pytest.approx(1500.0)
    assert full.node_energy_j == pytest.approx(1500 + 200 * 5)
    assert full.tokens_out == pytest.approx(100.0)
    assert (full.power_draw_w, full.power_limit_w) == pytest.approx((300, 350))
    assert (full.power_draw_max_w, full.power_envelope_w) == pytest.approx((300, 450))
    assert full.ticks_over_envelope == 10
    assert (full.energy_origin, full.node_energy_origin) == (Origin.MEASURED, Origin.MODELLED)
    assert (full.max_num_seqs, full.idle_energy_j) == (32, 0.0)
    gpu = rows.gpu_rows[1]
    assert (gpu.energy_j, gpu.temperature_c) == pytest.approx((1500.0, 60.0))


@given(
    st.lists(
        st.tuples(st.floats(0.01, 30), st.floats(0, 5000), st.integers(0, 500)),
        min_size=1,
        max_size=40,
    )
)
def test_no_joule_token_or_request_is_lost_or_doubled(
    steps: list[tuple[float, float, int]],
) -> None:
    seconds, energy, tokens = 0.0, 0.0, 0.0
    reports = [tick(0.0, 0.0)]
    for dt, joules, count in steps:
        seconds, energy, tokens = seconds + dt, energy + joules, tokens + count
        reports.append(tick(seconds, energy, tokens))
    rows, _ = run(reports)
    assert sum(r.gpu_energy_j for r in rows.engine_rows) == pytest.approx(energy)
    assert sum(r.energy_j for r in rows.gpu_rows) == pytest.approx(energy)
    assert sum(r.tokens_out for r in rows.engine_rows) == pytest.approx(tokens)
    assert sum(r.node_energy_j for r in rows.engine_rows) == pytest.approx(energy + 200 * seconds)
    finished = sum(r.requests_finished for r in rows.engine_rows)
    assert finished == int(tokens // 100)
    starts = [r.start_at for r in rows.engine_rows]
    assert starts == sorted(set(starts))
    assert all(
        a.end_at <= b.start_at for a, b in zip(rows.engine_rows, rows.engine_rows[1:], strict=False)
    )


def test_idle_energy_is_node_energy_without_a_request() -> None:
    rows, _ = run([tick(i * 0.5, i * 150.0, running=int(i % 2 == 0)) for i in range(7)])
    assert sum(r.idle_energy_j for r in rows.engine_rows) == pytest.approx(0.5 * 7 / 7 * 6 * 250)


def test_a_counter_that_fell_is_power_times_time_and_says_so() -> None:
    rows, meter = run([tick(0, 5000.0), tick(0.5, 5150.0), tick(1.0, 20.0), tick(1.5, 170.0)])
    (row,) = rows.engine_rows
    assert row.gpu_energy_j == pytest.approx(450.0)
    assert row.energy_origin is Origin.MODELLED
    assert meter.counter_resets == 1


def test_tokens_of_a_restarted_engine_count_from_zero() -> None:
    rows, _ = run([tick(0, 0.0, 1000.0), tick(0.5, 150.0, 40.0)])
    assert rows.engine_rows[0].tokens_out == 40.0


def test_a_wall_clock_that_steps_back_gives_no_row_twice() -> None:
    wall = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, -4, -3.5, -3, 4.5, 9]
    reports = [tick(i * 0.5, i * 150.0, wall_s=w) for i, w in enumerate(wall)]
    rows, _ = run(reports)
    starts = [r.start_at for r in rows.engine_rows]
    assert len(set(starts)) == len(starts)
    assert sum(r.gpu_energy_j for r in rows.engine_rows) == pytest.approx(150.0 * 12)


def test_a_wall_clock_that_jumps_ahead_leaves_a_gap_and_loses_nothing() -> None:
    """Half a century, as when a board without a battery gets the time: not millions of rows."""
    years_s = 50 * 365 * 86_400.0
    wall = [0, 0.5, 1, 1.5 + years_s, 2 + years_s, 2.5 + years_s]
    rows, _ = run([tick(i * 0.5, i * 150.0, i * 10.0, wall_s=w) for i, w in enumerate(wall)])
    before, after = rows.engine_rows
    assert before.end_at == START_AT + timedelta(seconds=1)
    assert after.start_at == START_AT + timedelta(seconds=1 + years_s)
    assert (before.gpu_energy_j, after.gpu_energy_j) == pytest.approx((300.0, 450.0))
    assert (before.tokens_out, after.tokens_out) == pytest.approx((20.0, 30.0))
    assert (before.power_draw_w, after.power_draw_w) == pytest.approx((300.0, 300.0))


def test_engines_share_the_node_by_gpu_energy() -> None:
    reports = [tick(i * 0.5, i * 150.0, engines=2, node_w=1000.0) for i in range(4)]
    rows, _ = run(reports)
    assert [r.node_energy_j for r in rows.engine_rows] == [pytest.approx(450 + 300)] * 2


def test_an_agent_that_never_ticked_has_no_rows() -> None:
    assert not RowMeter().flush()


def test_a_row_in_which_the_node_meter_fell_silent_is_modelled() -> None:
    origins = [Origin.MEASURED] * 4 + [Origin.MODELLED] + [Origin.MEASURED] * 5
    reports = [tick(0.5 * i, 100.0 * i, node_origin=origin) for i, origin in enumerate(origins)]
    rows, _ = run(reports)
    found = [row.node_energy_origin for row in rows.engine_rows]
    assert found == [Origin.MODELLED, Origin.MEASURED]  # the second row saw the meter alone
