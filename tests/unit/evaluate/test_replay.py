from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from pals_grid.core.budget import Reason
from pals_grid.evaluate.replay import ReplayConfig, replay

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.evaluate.result import ReplayResult, ReplayRow

START = datetime(2022, 12, 1, 16, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)


def write_inputs(folder: Path) -> tuple[Path, Path, Path]:
    """Two days of prices and carbon, and ten minutes of six requests a second."""
    price, carbon, trace = (folder / name for name in ("price.csv", "carbon.csv", "trace.csv"))
    first = START.replace(hour=0) - timedelta(days=1)
    lines = ["Period from,Period to,Agile Import price (p/kWh),Agile Export price (p/kWh)"]
    for k in range(144):
        at = first + HALF_HOUR * k
        pence = 60 if 16 <= at.hour < 19 else 20
        lines.append(f"{at:%d/%m/%Y %H:%M},{at + HALF_HOUR:%d/%m/%Y %H:%M},{pence},1")
    price.write_text("\n".join(lines) + "\n")
    polls = ["timestamp,zone_datetime,carbon_intensity_avg,fossilFuelPercentage"]
    for k in range(72):
        at = first + timedelta(hours=k)
        polls.append(f"{at.timestamp() + 1800:.0f},{at:%Y-%m-%dT%H:%M:%S}.000Z,250,40")
    carbon.write_text("\n".join(polls) + "\n")
    draw = random.Random(3)
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for k in range(3600):
        at = START + timedelta(seconds=k / 6)
        rows.append(f"{at:%Y-%m-%d %H:%M:%S.%f},{draw.randint(100, 2000)},{draw.randint(20, 400)}")
    trace.write_text("\n".join(rows) + "\n")
    return price, carbon, trace


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> ReplayConfig:
    price, carbon, trace = write_inputs(tmp_path_factory.mktemp("replay"))
    return ReplayConfig(price, carbon, trace, START, hours=1, database_url=postgres_url)


@pytest.fixture(scope="module")
def result(config: ReplayConfig) -> ReplayResult:
    return replay(config)


def test_the_hours_add_up_to_the_total_of_the_report(result: ReplayResult) -> None:
    for run in (result.controlled, result.uncontrolled):
        assert [row.start_at for row in run.hours] == [START]
        (hour,) = run.hours
        assert replace(hour, start_at=None) == run.total
        mean_w = sum(power_w for _, power_w in run.power_w) / len(run.power_w)
        assert mean_w / 1000 == pytest.approx(run.total.node_energy_kwh, rel=1e-3)


def test_cost_and_carbon_are_the_energy_times_price_and_intensity(result: ReplayResult) -> None:
    for run in (result.controlled, result.uncontrolled):
        assert run.total.cost == pytest.approx(run.total.node_energy_kwh * 0.6)
        assert run.total.carbon_g == pytest.approx(run.total.node_energy_kwh * 250)


def test_both_runs_are_given_the_same_work(result: ReplayResult) -> None:
    def inside_and_done(row: ReplayRow, left: int) -> int:
        return row.requests_finished + left

    with_it, without = result.controlled, result.uncontrolled
    assert inside_and_done(with_it.total, with_it.requests_left) == inside_and_done(
        without.total, without.requests_left
    )
    # A fifth of the work may wait for the end of the dear hours, and no more than that does.
    assert with_it.total.tokens_out >= 0.78 * without.total.tokens_out


def test_with_pals_grid_less_energy_is_used_and_the_budget_is_held(result: ReplayResult) -> None:
    # A fifth of the work is put off in these dear hours, so a token carries more of the node's
    # base power; the GPUs' own joules per token show the control.
    saved, per_token = (result.saving_ratio(n) for n in ("node_energy_kwh", "gpu_j_per_token"))
    assert saved is not None
    assert per_token is not None
    assert saved > 0.1
    assert per_token > 0.05
    limits = {slot.start_at: slot.limit_w for slot in result.slots}
    assert len(limits) == 2
    for at, power_w in result.controlled.power_w:
        held_w = max(limit for start_at, limit in limits.items() if start_at <= at)
        assert power_w <= held_w * 1.02


def test_the_dear_hour_is_planned_with_less(result: ReplayResult) -> None:
    assert [slot.reason for slot in result.slots] == [Reason.SHIFTED_OUT] * 2
    assert [slot.price_per_mwh for slot in result.slots] == [600.0, 600.0]
    assert result.plans >= 2


def test_the_same_seed_gives_the_same_figures(config: ReplayConfig, result: ReplayResult) -> None:
    again = replay(config)
    assert again.controlled == result.controlled
    assert again.uncontrolled == result.uncontrolled
    assert again.slots == result.slots


def test_the_scratch_database_is_gone_afterwards(result: ReplayResult, postgres_url: str) -> None:
    assert result.hours == 1
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'pals_grid_replay_%'"
        ).fetchall()
    assert names == []
